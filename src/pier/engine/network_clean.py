"""Taking away what networks have made on the host: links, and tables of rules.

Like dockerd, pierd leaves bridges, rules and forwarding where they are when it ends: containers go
on, and the next pierd finds them. `pierd --network-clean` is for who stops using Pier. An engine
beside the usual one, of which no container runs, takes its own away as it ends: dockerds share one
bridge, and each of our engines has its own, which nobody might ever come back for. The networks
stay recorded; a pierd that is started makes their links again.
"""

import hashlib

from pier.errors import Conflict, Internal
from pier.kernel.netlink import Netlink
from pier.kernel.nftables import Missing, Nftables
from pier.network import guard, links, rules
from pier.network.firewall import chain_of
from pier.network.precedence import Precedence
from pier.storage.database import Database
from pier.storage.root import DataRoot

FORWARDING = "network.forwarding"
FORWARDING_6 = "network.forwarding6"
_SYSCTLS = {
    FORWARDING: "net/ipv4/ip_forward",
    FORWARDING_6: "net/ipv6/conf/all/forwarding",
}


def engine_suffix(data_root: str, usual: str) -> str:
    """What tells an engine's links and tables from those of others; "" for the usual one."""
    if data_root == usual:
        return ""
    return hashlib.sha256(data_root.encode()).hexdigest()[:8]


def boot_id() -> str:
    with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
        return file.read().strip()


def clean(data_root: str, usual: str) -> list[str]:
    """Remove links, tables and what forwarding we enabled; return what was removed, in words.

    Raises Unavailable while an engine runs there, Conflict while containers do.
    """
    root = DataRoot(data_root)
    try:
        suffix = engine_suffix(data_root, usual)
        removed = remove(suffix)
        database = Database(root.join("pier.db"), later=root.later)
        try:
            for key, path in _SYSCTLS.items():
                if database.get_metadata(key) == boot_id() and links.read_sysctl(path) == "1":
                    links.write_sysctl(path, "0")
                    database.set_metadata(key, "")
                    removed.append(f"forwarding ({path.replace('/', '.')} = 0)")
        finally:
            database.close()
    except OSError as exc:
        raise Internal(str(exc)) from exc
    finally:
        root.close()
    return removed


def remove(suffix: str) -> list[str]:
    """Remove an engine's links and tables; return which, in words.

    Raises Conflict, with nothing removed, while containers are on them; Internal, OSError.
    """
    return _links(suffix or "pier") + _tables(f"pier_{suffix}" if suffix else "pier")


def _links(engine_id: str) -> list[str]:
    mine = f"{links.ALIAS_PREFIX}{engine_id} "
    with Netlink() as netlink:
        every = links.all_links(netlink)
        ours = [link for link in every if link.alias.startswith(mine)]
        for link in ours:
            ports = [
                port.name for port in every if port.master == link.index and port.kind == "veth"
            ]
            if ports:
                raise Conflict(
                    f"containers are on {link.name} ({', '.join(ports)}): stop them first"
                )
        for link in ours:
            links.remove(netlink, link.name)
    return [f"link {link.name}" for link in ours]


def _tables(table: str) -> list[str]:
    try:
        with Nftables() as nft:

            def run(commands: str, json: bool) -> str:
                try:
                    return nft.run(commands, json=json)
                except OSError as exc:
                    raise Internal(str(exc)) from exc

            Precedence(chain_of(table), run, wanted=True).remove()
            there = run("list tables", False).splitlines()
            nft.run(rules.delete(table) + guard.delete(table) + rules.delete(f"{table}_egress"))
    except Missing:
        return []
    names = (f"inet {table}", f"bridge {table}", f"inet {table}_egress")
    return [f"table {name}" for name in names if f"table {name}" in there]
