"""`pier image prune` and `pier system prune`: taking away what nothing uses."""

import sys

from pier.cli import kinds
from pier.cli.command import Command
from pier.cli.confirm import confirm
from pier.cli.errors import ApiError, Failure
from pier.cli.flags import Flag
from pier.cli.formats import filters
from pier.cli.units import human_size

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from pier.cli.command import Context
    from pier.cli.flags import Options

_UNUSED = "images without at least one container associated to them"


def _image_prune(context: "Context", options: "Options") -> None:
    what = f"all {_UNUSED}" if options.on("all") else "all dangling images"
    if not options.on("force") and not confirm(f"WARNING! This will remove {what}."):
        return
    shown, reclaimed = _images(context, options)
    sys.stdout.write(shown)
    print(f"Total reclaimed space: {human_size(reclaimed, 4)}")


def _system_prune(context: "Context", options: "Options") -> None:
    volumes = options.on("volumes")
    if volumes and any(key == "until" for key, _ in options.list("filter")):
        raise Failure('ERROR: The "until" filter is not supported with "--volumes"')
    if not options.on("force") and not confirm(_warning(options)):
        return
    total = 0
    for prune in (_containers, _networks, *([_volumes] if volumes else []), _images, _cache):
        try:
            shown, reclaimed = prune(context, options)
        except ApiError as error:
            if error.code not in (404, 501):
                raise
            continue  # the engine has nothing of the kind
        sys.stdout.write(shown)
        total += reclaimed
    print(f"Total reclaimed space: {human_size(total, 4)}")


def _warning(options: "Options") -> str:
    everything = options.on("all")
    lines = [
        "all stopped containers",
        "all networks not used by at least one container",
        *(["all anonymous volumes not used by at least one container"] * options.on("volumes")),
        f"all {_UNUSED}" if everything else "all dangling images",
        "all build cache" if everything else "unused build cache",
    ]
    text = "WARNING! This will remove:\n" + "".join(f"  - {line}\n" for line in lines)
    if given := options.list("filter"):
        text += "\n  Items to be pruned will be filtered with:\n"
        text += "".join(f"  - {key}={value}\n" for key, value in sorted(given))
    return text


def _containers(context: "Context", options: "Options") -> tuple[str, int]:
    return _listed(context, options, "containers", "Containers", "ContainersDeleted")


def _networks(context: "Context", options: "Options") -> tuple[str, int]:
    return _listed(context, options, "networks", "Networks", "NetworksDeleted")


def _volumes(context: "Context", options: "Options") -> tuple[str, int]:
    return _listed(context, options, "volumes", "Volumes", "VolumesDeleted")


SIZES = ("keep-storage", "reserved-space", "max-used-space", "min-free-space")


def prune_builds(context: "Context", options: "Options") -> tuple[str, int]:
    """Prune the build cache; return what to print and the bytes."""
    query: dict[str, Any] = {"all": options.on("all"), "filters": filters(options)}
    query |= {name: options.number(name) for name in SIZES if name in options.changed}
    pruned = context.client.post("/build/prune", query).json()
    return _text("build cache objects", pruned.get("CachesDeleted")), pruned["SpaceReclaimed"]


def _cache(context: "Context", options: "Options") -> tuple[str, int]:
    if any(key.startswith("label") for key, _ in options.list("filter")):
        return "", 0  # nothing in the cache has a label
    return prune_builds(context, options)


def _images(context: "Context", options: "Options") -> tuple[str, int]:
    dangling = {"dangling": ["false" if options.on("all") else "true"]}
    pruned = context.client.post("/images/prune", {"filters": filters(options, dangling)}).json()
    rows = [
        f"untagged: {item['Untagged']}" if item.get("Untagged") else f"deleted: {item['Deleted']}"
        for item in pruned.get("ImagesDeleted") or ()
    ]
    return _text("Images", rows), pruned["SpaceReclaimed"]


def _listed(
    context: "Context", options: "Options", noun: str, title: str, key: str
) -> tuple[str, int]:
    pruned: dict[str, Any] = context.client.post(
        f"/{noun}/prune", {"filters": filters(options)}
    ).json()
    return _text(title, pruned.get(key)), pruned.get("SpaceReclaimed", 0)


def _text(title: str, rows: "list[str] | None") -> str:
    return "".join(f"{row}\n" for row in (f"Deleted {title}:", *rows, "")) if rows else ""


_FORCE = Flag("force", kinds.BOOL, "Do not prompt for confirmation", short="f")

IMAGE_PRUNE = Command(
    "prune [OPTIONS]",
    "Remove unused images",
    _image_prune,
    arity=(0, 0),
    options=(
        Flag("all", kinds.BOOL, "Remove all unused images, not just dangling ones", short="a"),
        Flag("filter", kinds.FILTER, 'Provide filter values (e.g. "until=<timestamp>")'),
        _FORCE,
    ),
)
SYSTEM_PRUNE = Command(
    "prune [OPTIONS]",
    "Remove unused data",
    _system_prune,
    arity=(0, 0),
    options=(
        Flag("all", kinds.BOOL, "Remove all unused images not just dangling ones", short="a"),
        Flag("filter", kinds.FILTER, 'Provide filter values (e.g. "label=<key>=<value>")'),
        _FORCE,
        Flag("volumes", kinds.BOOL, "Prune anonymous volumes"),
    ),
)
