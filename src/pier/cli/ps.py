"""`pier ps`: the list of containers."""

import sys

from pier.cli import kinds
from pier.cli.command import Command
from pier.cli.config_file import list_format
from pier.cli.flags import Flag
from pier.cli.formats import FILTER, TABLE_FORMAT, filters
from pier.cli.tables import Listing, ellipsis, short_id
from pier.cli.units import ago, human_size, local_time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from pier.cli.command import Context
    from pier.cli.flags import Options

_COLUMNS = "{{.ID}}\t{{.Image}}\t{{.Command}}\t{{.RunningFor}}\t{{.Status}}\t{{.Ports}}\t{{.Names}}"
_LISTING = Listing(
    {
        "ID": "CONTAINER ID",
        "Names": "NAMES",
        "Image": "IMAGE",
        "Command": "COMMAND",
        "CreatedAt": "CREATED AT",
        "RunningFor": "CREATED",
        "Ports": "PORTS",
        "State": "STATE",
        "Status": "STATUS",
        "Size": "SIZE",
        "Labels": "LABELS",
        "Mounts": "MOUNTS",
        "LocalVolumes": "LOCAL VOLUMES",
        "Networks": "NETWORKS",
        "Platform": "PLATFORM",
    },
    _COLUMNS,
    what="*formatter.ContainerContext",
)


def _ps(context: "Context", options: "Options") -> None:
    size, quiet = options.on("size"), options.on("quiet")
    given = list_format(options, "psFormat")
    if quiet and given:
        sys.stderr.write(
            "WARNING: Ignoring custom format, because both --format and --quiet are set.\n"
        )
        given = ""
    source = _LISTING.source(given, quiet=quiet)
    if size and given in ("", "table") and not quiet:
        source += "\t{{.Size}}"
    _LISTING.check(source)
    last = 1 if options.on("latest") else options.number("last")
    query = {
        "all": options.on("all"),
        "limit": last if last > 0 else None,
        "size": size or (given != "json" and _wants_size(source)),
        "filters": filters(options),
    }
    containers = context.client.get("/containers/json", query).json()
    full = options.on("no-trunc")
    _LISTING.write(source, [container_row(container, full=full) for container in containers])


def _wants_size(source: str) -> bool:
    # {{json .}} shows the size as well.
    return ".Size" in source or "json ." in source


def container_row(container: "dict[str, Any]", *, full: bool) -> "dict[str, Any]":
    labels = container.get("Labels") or {}
    mounts = container.get("Mounts") or []
    networks = (container.get("NetworkSettings") or {}).get("Networks") or {}
    command = container.get("Command", "")
    names = [name.removeprefix("/") for name in container.get("Names") or ()]
    if not full:
        command = ellipsis(command, 20)
        names = [name for name in names if "/" not in name]  # links are listed as names too
    sources = [mount.get("Name") or mount.get("Source", "") for mount in mounts]
    return {
        "ID": container["Id"] if full else short_id(container["Id"]),
        "Names": ",".join(names),
        "Image": _image(container, full=full),
        "Command": '"' + command.replace("\\", "\\\\").replace('"', '\\"') + '"',
        "CreatedAt": local_time(container["Created"]),
        "RunningFor": ago(container["Created"]),
        "Ports": ports(container.get("Ports") or []),
        "State": container.get("State", ""),
        "Status": container.get("Status", ""),
        "Size": _size(container),
        "Labels": ",".join(f"{key}={value}" for key, value in sorted(labels.items())),
        "Mounts": ",".join(source if full else ellipsis(source, 15) for source in sources),
        "LocalVolumes": str(sum(mount.get("Driver") == "local" for mount in mounts)),
        "Networks": ",".join(sorted(networks)),
        "Platform": None,
        "Label": lambda name: labels.get(name, ""),
    }


def _image(container: "dict[str, Any]", *, full: bool) -> str:
    image = str(container.get("Image") or "<no image>")
    # An image without a name is known by its ID, which is long.
    return short_id(image) if image.startswith("sha256:") and not full else image


def _size(container: "dict[str, Any]") -> str:
    size = human_size(container.get("SizeRw") or 0)
    whole = container.get("SizeRootFs") or 0
    return f"{size} (virtual {human_size(whole)})" if whole > 0 else size


def ports(published: "list[dict[str, Any]]") -> str:
    """`80-81/tcp, 0.0.0.0:8080->80/tcp`.

    Neighbours become a range where the container's port is the host's or not published; mappings to
    other ports come last, each by itself.
    """
    groups: dict[tuple[str, str], list[int]] = {}
    ranges: list[str] = []
    mappings: list[str] = []
    for port in sorted(published, key=_port_order):
        private, protocol = int(port["PrivatePort"]), str(port.get("Type", "tcp"))
        address, public = str(port.get("IP") or ""), port.get("PublicPort") or 0
        host = f"[{address}]" if ":" in address else address
        if address and public != private:
            mappings.append(f"{host}:{public}->{private}/{protocol}")
            continue
        group = groups.get((host, protocol))
        if group is not None and private == group[1] + 1:
            group[1] = private
            continue
        if group is not None:
            ranges.append(_port_range(host, protocol, group))
        groups[host, protocol] = [private, private]
    ranges += [_port_range(host, protocol, group) for (host, protocol), group in groups.items()]
    return ", ".join(ranges + mappings)


def _port_order(port: "dict[str, Any]") -> "tuple[Any, ...]":
    public = port.get("PublicPort") or 0
    return port["PrivatePort"], port.get("IP") or "", public, port.get("Type", "")


def _port_range(host: str, protocol: str, group: list[int]) -> str:
    first, last = group
    numbers = str(first) if first == last else f"{first}-{last}"
    return f"{host}:{numbers}->{numbers}/{protocol}" if host else f"{numbers}/{protocol}"


PS = Command(
    "ps [OPTIONS]",
    "List containers",
    _ps,
    arity=(0, 0),
    options=(
        Flag("all", kinds.BOOL, "Show all containers (default shows just running)", short="a"),
        FILTER,
        TABLE_FORMAT,
        Flag(
            "last",
            kinds.INT,
            "Show n last created containers (includes all states)",
            short="n",
            default=-1,
            shown="-1",
        ),
        Flag(
            "latest",
            kinds.BOOL,
            "Show the latest created container (includes all states)",
            short="l",
        ),
        Flag("no-trunc", kinds.BOOL, "Don't truncate output"),
        Flag("quiet", kinds.BOOL, "Only display container IDs", short="q"),
        Flag("size", kinds.BOOL, "Display total file sizes", short="s"),
    ),
    aliases="container ls, container list, container ps, ps",
)
