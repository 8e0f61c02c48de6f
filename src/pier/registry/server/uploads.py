"""Blobs on their way in: uploads/<id>, one file each, until they are whole.

    begun → bytes appended, over as many requests as the client likes → finished, or dropped

An upload belongs to one repository, which its ID remembers, and it survives the server: the file
stays, only the hash, which is computed while the bytes arrive, is then computed again from the
file. What nobody has written to for a while is removed (`expire`).
"""

import os
import secrets
import time
from collections.abc import Sequence

from pier.model.digest import Digest, Hash, digest_of, finish, hex_of, new_hash

_READ_BYTES = 1 << 20


class Upload:
    """An upload. Every method but the properties blocks: call it on a worker thread, one at a time.

    `size` is how many bytes there are.
    """

    def __init__(self, path: str, *, size: int, algorithm: str = "") -> None:
        self.path = path
        self.size = size
        # Without an algorithm the hash is not up to date and finish() reads the file again.
        self._algorithm = algorithm
        self._hash: Hash | None = new_hash(algorithm) if algorithm else None

    @property
    def id(self) -> str:
        return os.path.basename(self.path)

    def append(self, pieces: Sequence[bytes]) -> None:
        """Write at the end. After an OSError (a full disk) the upload is as it was before."""
        fd = os.open(self.path, os.O_WRONLY | os.O_CLOEXEC)
        try:
            _write_all(fd, pieces, self.size)
        except OSError:
            os.ftruncate(fd, self.size)
            raise
        finally:
            os.close(fd)
        for piece in pieces:
            if self._hash is not None:
                self._hash.update(piece)
            self.size += len(piece)

    def digest(self, algorithm: str) -> Digest:
        """Return the digest of all that there is."""
        if self._hash is None or self._algorithm != algorithm:
            self._hash, self._algorithm = new_hash(algorithm), algorithm
            with open(self.path, "rb", buffering=0) as file:
                while piece := file.read(_READ_BYTES):
                    self._hash.update(piece)
        return finish(algorithm, self._hash)

    def sync(self) -> None:
        fd = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)

    def drop(self) -> None:
        """Remove it; that it is gone already is fine."""
        try:
            os.unlink(self.path)
        except FileNotFoundError:
            return


class Uploads:
    """The uploads below a directory."""

    def __init__(self, directory: str) -> None:
        self._directory = directory
        self._live: dict[str, Upload] = {}
        os.makedirs(directory, mode=0o700, exist_ok=True)

    def begin(self, repository: str, algorithm: str = "sha256") -> Upload:
        """Start an upload to a repository, hashing as the digest's algorithm does."""
        name = f"{secrets.token_hex(16)}-{_mark(repository)}"
        upload = Upload(os.path.join(self._directory, name), size=0, algorithm=algorithm)
        os.close(os.open(upload.path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        self._live[name] = upload
        return upload

    def find(self, repository: str, name: str) -> Upload | None:
        """Return the repository's upload of this ID, perhaps of a server before this one."""
        token, dash, mark = name.partition("-")
        if not (dash and token.isalnum() and mark == _mark(repository)):
            return None
        upload = self._live.get(name)
        if upload is None:
            path = os.path.join(self._directory, name)
            try:
                size = os.stat(path).st_size
            except FileNotFoundError:
                return None
            upload = self._live[name] = Upload(path, size=size)
        return upload

    def forget(self, upload: Upload) -> None:
        """Stop knowing an upload whose file was renamed or dropped."""
        self._live.pop(upload.id, None)

    def expire(self, age_s: float) -> int:
        """Drop uploads without a write for this long; return how many."""
        before = time.time() - age_s
        dropped = 0
        for name in os.listdir(self._directory):
            path = os.path.join(self._directory, name)
            try:
                if os.stat(path).st_mtime < before:
                    os.unlink(path)
                    self._live.pop(name, None)
                    dropped += 1
            except FileNotFoundError:
                continue
        return dropped


def _mark(repository: str) -> str:
    """A short hash: a repository's name may be as long as a file's."""
    return hex_of(digest_of(repository.encode()))[:16]


def _write_all(fd: int, pieces: Sequence[bytes], offset: int) -> None:
    for piece in pieces:
        view = memoryview(piece)
        while view:
            written = os.pwrite(fd, view, offset)
            offset += written
            view = view[written:]
