"""`pier network`: connect, create, disconnect, ls, prune and rm."""

from pier.cli import kinds
from pier.cli.command import Command, each
from pier.cli.config_file import list_format
from pier.cli.errors import Failure
from pier.cli.flags import Flag
from pier.cli.formats import FILTER, TABLE_FORMAT, filters
from pier.cli.http import quote
from pier.cli.own_flags import EGRESS_FLAG
from pier.cli.tables import Listing, short_id

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from pier.cli.command import Context
    from pier.cli.flags import Options

_NETWORKS = Listing(
    {
        "ID": "NETWORK ID",
        "Name": "NAME",
        "Driver": "DRIVER",
        "Scope": "SCOPE",
        "IPv4": "IPV4",
        "IPv6": "IPV6",
        "Internal": "INTERNAL",
        "Labels": "LABELS",
        "CreatedAt": "CREATED AT",
    },
    "{{.ID}}\t{{.Name}}\t{{.Driver}}\t{{.Scope}}",
    what="*network.networkContext",
    quiet="{{.ID}}",
)
_WARNING = "WARNING! This will remove all custom networks not used by at least one container."


def _list(context: "Context", options: "Options") -> None:
    source = _NETWORKS.source(list_format(options, "networksFormat"), quiet=options.on("quiet"))
    _NETWORKS.check(source)
    found = context.client.get("/networks", {"filters": filters(options)}).json()
    networks = sorted(found, key=lambda network: network["Name"])
    full = options.on("no-trunc")
    _NETWORKS.write(source, [_row(network, full=full) for network in networks])


def _row(network: "dict[str, Any]", *, full: bool) -> "dict[str, Any]":
    labels = network.get("Labels") or {}
    return {
        "ID": network["Id"] if full else short_id(network["Id"]),
        "Name": network["Name"],
        "Driver": network["Driver"],
        "Scope": network["Scope"],
        "IPv4": str(network["EnableIPv4"]).lower(),
        "IPv6": str(network["EnableIPv6"]).lower(),
        "Internal": str(network["Internal"]).lower(),
        "Labels": ",".join(f"{key}={value}" for key, value in sorted(labels.items())),
        "Label": lambda name: labels.get(name, ""),
        "CreatedAt": network["Created"],
    }


def _create(context: "Context", options: "Options") -> None:
    body: dict[str, Any] = {
        "Name": options.args[0],
        "Driver": options.text("driver"),
        "Options": {**_pairs(options.list("opt")), **_policy(options)},
        "IPAM": {
            "Driver": options.text("ipam-driver"),
            "Options": _pairs(options.list("ipam-opt")),
            "Config": _subnets(options),
        },
        "Internal": options.on("internal"),
        "Attachable": options.on("attachable"),
        "Ingress": options.on("ingress"),
        "Scope": options.text("scope"),
        "ConfigOnly": options.on("config-only"),
        "Labels": _pairs(options.list("label")),
    }
    for flag, key in (("ipv4", "EnableIPv4"), ("ipv6", "EnableIPv6")):
        if flag in options.changed:
            body[key] = options.on(flag)
    if options.text("config-from"):
        body["ConfigFrom"] = {"Network": options.text("config-from")}
    print(context.client.post("/networks/create", body=body).json()["Id"])


def _policy(options: "Options") -> dict[str, str]:
    text = options.text("egress")
    return {"pier.egress": text} if text else {}


def _pairs(values: list[str]) -> dict[str, str]:
    """`key=value` words as a map; a word without a value has an empty one."""
    return {key: value for key, _, value in (text.partition("=") for text in values)}


def _subnets(options: "Options") -> "list[dict[str, Any]]":
    """Each subnet with the range, gateway and auxiliary addresses that are in it."""
    subnets = _split(options.list("subnet"))
    ranges = _split(options.list("ip-range"))
    gateways = _split(options.list("gateway"))
    if len(subnets) < max(len(ranges), len(gateways)):
        raise Failure("every ip-range or gateway must have a corresponding subnet")
    config: dict[str, dict[str, Any]] = {subnet: {"Subnet": subnet} for subnet in subnets}
    for text in ranges:
        _place(config, text, "range")["IPRange"] = text
    for text in gateways:
        _place(config, text, "gateway")["Gateway"] = text
    for name, text in _pairs(options.list("aux-address")).items():
        entry = _place(config, text, "aux-address")
        entry.setdefault("AuxiliaryAddresses", {})[name] = text
    return list(config.values())


def _split(values: list[str]) -> list[str]:
    return [part for value in values for part in value.split(",") if part]


def _place(config: "dict[str, dict[str, Any]]", text: str, what: str) -> "dict[str, Any]":
    """The subnet's entry that an address or range belongs to."""
    import ipaddress

    try:
        wanted = ipaddress.ip_network(text, strict=False)
    except ValueError:
        raise Failure(f"invalid {what} {text}") from None
    for subnet, entry in config.items():
        try:
            network = ipaddress.ip_network(subnet, strict=False)
        except ValueError:
            continue  # the engine says what is wrong with it
        if network.version == wanted.version and wanted.subnet_of(network):  # type: ignore[arg-type]
            return entry
    raise Failure(f"no matching subnet for {what} {text}")


def _connect(context: "Context", options: "Options") -> None:
    network, container = options.args
    endpoint: dict[str, Any] = {
        "IPAMConfig": {
            "IPv4Address": options.text("ip"),
            "IPv6Address": options.text("ip6"),
            "LinkLocalIPs": options.list("link-local-ip"),
        },
        "Links": options.list("link"),
        "Aliases": options.list("alias"),
        "DriverOpts": _pairs(options.list("driver-opt")),
        "GwPriority": options.number("gw-priority"),
    }
    body = {"Container": container, "EndpointConfig": endpoint}
    context.client.post(f"/networks/{quote(network)}/connect", body=body).read()


def _disconnect(context: "Context", options: "Options") -> None:
    network, container = options.args
    body = {"Container": container, "Force": options.on("force")}
    context.client.post(f"/networks/{quote(network)}/disconnect", body=body).read()


def _remove(context: "Context", options: "Options") -> None:
    def remove(name: str) -> None:
        try:
            context.client.delete(f"/networks/{quote(name)}").read()
        except Failure as error:
            if options.on("force") and str(error).endswith("not found"):
                return
            raise
        print(name)

    each(options.args, remove)


def _prune(context: "Context", options: "Options") -> None:
    from pier.cli.confirm import confirm

    if not options.on("force") and not confirm(_WARNING):
        return
    pruned = context.client.post("/networks/prune", {"filters": filters(options)}).json()
    removed = pruned["NetworksDeleted"] or ()
    if removed:
        print("Deleted Networks:", *removed, sep="\n", end="\n\n")


CREATE = Command(
    "create [OPTIONS] NETWORK",
    "Create a network",
    _create,
    arity=(1, 1),
    options=(
        Flag("attachable", kinds.BOOL, "Enable manual container attachment"),
        Flag("aux-address", kinds.MAP, "Auxiliary IPv4 or IPv6 addresses used by Network driver", shown="map[]"),
        Flag("config-from", kinds.STRING, "The network from which to copy the configuration"),
        Flag("config-only", kinds.BOOL, "Create a configuration only network"),
        Flag("driver", kinds.STRING, "Driver to manage the Network", short="d", default="bridge", shown='"bridge"'),
        EGRESS_FLAG,
        Flag("gateway", kinds.STRINGS, "IPv4 or IPv6 Gateway for the master subnet"),
        Flag("ingress", kinds.BOOL, "Create swarm routing-mesh network"),
        Flag("internal", kinds.BOOL, "Restrict external access to the network"),
        Flag("ip-range", kinds.STRINGS, "Allocate container ip from a sub-range"),
        Flag("ipam-driver", kinds.STRING, "IP Address Management Driver", default="default", shown='"default"'),
        Flag("ipam-opt", kinds.MAP, "Set IPAM driver specific options", shown="map[]"),
        Flag("ipv4", kinds.BOOL, "Enable or disable IPv4 address assignment", default=True, shown="true"),
        Flag("ipv6", kinds.BOOL, "Enable or disable IPv6 address assignment"),
        Flag("label", kinds.LABEL, "Set metadata on a network"),
        Flag("opt", kinds.MAP, "Set driver specific options", short="o", shown="map[]"),
        Flag("scope", kinds.STRING, "Control the network's scope"),
        Flag("subnet", kinds.STRINGS, "Subnet in CIDR format that represents a network segment"),
    ),
)  # fmt: skip
LS = Command(
    "ls [OPTIONS]",
    "List networks",
    _list,
    arity=(0, 0),
    options=(
        FILTER,
        TABLE_FORMAT,
        Flag("no-trunc", kinds.BOOL, "Do not truncate the output"),
        Flag("quiet", kinds.BOOL, "Only display network IDs", short="q"),
    ),
    aliases="network ls, network list",
)
CONNECT = Command(
    "connect [OPTIONS] NETWORK CONTAINER",
    "Connect a container to a network",
    _connect,
    arity=(2, 2),
    options=(
        Flag("alias", kinds.STRINGS, "Add network-scoped alias for the container"),
        Flag("driver-opt", kinds.STRINGS, "driver options for the network"),
        Flag("gw-priority", kinds.INT, "Highest gw-priority provides the default gateway. Accepts positive and negative values."),
        Flag("ip", kinds.STRING, 'IPv4 address (e.g., "172.30.100.104")'),
        Flag("ip6", kinds.STRING, 'IPv6 address (e.g., "2001:db8::33")'),
        Flag("link", kinds.LIST, "Add link to another container"),
        Flag("link-local-ip", kinds.STRINGS, "Add a link-local address for the container"),
    ),
)  # fmt: skip
DISCONNECT = Command(
    "disconnect [OPTIONS] NETWORK CONTAINER",
    "Disconnect a container from a network",
    _disconnect,
    arity=(2, 2),
    options=(
        Flag("force", kinds.BOOL, "Force the container to disconnect from a network", short="f"),
    ),
)
RM = Command(
    "rm NETWORK [NETWORK...]",
    "Remove one or more networks",
    _remove,
    arity=(1, None),
    options=(Flag("force", kinds.BOOL, "Do not error if the network does not exist", short="f"),),
    aliases="network rm, network remove",
)
PRUNE = Command(
    "prune [OPTIONS]",
    "Remove all unused networks",
    _prune,
    arity=(0, 0),
    options=(
        Flag("filter", kinds.FILTER, 'Provide filter values (e.g. "until=<timestamp>")'),
        Flag("force", kinds.BOOL, "Do not prompt for confirmation", short="f"),
    ),
)
