"""Policies in force: who has which, what names stand for until when, and what was refused.

The kernel's sets are the truth about refusals and the addresses of names, so that both outlive
pierd; beside them stands here which names were meant.
"""

import contextlib
import json
import math
import time
from collections.abc import Callable, Iterable, Mapping
from ipaddress import ip_network

from msgspec import Struct

from pier.errors import Internal
from pier.kernel import conntrack
from pier.kernel.nftables import protocol_name
from pier.network import egress_rules as rules
from pier.network.egress import Address
from pier.network.egress_rules import Holder, Pin, Standing

# A name's address stays for at least so long: whoever asked has to connect yet.
_LEAST_TTL_S = 5
_MOST_TTL_S = 86400
_NAMES_REMEMBERED = 256


class Pinned(Struct):
    """An address that a name stood for; `until` is of time.monotonic()."""

    item: str
    address: Address
    name: str
    until: float

    @property
    def left_s(self) -> int:
        """Seconds, at least one; 0 for ever."""
        return 0 if self.until == math.inf else max(1, int(self.until - time.monotonic()))


class EgressTable:
    """`run(commands, json)` changes the host's rules, Internal raised where that fails."""

    def __init__(self, name: str, run: Callable[[str, bool], str]) -> None:
        self.name = name
        self._run = run
        self._holders: dict[str, Holder] = {}
        self._pinned: dict[str, dict[tuple[str, Address], Pinned]] = {}
        self._refused_names: dict[str, dict[str, int]] = {}
        self._known = False

    def holder(self, key: str) -> Holder | None:
        return self._holders.get(key)

    def text(self) -> str:
        """The commands for the whole table, with what the kernel knows in it now; "" for none."""
        if not self._holders and self._known:
            return ""
        standing = self._standing()
        for key in self._holders:
            # After a flush the addresses are known here still.
            here = standing.setdefault(key, Standing())
            seen = {(pin.item, pin.address) for pin in here.pins}
            here.pins += [
                Pin(each.item, each.address, each.left_s)
                for place, each in self._alive(key).items()
                if place not in seen
            ]
            for pin in here.pins:
                until = time.monotonic() + pin.left_s if pin.left_s else math.inf
                pinned = self._pinned.setdefault(key, {})
                pinned.setdefault((pin.item, pin.address), Pinned(pin.item, pin.address, "", until))
        self._known = True
        return rules.table(self.name, self._holders.values(), standing)

    def chains(self) -> list[str]:
        """The chains that there are now."""
        return [*self._holders, "forward", "arrive"] if self._holders else []

    def remember(self, holders: Iterable[Holder]) -> None:
        """Let these be the holders without putting them in force: `text` does, for all at once."""
        self._holders.update((each.key, each) for each in holders)

    def hold(self, holder: Holder) -> None:
        """Put a policy in force, or change it. Connections that it does not allow end. Internal."""
        before = self._holders.get(holder.key)
        if before == holder:
            return
        self._holders[holder.key] = holder
        try:
            if before is not None:
                self._run(rules.replace(self.name, before, holder), False)
            elif len(self._holders) == 1:
                self._run(self.text(), False)
            else:
                self._run(rules.add(self.name, holder, Standing()), False)
        except Internal:
            try:
                self._run(self.text(), False)
            except Internal:
                if before is None:
                    del self._holders[holder.key]
                else:
                    self._holders[holder.key] = before
                raise
        self._cut(holder)

    def let_go(self, key: str) -> None:
        """Take a policy out of force; none is fine."""
        holder = self._holders.pop(key, None)
        self._pinned.pop(key, None)
        self._refused_names.pop(key, None)
        if holder is None:
            return
        commands = rules.remove(self.name, holder) if self._holders else rules.delete(self.name)
        try:
            self._run(commands, False)
        except Internal:
            with contextlib.suppress(Internal):
                self._run(self.text() or rules.delete(self.name), False)

    def pin(self, key: str, name: str, found: Mapping[Address, int | None]) -> None:
        """Let the items that mean a name stand for its addresses. Raises Internal.

        `found` has their TTLs in seconds, None for as long as the policy is there.
        """
        holder = self._holders.get(key)
        if holder is None:
            return
        now = time.monotonic()
        pinned = self._pinned.setdefault(key, {})
        commands = []
        for item in holder.policy.items:
            if not item.matches(name):
                continue
            for address, ttl_s in found.items():
                left = 0 if ttl_s is None else min(max(ttl_s, _LEAST_TTL_S), _MOST_TTL_S)
                until = now + left if left else math.inf
                known = pinned.get((item.key, address))
                if known is not None and known.until >= until:
                    continue
                pinned[item.key, address] = Pinned(item.key, address, name, until)
                pin = Pin(item.key, address, left)
                commands += [rules.unpin(self.name, key, pin), rules.pin(self.name, key, pin)]
        if commands:
            self._run("\n".join(commands) + "\n", False)

    def fix(self, key: str, name: str, addresses: Iterable[Address]) -> None:
        """Let a name stand for addresses as long as the policy is there: it is in /etc/hosts."""
        self.pin(key, name, dict.fromkeys(addresses))

    def refused_name(self, key: str, name: str) -> None:
        """Count a name that was not looked up."""
        names = self._refused_names.setdefault(key, {})
        if name in names or len(names) < _NAMES_REMEMBERED:
            names[name] = names.get(name, 0) + 1

    def refused_names(self, key: str) -> dict[str, int]:
        return dict(self._refused_names.get(key, {}))

    def pinned(self, key: str) -> list[Pinned]:
        """What names stand for now."""
        return list(self._alive(key).values())

    def allows(self, key: str, address: Address, protocol: str, port: int) -> bool:
        """Whether a holder's policy lets this pass; so does none."""
        holder = self._holders.get(key)
        if holder is None:
            return True
        by_item: dict[str, set[Address]] = {}
        for item, pinned in self._alive(key):
            by_item.setdefault(item, set()).add(pinned)
        return holder.policy.allows(address, protocol, port, by_item)

    def standing(self, key: str) -> Standing:
        """What was refused until now, by the kernel's counters."""
        return self._standing().get(key) or Standing()

    def _alive(self, key: str) -> dict[tuple[str, Address], Pinned]:
        now = time.monotonic()
        found = {k: v for k, v in self._pinned.get(key, {}).items() if v.until > now}
        if key in self._pinned:
            self._pinned[key] = found
        return dict(found)

    def _standing(self) -> dict[str, Standing]:
        try:
            listing = self._run(f"list table inet {self.name}", True)
        except Internal:
            return {}
        return rules.read(json.loads(listing))

    def _cut(self, holder: Holder) -> None:
        """Forget the connections that a changed policy does not allow."""
        subnets = [ip_network(text) for text in (*holder.addresses, *holder.sources)]

        def refused(source: Address, target: Address, protocol: int, port: int) -> bool:
            name = protocol_name(protocol)
            return any(source in net for net in subnets) and not self.allows(
                holder.key, target, name, port
            )

        if subnets:
            with contextlib.suppress(OSError):
                conntrack.forget_where(refused)
