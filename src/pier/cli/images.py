"""`pier images`, `history`, `tag` and `rmi`."""

from pier.cli import kinds
from pier.cli.command import Command
from pier.cli.config_file import list_format
from pier.cli.errors import Exit, Failure
from pier.cli.flags import Flag
from pier.cli.formats import FILTER, TABLE_FORMAT, filters
from pier.cli.http import quote
from pier.cli.pull import split_reference
from pier.cli.tables import Listing, ellipsis, short_id
from pier.cli.units import ago, human_size, local_time, second_time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from pier.cli.command import Context
    from pier.cli.flags import Options

_NONE = "<none>"
_IMAGES = Listing(
    {
        "ID": "IMAGE ID",
        "Repository": "REPOSITORY",
        "Tag": "TAG",
        "Digest": "DIGEST",
        "CreatedSince": "CREATED",
        "CreatedAt": "CREATED AT",
        "Size": "SIZE",
        "Containers": "CONTAINERS",
        "VirtualSize": "SIZE",
        "SharedSize": "SHARED SIZE",
        "UniqueSize": "UNIQUE SIZE",
    },
    "{{.Repository}}\t{{.Tag}}\t{{.ID}}\t{{.CreatedSince}}\t{{.Size}}",
    what="*formatter.imageContext",
)
_WITH_DIGESTS = (
    "table {{.Repository}}\t{{.Tag}}\t{{.Digest}}\t{{.ID}}\t{{.CreatedSince}}\t{{.Size}}"
)
_HISTORY = Listing(
    {
        "ID": "IMAGE",
        "CreatedSince": "CREATED",
        "CreatedAt": "CREATED AT",
        "CreatedBy": "CREATED BY",
        "Size": "SIZE",
        "Comment": "COMMENT",
        "Layer": "LAYER",
    },
    "{{.ID}}\t{{.CreatedSince}}\t{{.CreatedBy}}\t{{.Size}}\t{{.Comment}}",
    what="*image.historyContext",
)


def _images(context: "Context", options: "Options") -> None:
    if options.on("tree"):
        _tree(context, options)
        return
    source = _IMAGES.source(list_format(options, "imagesFormat"), quiet=options.on("quiet"))
    if options.on("digests") and source == "table " + _IMAGES.default:
        source = _WITH_DIGESTS
    _IMAGES.check(source)
    query = _query(options)
    images = context.client.get("/images/json", query).json()
    full = options.on("no-trunc")
    newest_first = sorted(images, key=lambda image: -image["Created"])
    rows = [
        image_row(image, name, full=full)
        for image in newest_first
        for name in _names(image, rows=options.on("digests"), tags=".Digest" in source)
    ]
    _IMAGES.write(source, rows)


def _query(options: "Options") -> "dict[str, Any]":
    reference = {"reference": options.args} if options.args else None
    return {"all": options.on("all"), "filters": filters(options, reference)}


def _tree(context: "Context", options: "Options") -> None:
    from pier.cli.image_tree import refuse_beside_tree, write_tree

    refuse_beside_tree(options)
    images = context.client.get("/images/json", {**_query(options), "manifests": True}).json()
    wanted = any(name == "dangling" for name, _ in options.list("filter"))
    write_tree(images, untagged=wanted or options.on("all"))


def _names(image: "dict[str, Any]", *, rows: bool, tags: bool) -> list[tuple[str, str, str]]:
    """Repository, tag and digest of every line that an image takes.

    `tags` shows the digests of tagged repositories, `rows` those of repositories without a tag.
    """
    digests: dict[str, list[str]] = {}
    for entry in image.get("RepoDigests") or ():
        repository, _, digest = entry.partition("@")
        if repository != _NONE:
            digests.setdefault(repository, []).append(digest)
    names = []
    tagged = set()
    for tag in image.get("RepoTags") or ():
        repository, _, version = tag.rpartition(":")
        if repository == _NONE:
            continue
        tagged.add(repository)
        shown = digests.get(repository, []) if tags else []
        names += [(repository, version, digest) for digest in shown or [_NONE]]
    for repository, known in digests.items():
        if repository not in tagged:
            names += [(repository, _NONE, digest) for digest in (known if rows else [""])]
    return names or [(_NONE, _NONE, _NONE)]


def image_row(
    image: "dict[str, Any]", name: tuple[str, str, str], *, full: bool
) -> "dict[str, Any]":
    shared, containers = image.get("SharedSize", -1), image.get("Containers", -1)
    size = image["Size"]
    return {
        "ID": image["Id"] if full else short_id(image["Id"]),
        "Repository": name[0],
        "Tag": name[1],
        "Digest": name[2],
        "CreatedSince": ago(image["Created"]),
        "CreatedAt": local_time(image["Created"]),
        "Size": human_size(size),
        "Containers": "N/A" if containers < 0 else str(containers),
        "VirtualSize": human_size(size, 4),
        "SharedSize": "N/A" if shared < 0 else human_size(shared, 4),
        "UniqueSize": "N/A" if shared < 0 else human_size(size - shared, 4),
    }


def _history(context: "Context", options: "Options") -> None:
    human, full = options.on("human"), options.on("no-trunc")
    source = _HISTORY.source(options.text("format"), quiet=options.on("quiet"))
    if not human and source == "table " + _HISTORY.default:
        source = source.replace(".CreatedSince", ".CreatedAt")
    if options.on("layers") and source.startswith("table " + _HISTORY.default.split("\t")[0]):
        source = source.replace("{{.ID}}", "{{.Layer}}", 1)
    _HISTORY.check(source)
    query = {
        "platform": _platform(options),
        "layers": "1" if options.on("layers") or ".Layer" in source else None,
    }
    entries = context.client.get(f"/images/{quote(options.args[0])}/history", query).json()
    rows = []
    for entry in entries:
        layer = entry.get("Layer", "")
        if options.on("layers") and not layer:
            continue  # a step that changed no file
        created_by = entry["CreatedBy"].replace("\t", " ")
        identifier = entry["Id"]
        rows.append(
            {
                "ID": identifier if full else short_id(identifier),
                "CreatedSince": ago(entry["Created"]),
                "CreatedAt": second_time(entry["Created"]),
                "CreatedBy": created_by if full else ellipsis(created_by, 45),
                "Size": human_size(entry["Size"]) if human else str(entry["Size"]),
                "Comment": entry["Comment"],
                "Layer": layer if full else short_id(layer) if layer else "",
            }
        )
    _HISTORY.write(source, rows)


def _platform(options: "Options") -> str | None:
    return platform_json(options.text("platform")) if options.text("platform") else None


def platform_json(text: str) -> str:
    """`linux/arm64/v8` as the JSON object that the API's `platform` parameters are."""
    import json

    parts = text.split("/")
    if len(parts) > 3 or not all(parts):
        raise Failure(f'invalid platform: "{text}": cannot parse platform specifier')
    if len(parts) == 1:
        return json.dumps({"architecture": parts[0], "os": "linux"}, separators=(",", ":"))
    names = {"architecture": parts[1], "os": parts[0]}
    if len(parts) == 3:
        names["variant"] = parts[2]
    return json.dumps(names, separators=(",", ":"))


def _tag(context: "Context", options: "Options") -> None:
    source, target = options.args
    try:
        repository, tag = split_reference(target)
    except Failure as error:
        raise Failure(
            f'Error parsing reference: "{target}" is not a valid repository/tag: {error}'
        ) from None
    query = {"repo": repository, "tag": tag}
    context.client.post(f"/images/{quote(source)}/tag", query).read()


def _rmi(context: "Context", options: "Options") -> None:
    import sys

    query = {
        "force": options.on("force"),
        "noprune": options.on("no-prune"),
        "platforms": [
            platform_json(p) for value in options.list("platform") for p in value.split(",")
        ]
        or None,
    }
    failed = False
    for name in options.args:
        try:
            removed = context.client.delete(f"/images/{quote(name)}", query).json()
        except Failure as error:
            sys.stderr.write(f"{error}\n")
            failed = True
            continue
        for record in removed:
            if record.get("Deleted"):
                print(f"Deleted: {record['Deleted']}")
            else:
                print(f"Untagged: {record.get('Untagged', '')}")
    if failed:
        raise Exit(1)


_PLATFORM_HELP = 'Formatted as "os[/arch[/variant]]" (e.g., "linux/amd64")'

IMAGES = Command(
    "images [OPTIONS] [REPOSITORY[:TAG]]",
    "List images",
    _images,
    arity=(0, 1),
    options=(
        Flag("all", kinds.BOOL, "Show all images (default hides intermediate images)", short="a"),
        Flag("digests", kinds.BOOL, "Show digests"),
        FILTER,
        TABLE_FORMAT,
        Flag("no-trunc", kinds.BOOL, "Don't truncate output"),
        Flag("quiet", kinds.BOOL, "Only show image IDs", short="q"),
        Flag("tree", kinds.BOOL, "List multi-platform images as a tree (EXPERIMENTAL)"),
    ),
    aliases="image ls, image list, images",
)
HISTORY = Command(
    "history [OPTIONS] IMAGE",
    "Show the history of an image",
    _history,
    arity=(1, 1),
    options=(
        TABLE_FORMAT,
        Flag(
            "human",
            kinds.BOOL,
            "Print sizes and dates in human readable format",
            short="H",
            default=True,
            shown="true",
        ),
        Flag("layers", kinds.BOOL, "Only show steps that made a layer, and its diff ID"),
        Flag("no-trunc", kinds.BOOL, "Don't truncate output"),
        Flag("platform", kinds.STRING, "Show history for the given platform. " + _PLATFORM_HELP),
        Flag("quiet", kinds.BOOL, "Only show image IDs", short="q"),
    ),
    aliases="image history, history",
)
TAG = Command(
    "tag SOURCE_IMAGE[:TAG] TARGET_IMAGE[:TAG]",
    "Create a tag TARGET_IMAGE that refers to SOURCE_IMAGE",
    _tag,
    arity=(2, 2),
    aliases="image tag, tag",
)
RMI = Command(
    "rmi [OPTIONS] IMAGE [IMAGE...]",
    "Remove one or more images",
    _rmi,
    arity=(1, None),
    options=(
        Flag("force", kinds.BOOL, "Force removal of the image", short="f"),
        Flag("no-prune", kinds.BOOL, "Do not delete untagged parents"),
        Flag(
            "platform",
            kinds.STRINGS,
            "Remove only the given platform variant. " + _PLATFORM_HELP,
        ),
    ),
    aliases="image rm, image remove, rmi",
)
