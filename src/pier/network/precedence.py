"""Docker's place in the host's own firewall: ahead of its rules for what is forwarded.

dockerd's rules are in iptables' `filter FORWARD`, before those of ufw and of administrators, and what
they accept is asked about no more. Ours are in tables of our own, where an `accept` ends nothing
but its own chain. With `--publish-before-firewall` a chain of ours comes first in `FORWARD` as well
and accepts what goes to or from a bridge; the table of our own still drops what it drops.

Where `FORWARD` is not there (no iptables rules, of nftables' kind) there is nothing to come before.
"""

import json
import logging
from collections.abc import Callable, Sequence
from typing import Any

from pier.errors import Internal

log = logging.getLogger(__name__)

_FAMILIES = ("ip", "ip6")
_PLACE = "filter FORWARD"
_LEGACY = {"ip": "/proc/net/ip_tables_names", "ip6": "/proc/net/ip6_tables_names"}


class Precedence:
    """`chain` is the name of ours; `run(commands, json)` changes rules, Internal where that fails.

    Without `wanted` it takes away what an engine with other settings left.
    """

    def __init__(self, chain: str, run: Callable[[str, bool], str], *, wanted: bool) -> None:
        self._chain = chain
        self._run = run
        self._wanted = wanted

    def write(self, bridges: Sequence[str]) -> None:
        """Let what passes these bridges be asked about no further. Raises Internal."""
        for family in _FAMILIES:
            rules = self._rules(family)
            if rules is None:
                self._warn_of_legacy(family)
                continue
            jumps = [handle for handle, target in rules if target == self._chain]
            if not self._wanted:
                if jumps:
                    self._run(self._delete(family, jumps), False)
                continue
            place = f"{family} filter {self._chain}"
            lines = [f"add chain {place}", f"flush chain {place}"]
            for name in bridges:
                lines += [f'add rule {place} {way}ifname "{name}" counter accept' for way in "io"]
            if not jumps or rules[0][1] != self._chain:
                lines += [f"delete rule {family} {_PLACE} handle {handle}" for handle in jumps]
                lines.append(f"insert rule {family} {_PLACE} counter jump {self._chain}")
            self._run("\n".join(lines) + "\n", False)

    def remove(self) -> None:
        """Take the chain away; absent is fine. Raises Internal."""
        for family in _FAMILIES:
            jumps = [h for h, target in self._rules(family) or () if target == self._chain]
            if jumps:
                self._run(self._delete(family, jumps), False)

    def is_first(self) -> bool:
        """Whether it is where it is to be."""
        if not self._wanted:
            return True
        every = [self._rules(family) for family in _FAMILIES]
        return all(rules is None or (bool(rules) and rules[0][1] == self._chain) for rules in every)

    def _rules(self, family: str) -> list[tuple[int, str]] | None:
        """The (handle, target) of the rules in FORWARD, "" for no jump; None for no such chain."""
        try:
            listing = self._run(f"list chain {family} {_PLACE}", True)
        except Internal:
            return None
        rules = (entry["rule"] for entry in json.loads(listing)["nftables"] if "rule" in entry)
        return [(rule["handle"], _target(rule["expr"])) for rule in rules]

    def _delete(self, family: str, jumps: Sequence[int]) -> str:
        place = f"{family} filter {self._chain}"
        lines = [f"delete rule {family} {_PLACE} handle {handle}" for handle in jumps]
        return "\n".join([*lines, f"flush chain {place}", f"delete chain {place}"]) + "\n"

    def _warn_of_legacy(self, family: str) -> None:
        if not self._wanted:
            return
        try:
            with open(_LEGACY[family], encoding="ascii") as file:
                has_rules = "filter" in file.read().split()
        except OSError:
            return
        if has_rules:
            log.warning(
                "--publish-before-firewall: the %s rules of iptables-legacy cannot be come before;"
                " update-alternatives --config iptables chooses iptables-nft",
                family,
            )


def _target(expressions: Sequence[Any]) -> str:
    for each in expressions:
        if isinstance(each, dict) and "jump" in each:
            return str(each["jump"]["target"])
    return ""
