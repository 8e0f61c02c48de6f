"""Addresses: which subnet a new network gets, and which addresses of it are taken.

Pure bookkeeping without I/O. What is leased is not stored here: the records of networks and
containers say it, and an engine that starts fills the pools from them (`Leases.reserve`), so that
there is nothing that could disagree. All runs in the loop's one thread: no two get one address.

As with Docker, the lowest free address comes first.
"""

import ipaddress
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

from pier.errors import Forbidden, InvalidParameter, Unavailable

Subnet = IPv4Network | IPv6Network
Address = IPv4Address | IPv6Address

# What a count of addresses is at most: that of a Go client's uint64.
MAX_COUNT = (1 << 64) - 1
NO_POOL_LEFT = "all predefined address pools have been fully subnetted"
IN_USE = "Address already in use"


@dataclass(frozen=True, slots=True)
class Pool:
    """Where subnets come from: `base` is cut into subnets of prefix length `size`."""

    base: Subnet
    size: int


# libnetwork's own (ipamutils): 172.17 to 172.31, then 192.168 in /20s.
DEFAULT_POOLS = (
    *(Pool(IPv4Network(f"172.{n}.0.0/16"), 16) for n in range(17, 32)),
    Pool(IPv4Network("192.168.0.0/16"), 20),
)


def parse_pool(base: str, size: int) -> Pool:
    """A pool of the settings (`--default-address-pool base=…,size=…`). Raises InvalidParameter."""
    try:
        network = ipaddress.ip_network(base, strict=False)
    except ValueError:
        raise InvalidParameter(
            f"invalid base pool {base!r}: invalid CIDR address: {base}"
        ) from None
    if not network.prefixlen <= size <= network.max_prefixlen:
        raise InvalidParameter(f"invalid pools size (base: {base}, size: {size})")
    return Pool(network, size)


def unique_local_pool(seed: bytes) -> Pool:
    """The /48 below fd00::/8 that this host has for IPv6 (RFC 4193); `seed` is the host's own."""
    prefix = b"\xfd" + seed[:5] + bytes(10)
    return Pool(IPv6Network((prefix, 48)), 64)


def choose_subnet(pools: Iterable[Pool], taken: Sequence[Subnet], version: int) -> Subnet:
    """Return the first subnet of the pools that overlaps none of `taken`.

    Raises InvalidParameter when there is none.
    """
    for pool in pools:
        if pool.base.version != version:
            continue
        near = [net for net in taken if net.version == version and net.overlaps(pool.base)]
        step = 1 << (pool.base.max_prefixlen - pool.size)
        first = int(pool.base.network_address)
        end = first + (1 << (pool.base.max_prefixlen - pool.base.prefixlen))
        while first < end:
            candidate = type(pool.base)((first, pool.size))
            blocker = next((net for net in near if net.overlaps(candidate)), None)
            if blocker is None:
                return candidate
            # Behind whatever is in the way: it may be far larger than what we look for.
            behind = int(blocker.broadcast_address) + 1
            first = max(first + step, -(-behind // step) * step)
    raise InvalidParameter(NO_POOL_LEFT)


@dataclass(slots=True)
class Leases:
    """The addresses of one subnet. `span` bounds what is chosen, not what may be asked for."""

    subnet: Subnet
    span: Subnet | None = None
    _taken: set[int] = field(default_factory=set)
    _lowest: int = 0

    def __post_init__(self) -> None:
        subnet = self.subnet
        if subnet.num_addresses > 2:
            self._taken.add(int(subnet.network_address))
            if subnet.version == 4:
                self._taken.add(int(subnet.broadcast_address))
        self._lowest = int((self.span or subnet).network_address)

    def __contains__(self, address: Address) -> bool:
        return int(address) in self._taken

    def covers(self, address: Address) -> bool:
        """Whether an address belongs to the subnet."""
        return address in self.subnet

    @property
    def used(self) -> int:
        """How many addresses of the subnet nobody can have any more."""
        return len(self._taken)

    @property
    def free(self) -> int:
        """How many are left to be chosen."""
        span = self.span or self.subnet
        first, last = int(span.network_address), int(span.broadcast_address)
        return span.num_addresses - sum(1 for number in self._taken if first <= number <= last)

    def allocate(self) -> Address:
        """Take the lowest free address. Raises Unavailable when there is none."""
        last = int((self.span or self.subnet).broadcast_address)
        candidate = self._lowest
        while candidate in self._taken:
            candidate += 1
        if candidate > last:
            self._lowest = candidate
            raise Unavailable("no available addresses")
        self._lowest = candidate + 1
        self._taken.add(candidate)
        return type(self.subnet.network_address)(candidate)

    def reserve(self, address: Address) -> None:
        """Take a certain address. Raises Forbidden when it is taken."""
        if int(address) in self._taken:
            raise Forbidden(IN_USE)
        self._taken.add(int(address))

    def release(self, address: Address) -> None:
        """Give an address back; one that was not taken is fine."""
        number = int(address)
        self._taken.discard(number)
        low = int((self.span or self.subnet).network_address)
        if low <= number < self._lowest:
            self._lowest = number
