"""Volumes on the disk: a directory and a row each.

    <data-root>/volumes/<name>/_data     what is mounted; the path that users know from Docker
                              filling    contents that are complete, on their way into _data
                              filling-part   the same for a directory in it: data/, where
                              unfilled   somebody else's file system is being filled

The row comes last and goes first, so a directory without one is refuse. Contents that come from an
image are copied in staging/, become `filling` in one step, and are moved into the empty directory
entry by entry: whoever has it mounted already keeps it. A pierd that is killed meanwhile has either
copied nothing, or the next one moves the rest: a volume is never half populated, also on a full
disk. A file system that is mounted there (options) is filled in place, with a mark beside it for as
long; what a crash left in it is taken away before anybody sees it.
"""

import errno
import os
from collections.abc import Iterator

import msgspec
from msgspec.structs import replace

from pier.errors import Internal, NotFound
from pier.kernel.openat2 import RESOLVE_BENEATH, RESOLVE_NO_MAGICLINKS, openat2
from pier.model.api_volumes import VolumeRecord
from pier.storage.copy import copy_metadata, copy_tree
from pier.storage.database import Database
from pier.storage.root import DataRoot
from pier.storage.tree import remove_tree

_NO_PART = (errno.ENOENT, errno.ENOTDIR, errno.EXDEV, errno.ELOOP)
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC


class VolumeStore:
    """Opens the volumes of a data root, removing what a crash left. One thread, but `populate`."""

    def __init__(self, root: DataRoot, database: Database) -> None:
        self._root = root
        self._database = database
        decoder = msgspec.json.Decoder(VolumeRecord)
        self._rows: dict[str, VolumeRecord] = {
            str(name): decoder.decode(record)  # type: ignore[arg-type]
            for name, record in database.rows("SELECT name, record FROM volumes ORDER BY rowid")
        }
        self._elsewhere: dict[str, str] = {}
        """Where volumes of others' drivers are mounted."""
        for record in self._rows.values():
            if record.moved_from:
                self._move(record)
        for name in os.listdir(root.join("volumes")):
            if name not in self._rows:
                root.discard(root.join("volumes", name))
            else:
                self._move_in(name)

    def __iter__(self) -> Iterator[VolumeRecord]:
        """All volumes, oldest first; a copy, so that they may change meanwhile."""
        return iter(list(self._rows.values()))

    def __contains__(self, name: str) -> bool:
        return name in self._rows

    def __len__(self) -> int:
        return len(self._rows)

    def get(self, name: str) -> VolumeRecord:
        """Raises NotFound in Docker's words."""
        found = self._rows.get(name)
        if found is None:
            raise NotFound(f"get {name}: no such volume")
        return found

    def mountpoint(self, name: str) -> str:
        """Where its data is; "" while another driver's is not mounted."""
        if self._rows[name].is_local:
            return self._root.join("volumes", name, "_data")
        return self._elsewhere.get(name, "")

    def has_quota(self) -> bool:
        """Whether a volume can be limited to a size."""
        return self._root.quotas.offered()

    def set_mountpoint(self, name: str, path: str) -> None:
        """Remember where another driver mounted its volume, "" for nowhere."""
        self._elsewhere[name] = path

    def add(self, record: VolumeRecord) -> None:
        """Remember a volume whose data is another driver's business."""
        with self._database.transaction() as db:
            db.execute(
                "INSERT INTO volumes (name, record) VALUES (?, ?)",
                (record.Name, msgspec.json.encode(record)),
            )
        self._rows[record.Name] = record

    def create(self, record: VolumeRecord, data: str = "", *, size: int = 0) -> None:
        """Make a volume that is not there yet, empty, or with a directory that becomes its own.

        An empty one may be limited to `size` bytes. Raises OSError.
        """
        directory = self._root.join("volumes", record.Name)
        os.mkdir(directory, 0o701)
        os.chmod(directory, 0o701)  # its users pass through; nobody lists
        try:
            if data:
                os.rename(data, f"{directory}/_data")
            else:
                os.mkdir(f"{directory}/_data", 0o755)
                os.chmod(f"{directory}/_data", 0o755)
                if size:
                    self._root.quotas.limit(size, f"{directory}/_data")
            self.add(record)
        except BaseException:
            self._root.discard(directory)
            raise

    def remove(self, name: str) -> None:
        """Forget a volume and its data, durably; the bytes are freed in the background."""
        with self._database.transaction() as db:
            db.execute("DELETE FROM volumes WHERE name = ?", (name,))
        del self._rows[name]
        self._elsewhere.pop(name, None)
        self._root.discard(self._root.join("volumes", name))

    def rename(self, old: str, new: str) -> VolumeRecord:
        """Give a local volume another name, which is free; who has it mounted keeps it."""
        record = replace(self._rows[old], Name=new, moved_from=old)
        with self._database.transaction() as db:
            db.execute(
                "UPDATE volumes SET name = ?, record = ? WHERE name = ?",
                (new, msgspec.json.encode(record), old),
            )
        del self._rows[old]
        self._rows[new] = record
        self._move(record)
        return record

    def _move(self, record: VolumeRecord) -> None:
        """Let a volume's directory have its name; done already is fine."""
        old = self._root.join("volumes", record.moved_from)
        new = self._root.join("volumes", record.Name)
        if record.moved_from not in self._rows and not os.path.lexists(new):
            os.rename(old, new)

    def is_empty(self, name: str, part: str = "") -> bool:
        """Whether a volume, or the directory `part` of it, is there and has nothing in it."""
        try:
            fd = self._open(name, part)
        except OSError:
            if part:
                return False
            raise
        try:
            return not os.listdir(fd)
        finally:
            os.close(fd)

    def populate(self, name: str, source_fd: int, part: str = "") -> None:
        """Fill an empty volume, or an empty directory `part` of it, with what is in the directory
        `source_fd`, wholly or not at all.

        For a thread: it copies. Does nothing when it was filled meanwhile. The descriptor
        stays the caller's. Raises OSError.
        """
        staged = self._root.staging("staging")
        os.mkdir(staged, 0o700)
        data, filling = staged, self._filling(name)
        try:
            # What is limited cannot be renamed to where it would not be, and counts from here on.
            self._root.quotas.share(self._root.quotas.of(self.mountpoint(name)), staged)
            if part:
                data, filling = f"{staged}/data", self._filling_part(name)
                os.mkdir(data, 0o700)
                with open(f"{staged}/where", "w") as file:
                    file.write(part)
            target_fd = os.open(data, _DIRECTORY)
            try:
                copy_tree(source_fd, target_fd)
            finally:
                os.close(target_fd)
            if self.is_empty(name, part):  # still
                os.rename(staged, filling)
        finally:
            self._root.discard(staged)
        self._move_in(name)

    def populate_mounted(self, name: str, source_fd: int, *, marked: bool, part: str = "") -> None:
        """The same for a volume whose file system is mounted now: copied in place.

        `marked` unless others use it already: what is theirs must not go with what a crash left.
        Raises Internal after taking away what was copied, unless it may be theirs.
        """
        target_fd = self._open(name, part)
        mark = self._unfilled(name)
        if marked:
            # At once with what it says: of one cut short, all of the volume would go.
            with open(f"{mark}-new", "w") as file:
                file.write(part)
            os.rename(f"{mark}-new", mark)
        try:
            copy_tree(source_fd, target_fd)
        except OSError as exc:
            if marked:
                _empty(target_fd)
            reason = (exc.strerror or str(exc)).lower()
            raise Internal(f"failed to populate volume {name}: {reason}") from exc
        finally:
            os.close(target_fd)
            if marked:
                os.unlink(mark)

    def clear_unfilled(self, name: str) -> None:
        """The volume's file system is mounted, and nobody uses it yet: if a crash left it, or a part
        of it, half populated, that is empty again. Raises OSError.
        """
        mark = self._unfilled(name)
        try:
            with open(mark) as file:
                part = file.read()
        except FileNotFoundError:
            return
        try:
            fd = self._open(name, part)
        except OSError as exc:
            if not part or exc.errno not in _NO_PART:
                raise
        else:
            try:
                _empty(fd)
            finally:
                os.close(fd)
        os.unlink(mark)

    def _move_in(self, name: str) -> None:
        """Move what is being filled in, if there is such, where it belongs; again after a crash."""
        filling, of_part = self._filling(name), self._filling_part(name)
        if os.path.lexists(filling):
            self._move_entries(filling, name, "")
            self._root.discard(filling)
        if os.path.lexists(of_part):
            with open(f"{of_part}/where") as file:
                part = file.read()
            try:
                self._move_entries(f"{of_part}/data", name, part)
            except OSError as exc:
                # A user of the volume may have taken the part away meanwhile.
                if exc.errno not in _NO_PART:
                    raise
            self._root.discard(of_part)

    def _move_entries(self, filling: str, name: str, part: str) -> None:
        source_fd = os.open(filling, _DIRECTORY)
        try:
            target_fd = self._open(name, part)
            try:
                there = set(os.listdir(target_fd))
                for entry in os.listdir(source_fd):
                    if entry not in there:  # else somebody who has it mounted was faster
                        os.rename(entry, entry, src_dir_fd=source_fd, dst_dir_fd=target_fd)
                copy_metadata(source_fd, target_fd, os.fstat(source_fd))
            finally:
                os.close(target_fd)
        finally:
            os.close(source_fd)

    def _open(self, name: str, part: str) -> int:
        """Open a volume's directory, or one in it, following no link out. Raises OSError."""
        whole_fd = os.open(self.mountpoint(name), _DIRECTORY)
        if not part:
            return whole_fd
        try:
            return openat2(
                whole_fd,
                os.fsencode(part),
                _DIRECTORY,
                resolve=RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS,
            )
        finally:
            os.close(whole_fd)

    def _filling(self, name: str) -> str:
        return self._root.join("volumes", name, "filling")

    def _filling_part(self, name: str) -> str:
        return self._root.join("volumes", name, "filling-part")

    def _unfilled(self, name: str) -> str:
        return self._root.join("volumes", name, "unfilled")


def _empty(directory_fd: int) -> None:
    for entry in os.listdir(directory_fd):
        remove_tree(directory_fd, os.fsencode(entry))
