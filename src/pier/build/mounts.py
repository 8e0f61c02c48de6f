"""RUN --mount: what is asked for, parsed (docs.docker.com/reference/dockerfile/#run---mount)."""

import csv
import difflib
import posixpath
from collections.abc import Sequence

from msgspec import Struct

from pier.build.words import quoted
from pier.errors import InvalidParameter

_KINDS = ("bind", "cache", "tmpfs", "secret", "ssh")
_SHARING = ("shared", "private", "locked")
_FLAGS = ("readonly", "readwrite", "required")
_KEYS = (
    *("type", "from", "source", "target", "readonly", "id", "sharing", "required"),
    *("size", "mode", "uid", "gid", "env", "src", "dst", "destination", "ro", "rw", "readwrite"),
)
_ALIASES = {
    "dst": "target",
    "destination": "target",
    "src": "source",
    "ro": "readonly",
    "rw": "readwrite",
}
_MODES = {"secret": 0o400, "ssh": 0o600}
_UNITS = {"": 1, "b": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}


class StepMount(Struct, frozen=True):
    """`stage` names a stage or image, "" the context. `size` in bytes, 0 for no limit.

    `target` may be "" for a secret that is only a variable, `env`, and for an agent, whose place is
    then chosen (`step_secrets`). `required` fails the step when the client has no such secret.
    """

    kind: str
    target: str
    source: str = ""
    stage: str = ""
    read_only: bool = False
    id: str = ""
    sharing: str = "shared"
    mode: int = 0o755
    uid: int = 0
    gid: int = 0
    size: int = 0
    env: str = ""
    required: bool = False


def parse_mount(text: str) -> StepMount:
    """Raises InvalidParameter in BuildKit's words."""
    fields = _fields(text)
    kind = fields.pop("type", "bind")
    if kind not in _KINDS:
        raise InvalidParameter(f'unsupported mount type "{kind}"{_close(kind, _KINDS)}')
    _check(kind, fields)
    read_only = kind not in ("cache", "tmpfs")
    if "readonly" in fields:
        read_only = _flag("readonly", fields["readonly"])
    if "readwrite" in fields:
        read_only = not _flag("readwrite", fields["readwrite"])
    identity, target = _identity(kind, fields)
    return StepMount(
        kind=kind,
        target=target,
        source="" if kind == "secret" else fields.get("source", ""),
        stage=fields.get("from", ""),
        read_only=read_only,
        id=identity,
        sharing=fields.get("sharing", "shared"),
        mode=_number("mode", fields.get("mode", ""), 8, _MODES.get(kind, 0o755)),
        uid=_number("uid", fields.get("uid", ""), 10, 0),
        gid=_number("gid", fields.get("gid", ""), 10, 0),
        size=_size(fields.get("size", "0")),
        env=fields.get("env", ""),
        required=_flag("required", fields.get("required", "false")),
    )


def bind_sources(mounts: Sequence[str]) -> list[str]:
    """Return the stages that mounts name; what is wrong with a mount is told when it runs."""
    found = []
    for text in mounts:
        for word in text.split(","):
            key, _, value = word.partition("=")
            if key.strip().lower() == "from" and value:
                found.append(value)
    return found


def _fields(text: str) -> dict[str, str]:
    fields: dict[str, str] = {}
    for word in next(csv.reader([text]), []):
        key, equals, value = word.partition("=")
        key = _ALIASES.get(key.strip().lower(), key.strip().lower())
        if not equals and key not in _FLAGS:
            raise InvalidParameter(f"invalid field '{word}' must be a key=value pair")
        if key not in _KEYS:
            raise InvalidParameter(f"unexpected key '{key}' in '{word}'{_close(key, _KEYS)}")
        fields[key] = value if equals else "true"
    return fields


def _check(kind: str, fields: dict[str, str]) -> None:
    """Raise for what does not go together."""
    if kind not in ("secret", "ssh", "cache"):
        for key in ("mode", "uid", "gid"):
            if key in fields:
                raise InvalidParameter(f"{key} not allowed for {quoted(kind)} type mounts")
    if kind == "secret":
        _check_secret(fields)
    if sharing := fields.get("sharing"):
        if sharing not in _SHARING:
            raise InvalidParameter(f"unsupported sharing value {quoted(sharing)}")
        if kind != "cache":
            raise InvalidParameter(f"invalid cache sharing set for {kind} mount")
    if kind in ("bind", "cache", "tmpfs") and not fields.get("target"):
        raise InvalidParameter(f"{kind} mount requires a target")


def _check_secret(fields: dict[str, str]) -> None:
    if fields.get("from"):
        raise InvalidParameter("secret mount should not have a from")
    if fields.get("sharing"):
        raise InvalidParameter("secret mount should not define sharing")
    if not any(fields.get(key) for key in ("source", "target", "id")):
        raise InvalidParameter("invalid secret mount. one of source, target required")
    if fields.get("source") and fields.get("id"):
        raise InvalidParameter("both source and id can't be set")


def _identity(kind: str, fields: dict[str, str]) -> tuple[str, str]:
    """Return ID and target."""
    target = fields.get("target", "")
    if kind == "ssh":
        return fields.get("id", "") or fields.get("source", "") or "default", target
    if kind == "secret":
        identity = fields.get("id", "") or fields.get("source", "") or posixpath.basename(target)
        if not target and not fields.get("env"):
            target = f"/run/secrets/{posixpath.basename(identity)}"
        return identity, target
    return fields.get("id", "") or posixpath.normpath(target), target


def _close(word: str, known: Sequence[str]) -> str:
    close = difflib.get_close_matches(word, known, 1, 0.6)
    return f" (did you mean {close[0]}?)" if close else ""


def _flag(key: str, text: str) -> bool:
    if text.lower() not in ("true", "false", "1", "0", "t", "f"):
        raise InvalidParameter(f"invalid value for {key}: {text}")
    return text.lower() in ("true", "1", "t")


def _number(key: str, text: str, base: int, default: int) -> int:
    if not text:
        return default
    try:
        found = int(text, base)
    except ValueError:
        found = -1
    if not 0 <= found < 1 << 32 or "_" in text:
        raise InvalidParameter(f"invalid value {text} for {key}")
    return found


def _size(text: str) -> int:
    """As go-units has it: `10m`, `10mb`, `10MiB`, each a power of 1024."""
    lower = text.lower()
    digits = lower.rstrip("bkmgti")
    unit = lower[len(digits) :].removesuffix("b").removesuffix("i")
    try:
        value = float(digits)
    except ValueError:
        value = -1
    if value < 0 or unit not in _UNITS:
        raise InvalidParameter(f"invalid value for size: {text}")
    return int(value * _UNITS[unit])
