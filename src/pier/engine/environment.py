"""The environment of a container's processes, in dockerd's order. HOME is the runtime's to add:
only it can read the container's passwd file.
"""

from collections.abc import Iterable, Sequence

from pier.engine.defaults import DEFAULT_PATH


def container_env(hostname: str, env: Iterable[str] | None, *, tty: bool) -> list[str]:
    """PATH, HOSTNAME, with a terminal TERM, then the container's own, which may override them."""
    defaults = [f"PATH={DEFAULT_PATH}", f"HOSTNAME={hostname}"]
    if tty:
        defaults.append("TERM=xterm")
    return replace_or_append(defaults, env or ())


def replace_or_append(base: Sequence[str], changes: Iterable[str]) -> list[str]:
    """Return `base` with the variables of `changes` in their places, new ones at the end.

    A change without "=" removes the variable.
    """
    merged = {item.partition("=")[0]: item for item in base}
    for item in changes:
        name, equals, _ = item.partition("=")
        if equals:
            merged[name] = item
        else:
            merged.pop(name, None)
    return list(merged.values())
