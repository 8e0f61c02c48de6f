"""`pier volume`: create, inspect, ls, prune and rm."""

from pier.cli import kinds
from pier.cli.command import Command, each
from pier.cli.config_file import list_format
from pier.cli.flags import Flag
from pier.cli.formats import FILTER, TABLE_FORMAT, filters
from pier.cli.http import quote
from pier.cli.tables import Listing
from pier.cli.units import human_size

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from pier.cli.command import Context
    from pier.cli.flags import Options

_VOLUMES = Listing(
    {
        "Name": "VOLUME NAME",
        "Driver": "DRIVER",
        "Scope": "SCOPE",
        "Mountpoint": "MOUNTPOINT",
        "Labels": "LABELS",
        "Links": "LINKS",
        "Size": "SIZE",
        "Status": "STATUS",
        "Availability": "AVAILABILITY",
        "Group": "GROUP",
    },
    "{{.Driver}}\t{{.Name}}",
    what="*formatter.volumeContext",
    quiet="{{.Name}}",
)
_WARNING = "WARNING! This will remove {} local volumes not used by at least one container."


def _create(context: "Context", options: "Options") -> None:
    body = {
        "Name": options.args[0] if options.args else "",
        "Driver": options.text("driver"),
        "DriverOpts": _pairs(options.list("opt")),
        "Labels": _pairs(options.list("label")),
    }
    print(context.client.post("/volumes/create", body=body).json()["Name"])


def _pairs(values: list[str]) -> dict[str, str]:
    """`key=value` words as a map; a word without a value has an empty one."""
    return {key: value for key, _, value in (text.partition("=") for text in values)}


def _list(context: "Context", options: "Options") -> None:
    source = _VOLUMES.source(list_format(options, "volumesFormat"), quiet=options.on("quiet"))
    _VOLUMES.check(source)
    found = context.client.get("/volumes", {"filters": filters(options)}).json()
    volumes = sorted(found["Volumes"] or (), key=lambda volume: volume["Name"])
    _VOLUMES.write(source, [_row(volume) for volume in volumes])


def _row(volume: "dict[str, Any]") -> "dict[str, Any]":
    labels = volume.get("Labels") or {}
    usage = volume.get("UsageData")
    return {
        "Name": volume["Name"],
        "Driver": volume["Driver"],
        "Scope": volume["Scope"],
        "Mountpoint": volume["Mountpoint"],
        "Labels": ",".join(f"{key}={value}" for key, value in sorted(labels.items())),
        "Label": lambda name: labels.get(name, ""),
        "Links": str(usage["RefCount"]) if usage else "N/A",
        "Size": human_size(usage["Size"]) if usage else "N/A",
        "Status": "N/A",
        "Availability": "N/A",
        "Group": "N/A",
    }


def _remove(context: "Context", options: "Options") -> None:
    query = {"force": options.on("force")}

    def remove(name: str) -> None:
        context.client.delete(f"/volumes/{quote(name)}", query).read()
        print(name)

    each(options.args, remove)


def _prune(context: "Context", options: "Options") -> None:
    from pier.cli.confirm import confirm

    everything = options.on("all")
    warning = _WARNING.format("all" if everything else "anonymous")
    if not options.on("force") and not confirm(warning):
        return
    more = {"all": ["true"]} if everything else None
    pruned = context.client.post("/volumes/prune", {"filters": filters(options, more)}).json()
    removed = pruned["VolumesDeleted"] or ()
    if removed:
        print("Deleted Volumes:", *removed, sep="\n", end="\n\n")
    print(f"Total reclaimed space: {human_size(pruned['SpaceReclaimed'], 4)}")


CREATE = Command(
    "create [OPTIONS] [VOLUME]",
    "Create a volume",
    _create,
    arity=(0, 1),
    options=(
        Flag(
            "driver",
            kinds.STRING,
            "Specify volume driver name",
            short="d",
            default="local",
            shown='"local"',
        ),
        Flag("label", kinds.LABEL, "Set metadata for a volume"),
        Flag("opt", kinds.MAP, "Set driver specific options", short="o", shown="map[]"),
    ),
)
LS = Command(
    "ls [OPTIONS]",
    "List volumes",
    _list,
    arity=(0, 0),
    options=(
        FILTER,
        TABLE_FORMAT,
        Flag("quiet", kinds.BOOL, "Only display volume names", short="q"),
    ),
    aliases="volume ls, volume list",
)
RM = Command(
    "rm [OPTIONS] VOLUME [VOLUME...]",
    "Remove one or more volumes. You cannot remove a volume that is in use by a container.",
    _remove,
    arity=(1, None),
    options=(Flag("force", kinds.BOOL, "Force the removal of one or more volumes", short="f"),),
    aliases="volume rm, volume remove",
)
PRUNE = Command(
    "prune [OPTIONS]",
    "Remove unused local volumes",
    _prune,
    arity=(0, 0),
    options=(
        Flag("all", kinds.BOOL, "Remove all unused volumes, not just anonymous ones", short="a"),
        Flag("filter", kinds.FILTER, 'Provide filter values (e.g. "label=<label>")'),
        Flag("force", kinds.BOOL, "Do not prompt for confirmation", short="f"),
    ),
)
