"""daemon.json: read, and held against the table of options and against the flags."""

from typing import Any

import msgspec

from pier.engine.settings_option import Value
from pier.engine.settings_table import BY_KEY, FIXED, NOT_YET
from pier.errors import InvalidParameter, Unsupported


def read_file(path: str, *, must_exist: bool) -> dict[str, Any]:
    try:
        with open(path, "rb") as file:
            content = file.read()
    except FileNotFoundError:
        if not must_exist:
            return {}
        raise _file_error(path, f"open {path}: no such file or directory") from None
    except OSError as exc:
        raise _file_error(path, f"open {path}: {(exc.strerror or str(exc)).lower()}") from None
    if not content.strip():
        return {}
    try:
        return msgspec.json.decode(content, type=dict[str, Any])
    except msgspec.DecodeError as exc:
        raise _file_error(path, f"invalid JSON: {exc}") from None


def checked(from_file: dict[str, Any], from_flags: dict[str, Value], path: str) -> dict[str, Value]:
    unknown = [
        key for key in from_file if key not in BY_KEY and key not in FIXED and key not in NOT_YET
    ]
    if unknown:
        what = "the following directives don't match any configuration option: "
        raise _file_error(path, what + ", ".join(unknown))
    # Null is nothing said, as for Go's decoder.
    from_file = {key: value for key, value in from_file.items() if value is not None}
    twice = [
        f"{key}: (from flag: {shown(from_flags[key])}, from file: {shown(value)})"
        for key, value in from_file.items()
        if key in from_flags
    ]
    if twice:
        what = (
            "the following directives are specified both as a flag and in the configuration file: "
        )
        raise _file_error(path, what + ", ".join(twice))
    for key, value in from_file.items():
        if key in NOT_YET:
            raise Unsupported(f"directive {key} in {path} is not supported by pierd yet")
        option = BY_KEY.get(key)
        if option is not None and not _is_kind(value, option.kind):
            wanted = "list of strings" if option.kind == "list" else option.kind
            raise _file_error(path, f"json: cannot unmarshal {value!r} into {key} of type {wanted}")
    return from_file


def shown(value: Any) -> str:
    match value:
        case bool():
            return str(value).lower()
        case list():
            return f"[{' '.join(map(str, value))}]"
        case dict():
            return "map[" + " ".join(f"{key}:{value[key]}" for key in sorted(value)) + "]"
        case _:
            return str(value)


def _is_kind(value: Any, kind: str) -> bool:
    match kind:
        case "bool":
            return isinstance(value, bool)
        case "object" | "ulimits" | "features" | "nested":
            return isinstance(value, dict)
        case "map":
            return isinstance(value, dict) and all(isinstance(v, str) for v in value.values())
        case "runtime":
            return isinstance(value, dict) and all(isinstance(v, dict) for v in value.values())
        case "list":
            return isinstance(value, list) and all(isinstance(item, str) for item in value)
        case "pools":
            return isinstance(value, list) and all(isinstance(item, dict) for item in value)
        case "number":
            return isinstance(value, int) and not isinstance(value, bool)
        case _:
            return isinstance(value, str)


def _file_error(path: str, what: str) -> InvalidParameter:
    return InvalidParameter(f"unable to configure the Docker daemon with file {path}: {what}")
