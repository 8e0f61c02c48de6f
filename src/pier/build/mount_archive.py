"""Cache mounts in an archive, to be taken elsewhere (`pier build --cache-mounts-to` and `-from`).

    mounts.json          {"<name>": "<the mount's id>"}
    <name>/...           the directory, with owners and modes

A name is the hash of an ID (`cache_mounts`), so it is the same on every machine.
"""

import io
import os
import re
from collections.abc import Mapping
from typing import IO

import msgspec

from pier.errors import InvalidParameter
from pier.storage.decompress import Decompressed
from pier.storage.extract import extract
from pier.storage.layers import MAX_ENTRIES
from pier.storage.tar.errors import TarError
from pier.storage.tar.reader import TarReader

INDEX = "mounts.json"
_NAME = re.compile(r"[0-9a-f]{32}(?:-\d+)?\Z")
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC


def write_archive(out: IO[bytes], mounts: Mapping[str, tuple[str, str]]) -> None:
    """Write directories, (ID, path) by their names, as a tar. Blocking. Raises OSError."""
    import tarfile  # noqa: PLC0415  # half a megabyte that few engines need

    with tarfile.open(fileobj=out, mode="w|", format=tarfile.PAX_FORMAT) as tar:
        index = msgspec.json.encode({name: identity for name, (identity, _) in mounts.items()})
        member = tarfile.TarInfo(INDEX)
        member.size = len(index)
        tar.addfile(member, io.BytesIO(index))
        for name, (_, path) in sorted(mounts.items()):
            tar.add(path, name)


def read_archive(path: str, into: str) -> dict[str, str]:
    """Unpack an archive into an empty directory; return the IDs by names. Blocking.

    Raises InvalidParameter, OSError.
    """
    root_fd = os.open(into, _DIRECTORY)
    try:
        with open(path, "rb") as file:
            extract(TarReader(iter(Decompressed(file)), max_entries=MAX_ENTRIES), root_fd)
        fd = os.open(INDEX, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=root_fd)
        with open(fd, "rb") as file:
            found = msgspec.json.decode(file.read(), type=dict[str, str])
    except (TarError, msgspec.DecodeError, UnicodeDecodeError, FileNotFoundError) as exc:
        raise InvalidParameter(f"this is no archive of cache mounts: {exc}") from exc
    finally:
        os.close(root_fd)
    for name in found:
        place = os.path.join(into, name)
        if not _NAME.match(name) or os.path.islink(place) or not os.path.isdir(place):
            raise InvalidParameter(
                f"this is no archive of cache mounts: {name!r} is no mount in it"
            )
    return found
