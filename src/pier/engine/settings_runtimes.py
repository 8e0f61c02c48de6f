"""The settings about OCI runtimes: --add-runtime, --default-runtime, `runtimes` in daemon.json.

Texts are those of dockerd 28.5 (moby/moby, opts/runtime.go and daemon/runtime_unix.go). A runtime
is given by `path` (and `runtimeArgs`), or by `runtimeType` with `options`, of which there is one:
containerd's shim for command lines such as runc's, in whose place Pier's keepers stand.
"""

from collections.abc import Callable
from typing import Any

from msgspec import Struct

from pier.engine.settings_option import Option
from pier.errors import InvalidParameter, Unsupported

OWN = "runc"
SHIM = "io.containerd.runc.v2"
# Both mean Pier's own runtime.
STOCK = (OWN, SHIM)
_KEYS = {"path": str, "runtimeArgs": list, "runtimeType": str, "options": dict}


OPTIONS = (
    Option(
        *("add-runtime", "", "runtimes", "runtimes", "runtime"),
        "Register an additional OCI runtime (NAME=PATH)",
    ),
    Option(
        *("default-runtime", "", "default-runtime", "default_runtime", "string"),
        "Default OCI runtime for containers (runc)",
    ),
)


class RuntimeEntry(Struct, frozen=True):
    """`path` is a program's, or its name on PATH; `root` "" leaves its state below the exec-root."""

    path: str
    args: tuple[str, ...] = ()
    root: str = ""


def _runtimes(value: Any) -> dict[str, RuntimeEntry]:
    """Return the runtimes by name, from flags ("name=path") or from the file (objects)."""
    if isinstance(value, list):
        return _from_flags(value)
    if OWN in value:
        raise InvalidParameter(f"runtime name '{OWN}' is reserved")
    return {name: _entry(name, given) for name, given in value.items()}


def _from_flags(words: list[str]) -> dict[str, RuntimeEntry]:
    found: dict[str, RuntimeEntry] = {}
    for word in words:
        name, _, path = (part.strip() for part in word.partition("="))
        if not name or not path:
            raise InvalidParameter(f"invalid runtime argument: {word}")
        name = name.lower()
        if name == OWN:
            raise InvalidParameter(f"runtime name '{OWN}' is reserved")
        if name in found:
            raise InvalidParameter(f"runtime '{name}' was already defined")
        found[name] = RuntimeEntry(path)
    return found


def _entry(name: str, given: dict[str, Any]) -> RuntimeEntry:
    for key, value in given.items():
        kind = _KEYS.get(key)
        if kind is None:
            raise InvalidParameter(f'runtime {name}: json: unknown field "{key}"')
        if not isinstance(value, kind):
            raise InvalidParameter(f"runtime {name}: json: cannot unmarshal {value!r} into {key}")
    path, kind_of_shim = given.get("path", ""), given.get("runtimeType", "")
    args, options = given.get("runtimeArgs", []), given.get("options", {})
    if not path and not kind_of_shim:
        raise InvalidParameter(f"runtime {name}: either a runtimeType or a path must be configured")
    if path:
        if kind_of_shim:
            raise InvalidParameter(
                f"runtime {name}: cannot configure both path and runtimeType for the same runtime"
            )
        if options:
            raise InvalidParameter(f"runtime {name}: options cannot be used with a path runtime")
        return RuntimeEntry(path, tuple(args))
    if args:
        raise InvalidParameter(f"runtime {name}: args cannot be used with a runtimeType runtime")
    return _of_shim(name, kind_of_shim, options)


def _of_shim(name: str, kind: str, options: dict[str, Any]) -> RuntimeEntry:
    if kind != SHIM:
        raise Unsupported(
            f"runtime {name}: runtimeType {kind} is not supported, only {SHIM}: "
            "Pier runs no shims of containerd's"
        )
    path, root = options.get("BinaryName", ""), options.get("Root", "")
    others = {key for key, value in options.items() if value} - {"BinaryName", "Root"}
    if others:
        raise Unsupported(f"runtime {name}: option {min(others)} is not supported")
    # Without a BinaryName it is the stock runtime.
    return RuntimeEntry(str(path), root=str(root))


def check_default(name: str, runtimes: dict[str, RuntimeEntry]) -> None:
    """Raise InvalidParameter for a default runtime that there is not."""
    if name not in STOCK and name not in runtimes:
        raise InvalidParameter(f"specified default runtime '{name}' does not exist")


CHECKS: dict[str, Callable[[Any], Any]] = {"runtimes": _runtimes}
