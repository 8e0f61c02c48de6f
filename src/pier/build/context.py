"""A build's context: the client's archive unpacked, and what of it a Dockerfile may name.

It lives in staging/ for as long as the build, and a start after a SIGKILL empties that.
"""

import os
import stat
from collections.abc import Mapping
from typing import BinaryIO, Self

from pier.build.dockerfile.errors import DockerfileError
from pier.build.dockerfile.lines import MAX_BYTES
from pier.build.ignore import Ignore, read_patterns
from pier.build.result import Material
from pier.errors import Internal, InvalidParameter
from pier.kernel.openat2 import RESOLVE_IN_ROOT, RESOLVE_NO_MAGICLINKS, openat2
from pier.storage.decompress import Decompressed
from pier.storage.extract import extract
from pier.storage.layers import MAX_ENTRIES
from pier.storage.root import DataRoot
from pier.storage.tar.errors import TarError
from pier.storage.tar.reader import TarReader

DOCKERFILE = "Dockerfile"
IGNORE_FILE = ".dockerignore"
INSIDE = RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class Context:
    """`root_fd` is its directory; `ignore` what .dockerignore leaves out. Close it at the end.

    `digests` are SHA-256 sums of files by their paths, of those that are known.
    `materials` are what was fetched for the build, by where it came from.
    """

    def __init__(self, root: DataRoot) -> None:
        self._root = root
        self.path = root.staging("staging")
        os.makedirs(os.path.join(self.path, "context"))
        self.root_fd = os.open(os.path.join(self.path, "context"), _DIRECTORY)
        self.ignore = Ignore(())
        self.digests: Mapping[bytes, bytes] = {}
        self.materials: dict[str, Material] = {}
        self._made = 0
        self._is_dockerfile = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    async def ready(self) -> None:
        """Wait until the files are here; those of an archive are from the beginning."""

    def close(self) -> None:
        """Throw it away. A second call does nothing."""
        if self.root_fd >= 0:
            os.close(self.root_fd)
            self.root_fd = -1
            self._root.discard(self.path)

    def directory(self) -> str:
        """Make an empty directory that goes with the context: for what a step needs."""
        self._made += 1
        path = os.path.join(self.path, str(self._made))
        os.mkdir(path, 0o755)
        return path

    def unpack(self, source: BinaryIO) -> None:
        """Unpack the client's archive, of any compression. Blocking.

        Raises InvalidParameter for the archive's faults, Internal for the disk's.
        """
        _unpack(source, self.root_fd)

    def take_directory(self, path: str) -> None:
        """Take another directory for the files, one that is thrown away with the build's."""
        fd = os.open(path, _DIRECTORY)
        os.close(self.root_fd)
        self.root_fd = fd

    def put_dockerfile(self, source: BinaryIO) -> None:
        """Take the body for a Dockerfile, in a context with nothing else."""
        data = source.read(MAX_BYTES + 1)
        self._is_dockerfile = True
        with open(os.path.join(self.path, "context", DOCKERFILE), "wb") as file:
            file.write(data)

    def read_dockerfile(self, name: str) -> str:
        """Return the Dockerfile's text, and apply .dockerignore. Raises PierError."""
        if self._is_dockerfile:
            name = ""  # there is but one file, whatever name was asked for
        wanted = name or DOCKERFILE
        data = self.read(wanted, MAX_BYTES)
        if data is None and not name:
            wanted = DOCKERFILE.lower()
            data = self.read(wanted, MAX_BYTES)
        if data is None:
            raise Internal(f"Cannot locate specified Dockerfile: {name or DOCKERFILE}")
        if not data:
            raise DockerfileError(f"the Dockerfile ({wanted}) cannot be empty")
        own = self.read(f"{wanted}{IGNORE_FILE}", MAX_BYTES)
        patterns = own if own is not None else self.read(IGNORE_FILE, MAX_BYTES)
        if patterns:
            self.ignore = Ignore(read_patterns(patterns.decode("utf-8", "replace")))
        return data.decode("utf-8", "replace")

    def read(self, name: str, limit: int) -> bytes | None:
        """Return a regular file's content, None when it is not there. Raises InvalidParameter."""
        try:
            fd = openat2(
                self.root_fd,
                os.fsencode(name.lstrip("/")),
                os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY,
                resolve=INSIDE,
            )
        except OSError:
            return None
        with open(fd, "rb") as file:
            if not stat.S_ISREG(os.fstat(fd).st_mode):
                return None
            data = file.read(limit + 1)
        if len(data) > limit:
            raise InvalidParameter(f"{name} is larger than {limit} bytes")
        return data


def unpack_archive(path: str, into: str) -> None:
    """Unpack an archive into an empty directory, as root's. Blocking. Raises PierError."""
    with open(path, "rb") as file:
        fd = os.open(into, _DIRECTORY)
        try:
            _unpack(file, fd)
        finally:
            os.close(fd)


def _unpack(source: BinaryIO, root_fd: int) -> None:
    try:
        reader = TarReader(iter(Decompressed(source)), max_entries=MAX_ENTRIES)
        extract(reader, root_fd, owner=(0, 0))
        reader.drain()
    except TarError as exc:
        raise InvalidParameter(f"Error processing tar file: {exc}") from exc
    except ConnectionError:
        raise
    except OSError as exc:
        text = os.strerror(exc.errno or 0).lower()
        raise Internal(f"unpacking the build context: {text}") from exc


def outside(path: str) -> bool:
    """Tell whether a source climbs out of the context."""
    depth = 0
    for part in path.split("/"):
        if part == "..":
            depth -= 1
            if depth < 0:
                return True
        elif part not in ("", "."):
            depth += 1
    return False
