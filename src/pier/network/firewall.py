"""The rule set in force: written whole, changed by single elements, restored when somebody flushes it.

The kernel tells of every change of rules (NETLINK_NETFILTER, group NFNLGRP_NFTABLES); after any
deletion that was not ours the table is compared with what it was after we wrote it.
"""

import asyncio
import contextlib
import logging
import re
import socket
import struct
from collections.abc import Callable, Sequence

from pier.errors import Internal
from pier.kernel import conntrack
from pier.kernel.netlink import NETLINK_NETFILTER, Netlink
from pier.kernel.nftables import Nftables
from pier.network import guard, rules
from pier.network.egress_table import EgressTable
from pier.network.guard import Port
from pier.network.precedence import Precedence
from pier.network.rules import NO_MORE, BridgeRules, Publication, Ways

log = logging.getLogger(__name__)

_NFNLGRP_NFTABLES = 7
_SUBSYSTEM = 10
_DELETIONS = frozenset((2, 5, 8, 11, 14))  # NFT_MSG_DELTABLE, DELCHAIN, DELRULE, DELSET, DELSETELEM
_LOOK_DELAY_S = 0.2
_RECEIVE_BYTES = 1 << 16


class Firewall:
    """`state` says what is to be in force whenever it is asked: bridges, published ports.

    Without `enabled` (`--iptables=false`) it makes no rules at all; `first` is for `Precedence`.
    """

    def __init__(
        self,
        table: str,
        state: Callable[[], tuple[Sequence[BridgeRules], Sequence[Publication], Sequence[Port]]],
        *,
        drops_foreign: Callable[[], bool],
        enabled: bool = True,
        first: bool = False,
        relays: bool = True,
        ways: Ways = NO_MORE,
    ) -> None:
        self._enabled = enabled
        self.table = table
        self._precedence = Precedence(chain_of(table), self._any, wanted=first)
        self.egress = EgressTable(f"{table}_egress", self._checked)
        self._relays = relays
        self._ways = ways
        self._state = state
        self._drops_foreign = drops_foreign
        self._nft: Nftables | None = None
        self._monitor: Netlink | None = None
        self._written = ""
        self._look: asyncio.TimerHandle | None = None

    def write(self) -> None:
        """Bring the whole table into the state that is wanted. Raises Internal, nothing changed."""
        if not self._enabled:
            return
        bridges, published, ports = self._state()
        foreign = self._drops_foreign()
        text = rules.ruleset(
            self.table,
            bridges,
            published,
            drops_foreign=foreign,
            relays=self._relays,
            ways=self._ways,
        )
        self._run(text + guard.ruleset(self.table, ports) + self.egress.text())
        self._precedence.write([bridge.interface for bridge in bridges])
        self._written = self._listing()
        self._watch()

    def publish(self, publications: Sequence[Publication]) -> None:
        """Publish ports, all or none. Raises Internal."""
        if publications and self._enabled:
            self._run("\n".join(rules.add_element(self.table, p) for p in publications) + "\n")
            _forget_flows(publications)

    def withdraw(self, publications: Sequence[Publication]) -> None:
        """Take ports back. What cannot be taken singly goes with the next whole table."""
        if not publications or not self._enabled:
            return
        try:
            self._run("\n".join(rules.delete_element(self.table, p) for p in publications) + "\n")
        except Internal:
            self._rewrite()
        _forget_flows(publications)

    def _rewrite(self) -> None:
        """The whole table, for what could not be taken singly. Ends of containers must not fail."""
        try:
            self.write()
        except Internal as exc:
            log.error("%s", exc.message)  # noqa: TRY400 - the message says it

    def hold(self, ports: Sequence[Port]) -> None:
        """Hold endpoints to their addresses. Raises Internal."""
        if ports and self._enabled:
            self._run("\n".join(guard.add_port(self.table, port) for port in ports) + "\n")

    def let_go(self, ports: Sequence[Port]) -> None:
        """Forget endpoints that are gone."""
        if not ports or not self._enabled:
            return
        try:
            self._run("\n".join(guard.delete_port(self.table, port) for port in ports) + "\n")
        except Internal:
            self._rewrite()

    def about(self, words: Sequence[str]) -> dict[str, list[str]]:
        """The rules and elements in force that have one of the words, by "table chain or set"."""
        found: dict[str, list[str]] = {}
        tables = (f"inet {self.table}", f"bridge {self.table}", f"inet {self.egress.name}")
        for table in tables:
            place, named = "", False
            try:
                lines = self._run(f"list table {table}").splitlines()
            except Internal:
                continue
            for line in lines:
                text = line.strip()
                if text.endswith("{") and not text.startswith(("table", "elements")):
                    place = text.rstrip("{ ")
                    named = any(word.strip('"') == place.partition(" ")[2].partition("_")[0] for word in words)  # fmt: skip
                elif place and text not in ("", "}") and (named or _has(text, words)):
                    found.setdefault(f"{table} {place}", []).append(text)
        return found

    def close(self) -> None:
        """Stop watching; the rules stay, as the containers do."""
        if self._look is not None:
            self._look.cancel()
        if self._monitor is not None:
            asyncio.get_running_loop().remove_reader(self._monitor.sock.fileno())
            self._monitor.close()
            self._monitor = None
        if self._nft is not None:
            self._nft.close()
            self._nft = None

    def _checked(self, commands: str, json: bool) -> str:
        """Rules that somebody relies on: without a firewall they are refused."""
        if not self._enabled:
            raise Internal("an egress policy needs the host's firewall, which --iptables=false forbids")  # fmt: skip
        found = self._run(commands, json=json)
        if "chain " in commands and not json:  # elements come and go unwatched
            self._written = self._listing()
            self._watch()
        return found

    def _any(self, commands: str, json: bool) -> str:
        return self._run(commands, json=json)

    def _run(self, commands: str, *, json: bool = False) -> str:
        try:
            if self._nft is None:
                self._nft = Nftables()
            return self._nft.run(commands, json=json)
        except OSError as exc:
            raise Internal(f"the host's firewall cannot be set up: {exc.strerror or exc}") from exc

    def _listing(self) -> str:
        """The rules in force, without the elements of maps, which come and go."""
        commands = [f"list chain inet {self.table} {name}\n" for name in rules.FLUSHED]
        commands += [f"list chain bridge {self.table} {n}\n" for n in ("prerouting", "check")]
        commands += [f"list chain inet {self.egress.name} {n}\n" for n in self.egress.chains()]
        return "".join(self._run(command) for command in commands)

    def _watch(self) -> None:
        if self._monitor is None:
            self._monitor = Netlink(NETLINK_NETFILTER, groups=(_NFNLGRP_NFTABLES,))
            self._monitor.sock.setblocking(False)
            asyncio.get_running_loop().add_reader(self._monitor.sock.fileno(), self._told)

    def _told(self) -> None:
        assert self._monitor is not None
        suspicious = False
        try:
            while True:
                data = self._monitor.sock.recv(_RECEIVE_BYTES)
                suspicious = suspicious or _deletes(data)
        except BlockingIOError:
            pass
        except OSError:
            suspicious = True  # more was told than fits: ENOBUFS
        if suspicious and self._look is None:
            loop = asyncio.get_running_loop()
            self._look = loop.call_later(_LOOK_DELAY_S, self._restore)

    def _restore(self) -> None:
        self._look = None
        with contextlib.suppress(Internal):
            if self._listing() == self._written and self._precedence.is_first():
                return
        log.warning("the rules of table inet %s were changed or flushed: restored", self.table)
        try:
            self.write()
        except Internal as exc:
            log.error("%s", exc.message)  # noqa: TRY400 - the message says it


def chain_of(table: str) -> str:
    """The chain that comes first in iptables' FORWARD, if that is asked for."""
    return table.upper().replace("_", "-") + "-FORWARD"


def _has(text: str, words: Sequence[str]) -> bool:
    """Whether a line has one of the words, as a whole word."""
    return any(re.search(rf"(?<![\w.:]){re.escape(word)}(?![\w.:])", text) for word in words)


def _forget_flows(publications: Sequence[Publication]) -> None:
    """Let datagrams that are on their way for long take the way that their port leads now."""
    ports = {each.host_port for each in publications if each.protocol == "udp"}
    if ports:
        try:
            conntrack.forget(socket.IPPROTO_UDP, ports)
        except OSError as exc:
            log.warning("flows to ports %s were not forgotten: %s", sorted(ports), exc)


def _deletes(data: bytes) -> bool:
    """Whether a notification is of something deleted, by its first message's type."""
    (kind,) = struct.unpack_from("=H", data, 4)
    return kind >> 8 == _SUBSYSTEM and kind & 0xFF in _DELETIONS
