r"""Policies of what may be reached outside, as text for nft(8): a table of its own.

    table inet pier_egress
        map  held4/6, nets       containers by address and networks by bridge, to the chains below
        chain forward, arrive    what goes through the host, and what is for the host itself
        chain <holder>           one policy: what passes returns, the rest is counted and refused
        set  <holder>_<item>_4/6 the addresses that a name stands for, each as long as its TTL says
        set  <holder>_no4/6      what was refused, with counters; counter <holder>: all of it

A packet passes when neither the container's nor the network's policy refuses it. Judged is where
it was sent first, before a published port led it elsewhere. What belongs to a connection that was let
pass goes on; who changes a policy forgets those that it does not allow any more (`conntrack`).
The table is there only while somebody has a policy. Pure.
"""

from collections.abc import Iterable, Mapping, Sequence
from ipaddress import ip_address
from typing import Any

from msgspec import Struct

from pier.kernel.nftables import PROTOCOLS, protocol_name
from pier.network.egress import Address, Item, Policy
from pier.network.rules import WITH_PORTS

_BASE = (
    "map held4 { type ipv4_addr : verdict; }",
    "map held6 { type ipv6_addr : verdict; }",
    "map nets { type ifname : verdict; }",
)
_JUDGE = (
    "ct state established,related accept",
    "ip saddr vmap @held4",
    "ip6 saddr vmap @held6",
    "iifname vmap @nets",
)
_NEIGHBOURS = (
    "icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert, nd-router-solicit,"
    " mld-listener-report, mld2-listener-report } return"
)
_TYPES = {4: "ipv4_addr", 6: "ipv6_addr"}
_FAMILIES = {4: "ip", 6: "ip6"}
_REFUSALS = 1024
_REMEMBERED = "1d"


class Holder(Struct, frozen=True):
    """Whom a policy is for: a container (`addresses`) or a network (`interface`, its bridge).

    `key` is a name of nft's without "_"; `own` are the bridges it is on, behind which nothing is
    judged; `sources` are the subnets that its connections come from.
    """

    key: str
    policy: Policy
    own: tuple[str, ...]
    addresses: tuple[str, ...] = ()
    interface: str = ""
    sources: tuple[str, ...] = ()


class Pin(Struct, frozen=True):
    """An address that an item's name stands for, for so many seconds more; 0 for as long as it is."""

    item: str
    address: Address
    left_s: int


class Refusal(Struct, frozen=True):
    """Packets to a destination that were refused; port 0 where the protocol has none."""

    address: str
    protocol: str
    port: int
    packets: int
    octets: int


class Standing(Struct):
    """What the kernel knows of one holder beside its policy."""

    pins: list[Pin] = []
    refusals: list[Refusal] = []
    packets: int = 0
    octets: int = 0


def table(name: str, holders: Iterable[Holder], standing: Mapping[str, Standing]) -> str:
    """The commands that make the whole table what it is to be, whatever it was."""
    lines = [delete(name).rstrip()]
    every = list(holders)
    if not every:
        return lines[0] + "\n"
    lines += [f"table inet {name} {{", *_BASE]
    for chain, hook in (("forward", "forward"), ("arrive", "input")):
        head = f"type filter hook {hook} priority filter - 5; policy accept;"
        lines += [f"chain {chain} {{", head, *_JUDGE, "}"]
    lines.append("}")
    text = "\n".join(lines) + "\n"
    return text + "".join(add(name, each, standing.get(each.key) or Standing()) for each in every)


def delete(name: str) -> str:
    return f"table inet {name}\ndelete table inet {name}\n"


def add(name: str, holder: Holder, standing: Standing) -> str:
    """The commands that put one more policy in force."""
    lines = _sets(name, holder.key, holder.policy, standing)
    lines += [f"table inet {name} {{", f"chain {holder.key} {{", *_rules(holder), "}", "}"]
    lines += [f"add element inet {name} {text}" for text in _elements(holder, verdict=True)]
    kept = {item.key for item in holder.policy.items}
    lines += [pin(name, holder.key, each) for each in standing.pins if each.item in kept]
    return "\n".join(lines) + "\n"


def replace(name: str, before: Holder, after: Holder) -> str:
    """The commands that give a holder another policy or place; what names stand for is kept."""
    lines = _sets(name, after.key, after.policy, None)
    lines.append(f"flush chain inet {name} {after.key}")
    lines += [f"table inet {name} {{", f"chain {after.key} {{", *_rules(after), "}", "}"]
    old = dict(zip(_elements(before, verdict=False), _elements(before, verdict=True), strict=True))
    new = dict(zip(_elements(after, verdict=False), _elements(after, verdict=True), strict=True))
    lines += [f"delete element inet {name} {text}" for text in old if text not in new]
    lines += [f"add element inet {name} {verdict}" for t, verdict in new.items() if t not in old]
    kept = _item_sets(after.key, after.policy)
    gone = [each for each in _item_sets(before.key, before.policy) if each not in kept]
    lines += [f"delete set inet {name} {each}" for each in gone]
    return "\n".join(lines) + "\n"


def remove(name: str, holder: Holder) -> str:
    """The commands that take a holder's policy out of force."""
    key = holder.key
    sets = [*_item_sets(key, holder.policy), f"{key}_no4", f"{key}_no6"]
    lines = [f"delete element inet {name} {text}" for text in _elements(holder, verdict=False)]
    lines += [f"flush chain inet {name} {key}", f"delete chain inet {name} {key}"]
    lines += [f"delete set inet {name} {each}" for each in sets]
    lines.append(f"delete counter inet {name} {key}")
    return "\n".join(lines) + "\n"


def pin(name: str, key: str, pin_: Pin) -> str:
    """The command that lets an item's name stand for an address, anew or for longer."""
    place = f"inet {name} {key}_{pin_.item}_{pin_.address.version}"
    timeout = f" timeout {pin_.left_s}s" if pin_.left_s else ""
    return f"add element {place} {{ {pin_.address}{timeout} }}"


def unpin(name: str, key: str, pin_: Pin) -> str:
    """The commands that forget it, whether it is there or not (an element's timeout is for life)."""
    place = f"inet {name} {key}_{pin_.item}_{pin_.address.version}"
    return f"add element {place} {{ {pin_.address} }}\ndelete element {place} {{ {pin_.address} }}"


def read(listing: Any) -> dict[str, Standing]:
    """What `nft -j list table` says of each holder."""
    found: dict[str, Standing] = {}
    for entry in listing.get("nftables", ()):
        if "counter" in entry:
            standing = found.setdefault(entry["counter"]["name"], Standing())
            standing.packets = entry["counter"]["packets"]
            standing.octets = entry["counter"]["bytes"]
    for entry in listing.get("nftables", ()):
        if "set" not in entry or "_" not in entry["set"]["name"]:
            continue
        key, _, part = entry["set"]["name"].partition("_")
        standing = found.setdefault(key, Standing())
        for element in entry["set"].get("elem", ()):
            inner = element["elem"] if isinstance(element, dict) and "elem" in element else {"val": element}  # fmt: skip
            if part in ("no4", "no6"):
                address, protocol, port = inner["val"]["concat"]
                counter = inner.get("counter", {})
                standing.refusals.append(
                    Refusal(
                        str(address),
                        protocol_name(protocol),
                        int(port),
                        counter.get("packets", 0),
                        counter.get("bytes", 0),
                    )
                )
            else:
                item = part.partition("_")[0]
                left = max(1, inner["expires"]) if "expires" in inner else 0
                standing.pins.append(Pin(item, ip_address(inner["val"]), left))
    return found


def _item_sets(key: str, policy: Policy) -> list[str]:
    return [f"{key}_{item.key}_{v}" for item in policy.items if item.name for v in (4, 6)]


def _sets(name: str, key: str, policy: Policy, standing: Standing | None) -> list[str]:
    lines = [f"table inet {name} {{"]
    for item in policy.items:
        if item.name:
            lines += [f"set {key}_{item.key}_{v} {{ type {t}; flags timeout; }}" for v, t in _TYPES.items()]  # fmt: skip
    for version, kind in _TYPES.items():
        lines.append(
            f"set {key}_no{version} {{ type {kind} . inet_proto . inet_service;"
            f" flags dynamic,timeout; timeout {_REMEMBERED}; size {_REFUSALS}; counter; }}"
        )
    counts = f"packets {standing.packets} bytes {standing.octets}" if standing else ""
    lines += [f"counter {key} {{", counts, "}", "}"]
    for each in standing.refusals if standing else ():
        version = 6 if ":" in each.address else 4
        lines.append(
            f"add element inet {name} {key}_no{version}"
            f" {{ {each.address} . {PROTOCOLS.get(each.protocol, each.protocol)} . {each.port}"
            f" counter packets {each.packets} bytes {each.octets} timeout {_REMEMBERED} }}"
        )
    return lines


def _rules(holder: Holder) -> list[str]:
    key = holder.key
    rules = []
    if holder.own:
        names = ", ".join(f'"{name}"' for name in holder.own)
        rules.append(f"oifname {{ {names} }} return")
    rules.append(_NEIGHBOURS)
    for item in holder.policy.items:
        for version in (4, 6):
            where = _where(key, item, version)
            if where:
                rules.append(f"ct original {_FAMILIES[version]} daddr {where}{_ports(item)} return")
    for version, family in _FAMILIES.items():
        place = f"meta nfproto ipv{version} meta l4proto"
        address = f"ct original {family} daddr"
        told = f"update @{key}_no{version} {{ {address} . meta l4proto ."
        rules.append(f"{place} {WITH_PORTS} {told} ct original proto-dst }}")
        rules.append(f"{place} != {WITH_PORTS} {told} 0 }}")
    rules.append(f'counter name "{key}"')
    # A new connection fails at once; one that went on until the policy changed is cut.
    rules.append(
        f"meta l4proto {PROTOCOLS['tcp']} tcp flags & (syn | ack) != syn reject with tcp reset"
    )
    rules.append("reject with icmpx admin-prohibited")
    return rules


def _where(key: str, item: Item, version: int) -> str:
    if item.name:
        return f"@{key}_{item.key}_{version}"
    assert item.subnet is not None
    return str(item.subnet) if item.subnet.version == version else ""


def _ports(item: Item) -> str:
    text = f" meta l4proto {PROTOCOLS[item.protocol]}" if item.protocol else ""
    if not item.first:
        return text
    text = text or f" meta l4proto {WITH_PORTS}"
    ports = f"{item.first}-{item.last}" if item.last != item.first else str(item.first)
    return f"{text} ct original proto-dst {ports}"


def _elements(holder: Holder, *, verdict: bool) -> Sequence[str]:
    jump = f" : jump {holder.key}" if verdict else ""
    texts = [
        f"held{ip_address(address).version} {{ {address}{jump} }}" for address in holder.addresses
    ]
    if holder.interface:
        texts.append(f'nets {{ "{holder.interface}"{jump} }}')
    return texts
