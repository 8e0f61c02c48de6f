"""`pier inspect`: what the engine knows of containers and images, as JSON or in a template."""

import json
import sys

from pier.cli import kinds
from pier.cli.command import Command
from pier.cli.errors import ApiError, Exit, Failure
from pier.cli.flags import Flag
from pier.cli.formats import FORMAT, Format
from pier.cli.http import quote

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from pier.cli.command import Context
    from pier.cli.flags import Options

    Getter = Callable[[str], Any]

_TYPES = (
    *("config", "container", "image", "network", "node"),
    *("plugin", "secret", "service", "task", "volume"),
)
_PATHS = {"network": "/networks/{}", "volume": "/volumes/{}"}


_AS = Flag("as", kinds.STRING, 'Show what makes the container again: "run" or "compose"')


def _reproduce(context: "Context", options: "Options") -> None:
    """Print a command or a Compose file for each container, rather than what it is."""
    from pier.cli import reproduce

    forms = {"run": reproduce.as_run, "compose": reproduce.as_compose}
    form = forms.get(options.text("as"))
    if form is None:
        raise Failure(f'unknown form: "{options.text("as")}": must be one of "run", "compose"')
    for name in options.args:
        container = context.client.get(f"/containers/{quote(name)}/json", {}).json()
        image = context.client.get(f"/images/{quote(container['Image'])}/json", {}).json()
        sys.stdout.write(form(container, image) + "\n")


def _inspect(context: "Context", options: "Options") -> None:
    if options.text("as"):
        _reproduce(context, options)
        return
    wanted = options.text("type")
    if wanted and wanted not in _TYPES:
        names = ", ".join(f'"{name}"' for name in _TYPES)
        raise Failure(f'unknown type: "{wanted}": must be one of {names}')
    getters = {
        "container": _container_getter(context, options),
        "image": _image_getter(context, None),
        **{kind: _plain_getter(context, path) for kind, path in _PATHS.items()},
    }
    if wanted and wanted not in getters:
        raise Failure(f"pier does not have objects of type {wanted}")

    def any_object(name: str) -> "Any":
        for get in getters.values():
            try:
                return get(name)
            except ApiError as error:
                # 400: the name cannot be one of this kind; 501, 503: Pier has not the kind.
                if error.code not in (400, 404, 501, 503):
                    raise
        raise Failure(f"Error: No such object: {name}")

    _show(options, getters[wanted] if wanted else any_object)


def _container_getter(context: "Context", options: "Options") -> "Getter":
    query = {"size": options.on("size")}
    return lambda name: context.client.get(f"/containers/{quote(name)}/json", query).json()


def _image_getter(context: "Context", platform: str | None) -> "Getter":
    query = {"platform": platform}
    return lambda name: context.client.get(f"/images/{quote(name)}/json", query).json()


def _plain_getter(context: "Context", path: str) -> "Getter":
    return lambda name: context.client.get(path.format(quote(name))).json()


def _container_inspect(context: "Context", options: "Options") -> None:
    if options.text("as"):
        _reproduce(context, options)
        return
    _show(options, _container_getter(context, options))


def _image_inspect(context: "Context", options: "Options") -> None:
    from pier.cli.images import platform_json

    text = options.text("platform")
    _show(options, _image_getter(context, platform_json(text) if text else None))


def _volume_inspect(context: "Context", options: "Options") -> None:
    _show(options, _plain_getter(context, _PATHS["volume"]))


def _network_inspect(context: "Context", options: "Options") -> None:
    query = {"scope": options.text("scope"), "verbose": options.on("verbose")}
    _show(options, lambda name: context.client.get(f"/networks/{quote(name)}", query).json())


def _show(options: "Options", get: "Getter") -> None:
    """Print every object that is there, then the errors for those that are not."""
    source = options.text("format")
    form = Format(source) if source not in ("", "json") else None
    documents: list[Any] = []
    errors: list[Failure] = []
    for name in options.args:
        try:
            documents.append(get(name))
        except ApiError as error:
            errors.append(error)
        except Failure as error:
            if "No such object" not in str(error):
                raise
            errors.append(error)
    if form is not None:
        for document in documents:
            sys.stdout.write(form.render(document) + "\n")
    elif source == "json":
        sys.stdout.write(json.dumps(documents, separators=(",", ":"), ensure_ascii=False) + "\n")
    else:
        sys.stdout.write(json.dumps(documents, indent=4, ensure_ascii=False) + "\n")
    if errors:
        sys.stdout.flush()
        sys.stderr.write("".join(f"{error}\n" for error in errors))
        raise Exit(1)


_SIZE = Flag("size", kinds.BOOL, "Display total file sizes if the type is container", short="s")

INSPECT = Command(
    "inspect [OPTIONS] NAME|ID [NAME|ID...]",
    "Return low-level information on Docker objects",
    _inspect,
    arity=(1, None),
    options=(
        _AS,
        FORMAT,
        _SIZE,
        Flag("type", kinds.STRING, "Only inspect objects of the given type"),
    ),
)
CONTAINER_INSPECT = Command(
    "inspect [OPTIONS] CONTAINER [CONTAINER...]",
    "Display detailed information on one or more containers",
    _container_inspect,
    arity=(1, None),
    options=(_AS, FORMAT, Flag("size", kinds.BOOL, "Display total file sizes", short="s")),
)
IMAGE_INSPECT = Command(
    "inspect [OPTIONS] IMAGE [IMAGE...]",
    "Display detailed information on one or more images",
    _image_inspect,
    arity=(1, None),
    options=(
        FORMAT,
        Flag(
            "platform",
            kinds.STRING,
            "Inspect a specific platform of the multi-platform image.\n"
            "'os[/arch[/variant]]': Explicit platform (eg. linux/amd64)",
        ),
    ),
)
VOLUME_INSPECT = Command(
    "inspect [OPTIONS] VOLUME [VOLUME...]",
    "Display detailed information on one or more volumes",
    _volume_inspect,
    arity=(1, None),
    options=(FORMAT,),
)
NETWORK_INSPECT = Command(
    "inspect [OPTIONS] NETWORK [NETWORK...]",
    "Display detailed information on one or more networks",
    _network_inspect,
    arity=(1, None),
    options=(
        FORMAT,
        Flag("scope", kinds.STRING, "Filter by scope"),
        Flag("verbose", kinds.BOOL, "Verbose output for diagnostics", short="v"),
    ),
)
