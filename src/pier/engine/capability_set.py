"""Which capabilities a container has: the default ones, with `CapAdd` and `CapDrop`.

Rules and messages are those of Docker's (moby/moby, daemon/pkg/oci/caps).
"""

import functools
from collections.abc import Iterable

from pier.engine.defaults import CAPABILITIES
from pier.errors import InvalidParameter
from pier.kernel import capabilities

ALL = "ALL"


@functools.cache
def available() -> tuple[str, ...]:
    """All that can be given on this host: what this process itself is permitted to have."""
    return tuple(capabilities.names(capabilities.permitted()))


def normalise(names: Iterable[str], field: str) -> list[str]:
    """Return the names in capitals and with their CAP_ prefix; "ALL" stays.

    Raises InvalidParameter for a name that is unknown, or cannot be given on this host.
    """
    result = []
    for given in names:
        name = given.upper()
        if name != ALL:
            if not name.startswith("CAP_"):
                name = "CAP_" + name
            if name not in capabilities.NUMBERS:
                raise InvalidParameter(f'invalid {field}: unknown capability: "{name}"')
            if name not in available():
                raise InvalidParameter(
                    f"invalid {field}: capability not supported by your kernel or not available in"
                    f' the current environment: "{name}"'
                )
        result.append(name)
    return result


def resolve(
    add: Iterable[str] | None, drop: Iterable[str] | None, *, privileged: bool = False
) -> tuple[str, ...]:
    """Return the names of a container's capabilities. Raises InvalidParameter, see `normalise`."""
    if privileged:
        return available()
    if not add and not drop:
        return CAPABILITIES
    added = normalise(add or (), "CapAdd")
    dropped = normalise(drop or (), "CapDrop")
    if ALL in added:
        return tuple(name for name in available() if name not in dropped)
    kept = () if ALL in dropped else (name for name in CAPABILITIES if name not in dropped)
    return tuple(dict.fromkeys((*kept, *added)))
