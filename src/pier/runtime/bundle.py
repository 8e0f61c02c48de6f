"""Reading the files of a bundle: as few system calls as it takes, for they are on every start's way."""

from __future__ import annotations

import os

from pier.errors import StartFailed
from pier.kernel.lean import json

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def read(path: str) -> bytes:
    """Return a whole file. Raises OSError."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        size = os.fstat(fd).st_size
        data = os.read(fd, size)
        while len(data) < size and (more := os.read(fd, size - len(data))):
            data += more
    finally:
        os.close(fd)
    return data


def read_json(bundle: str, name: str) -> Any:
    """Return what the document `name` of a bundle says. Raises OSError, ValueError."""
    return json.loads(read(f"{bundle}/{name}"))


def read_filter(path: str | None) -> bytes | None:
    """Return a compiled seccomp filter, None for none. Raises StartFailed."""
    if path is None:
        return None
    try:
        return read(path)
    except OSError as exc:
        raise StartFailed(str(exc), step="seccomp", errno=exc.errno or 0) from exc
