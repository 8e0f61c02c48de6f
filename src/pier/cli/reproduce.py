"""`pier inspect --as run|compose`: the command, or the service of a Compose file, that makes a
container again.

Both forms come from one list (`wishes`); where a file of Compose has no word for a wish, the file
says so.
"""

import json
import shlex

from pier.cli.wishes import wishes

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    Json = dict[str, Any]


def as_run(container: "Json", image: "Json") -> str:
    """Return the command, with what is not a bare word quoted for the shell."""
    words = ["pier", "run"]
    if not container["Config"].get("AttachStdout"):
        words.append("-d")
    for flag, values, _, _ in wishes(container, image):
        if flag and values is True:
            words.append(f"--{flag}")
        elif flag and isinstance(values, list):
            for value in values:
                words += [f"--{flag}", value]
    entrypoint, command = _command(container, image)
    if entrypoint is not None:
        words += ["--entrypoint", entrypoint[0] if entrypoint else ""]
        command = [*entrypoint[1:], *(command or ())]
    return shlex.join([*words, container["Config"]["Image"], *(command or ())])


def as_compose(container: "Json", image: "Json") -> str:
    """Return a Compose file with one service; what it cannot say stands in comments."""
    service: Json = {"image": container["Config"]["Image"]}
    unsaid = []
    for flag, values, key, value in wishes(container, image):
        if key:
            service[key] = value
        elif flag:
            unsaid.append(f"--{flag}" if values is True else f"--{flag} {values}")
    entrypoint, command = _command(container, image)
    if entrypoint is not None:
        service["entrypoint"] = entrypoint
    if command is not None:
        service["command"] = command
    # A "$" of ours is no variable of Compose's.
    name = container["Name"].lstrip("/")
    lines = [f"# {text}: Compose has no word for it" for text in unsaid]
    lines += ["services:", f"  {json.dumps(name)}:", *_yaml(service, 4)]
    networks, volumes = _outside(container)
    for key, names in (("networks", networks), ("volumes", volumes)):
        if names:
            lines.append(f"{key}:")
            lines += [f"  {json.dumps(each)}:\n    external: true" for each in names]
    return "\n".join(lines)


def _yaml(value: "Json", indent: int) -> "Iterator[str]":
    """Mappings a line a key; what is in them as JSON, which is YAML too."""
    for key, item in value.items():
        if isinstance(item, dict) and item:
            yield f"{' ' * indent}{json.dumps(key) if not key.isidentifier() else key}:"
            yield from _yaml(item, indent + 2)
        else:
            text = json.dumps(item, ensure_ascii=False).replace("$", "$$")
            yield f"{' ' * indent}{json.dumps(key) if not key.isidentifier() else key}: {text}"


def _outside(container: "Json") -> "tuple[list[str], list[str]]":
    """Networks and volumes that have to be there."""
    networks = [n for n in container["NetworkSettings"]["Networks"] if n not in _STOCK]
    names = [m["Name"] for m in container["Mounts"] if m["Type"] == "volume"]
    written = [bind.partition(":")[0] for bind in container["HostConfig"]["Binds"] or ()]
    written += [m.get("Source", "") for m in container["HostConfig"].get("Mounts") or ()]
    return networks, [name for name in names if name in written]


_STOCK = ("bridge", "host", "none")


def _command(container: "Json", image: "Json") -> "tuple[list[str] | None, list[str] | None]":
    """Entrypoint and command; None for those of the image."""
    own, given = container["Config"], image["Config"]
    entrypoint = own.get("Entrypoint") or None
    command = own.get("Cmd") or None
    if entrypoint == (given.get("Entrypoint") or None):
        return None, None if command == (given.get("Cmd") or None) else command or []
    return entrypoint or [], command
