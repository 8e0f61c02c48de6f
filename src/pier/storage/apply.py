"""Unpacking a layer's tar into a directory that becomes an overlay lowerdir.

Image-spec layer.md says what a layer holds; kernel overlayfs.rst how a lowerdir says "deleted":
`.wh.name` becomes the character device 0:0 called `name`, `.wh..wh..opq` the xattr
trusted.overlay.opaque=y on its directory. Order within an entry matters: write, then owner (which
clears setuid bits and security.capability), then mode, then xattrs, then times. A directory's mode
and times are set after all entries, since making what is inside changes the times, and a setgid
directory would give its group to what is made in it.
"""

import errno
import os
import stat

from msgspec import Struct

from pier.storage.beneath import Beneath, clean
from pier.storage.recipe import Cut
from pier.storage.tar import header
from pier.storage.tar.errors import TarError
from pier.storage.tar.header import Entry
from pier.storage.tar.reader import TarReader
from pier.storage.tree import remove_tree
from pier.storage.whiteouts import META, OPAQUE, OPAQUE_XATTR, WHITEOUT

# What only the engine may say to overlayfs: never taken from an archive.
_FORBIDDEN_XATTRS = ("trusted.overlay.", "user.overlay.")

_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_SPECIAL_BITS = stat.S_ISUID | stat.S_ISGID | stat.S_ISVTX
# What the kernel says to names, links and xattrs that cannot be; the rest is the disk's or ours.
_ARCHIVE_FAULTS = frozenset(
    {
        *(errno.ENAMETOOLONG, errno.ELOOP, errno.ENOENT, errno.ENOTDIR, errno.EEXIST),
        *(errno.EINVAL, errno.E2BIG, errno.ERANGE, errno.EFBIG, errno.EMLINK),
    }
)
# What a recipe may need: files, and what paths lead through.
_LED_BY = frozenset({stat.S_IFREG, stat.S_IFDIR, stat.S_IFLNK})
_MAX_ID = 0xFFFFFFFE
# What dev_t has bits for (kdev_t.h).
_MAX_MAJOR, _MAX_MINOR = (1 << 12) - 1, (1 << 20) - 1
# Beyond this many seconds a time_t has no room; file systems cut far below it.
_MAX_TIME_NS = ((1 << 63) - 1) * 1_000_000_000


class Applied(Struct, frozen=True):
    """`size` is bytes of file contents, each hard-linked file once."""

    entries: int
    size: int


def apply_layer(reader: TarReader, root_fd: int, cut: Cut | None = None) -> Applied:
    """Unpack a layer into the empty directory `root_fd`, which stays the caller's to close.

    `cut` is told what goes into which file. Raises TarError for the archive's faults and OSError for
    the disk's (ENOSPC). What was unpacked until then stays: the caller throws the directory away.
    Modes, owners and device nodes need privileges as the calls do.
    """
    job = Unpacking(reader, root_fd, cut)
    try:
        for entry in reader:
            job.apply(entry)
        job.finish_directories()
    finally:
        job.beneath.close()
    return Applied(job.entries, job.size)


class Unpacking:
    """One unpacking: what has been seen so far. `extract` has another kind of it."""

    knows_whiteouts = True

    def __init__(self, reader: TarReader, root_fd: int, cut: Cut | None = None) -> None:
        self.beneath = Beneath(root_fd)
        self.entries = 0
        self.size = 0
        self._reader = reader
        self._cut = cut
        self._directories: dict[bytes, Entry] = {}
        self._uid = os.geteuid()
        self._gid = os.getegid()
        self._umask = _umask()
        self.path = b""  # of the entry being applied
        self._replaced = False  # it took the place of a directory or link

    def apply(self, entry: Entry) -> None:
        self.entries += 1
        path = self.path = clean(entry.name)
        if not (0 <= entry.uid <= _MAX_ID and 0 <= entry.gid <= _MAX_ID):
            raise TarError(f"{os.fsdecode(path)}: owner {entry.uid}:{entry.gid} is out of range")
        if not path:
            if entry.type == header.DIRECTORY:
                self._own_directory(self.beneath.root_fd, entry)
                self._directories[path] = entry
            return
        try:
            parent_fd, name = self.beneath.parent(path)
            if self.knows_whiteouts and name.startswith(WHITEOUT):
                self._white_out(parent_fd, name)
            elif entry.type == header.REGULAR:
                self._regular(parent_fd, name, entry)
            elif entry.type == header.DIRECTORY:
                self.directory(parent_fd, name, path, entry)
            else:
                self.other(parent_fd, name, entry)
            if self._replaced:
                # Not sooner: it closes parent_fd.
                self.beneath.forget()
                self._replaced = False
        except OSError as exc:
            if exc.errno in _ARCHIVE_FAULTS:
                raise TarError(f"{os.fsdecode(path)}: {os.strerror(exc.errno).lower()}") from exc
            raise

    def finish_directories(self) -> None:
        """Set modes, xattrs and times of the directories, inner ones first."""
        for path, entry in reversed(self._directories.items()):
            try:
                fd = self.beneath.open(path, os.O_RDONLY | os.O_DIRECTORY)
            except (FileNotFoundError, NotADirectoryError):
                continue  # a later entry replaced it
            except OSError as exc:
                if exc.errno == errno.ELOOP:
                    continue  # likewise, by a link
                raise
            try:
                os.fchmod(fd, entry.mode)
                set_xattrs(fd, entry)
                os.utime(fd, ns=times(entry))
            finally:
                os.close(fd)

    def _regular(self, parent_fd: int, name: bytes, entry: Entry) -> None:
        mode = entry.mode
        try:
            fd = os.open(name, _CREATE, mode & 0o777, dir_fd=parent_fd)
        except FileExistsError:
            self.clear(parent_fd, name)
            fd = os.open(name, _CREATE, mode & 0o777, dir_fd=parent_fd)
        try:
            if entry.sparse is not None:
                self._write_sparse(fd, entry)
            elif entry.stored:
                self._copy(fd, 0, entry.stored)
            self.size += entry.size
            foreign = entry.uid != self._uid or entry.gid != self._gid
            if foreign:
                os.fchown(fd, entry.uid, entry.gid)
            # Half the system calls of most files: the mode that open gave is already right.
            if mode & _SPECIAL_BITS or mode & self._umask:
                os.fchmod(fd, mode)
            if entry.xattrs:
                set_xattrs(fd, entry)
            os.utime(fd, ns=times(entry))
        finally:
            os.close(fd)

    def _write_sparse(self, fd: int, entry: Entry) -> None:
        for offset, length in entry.sparse or ():
            os.lseek(fd, offset, os.SEEK_SET)
            self._copy(fd, offset, length)
        os.ftruncate(fd, entry.size)

    def _copy(self, fd: int, offset: int, length: int) -> None:
        if self._cut is not None and length:
            self._cut.file(self._reader.offset, self.path, offset, length)
        self._reader.copy(fd, length)

    def directory(self, parent_fd: int, name: bytes, path: bytes, entry: Entry) -> None:
        whiteout = False
        try:
            # Private until finish_directories: nobody looks in before it is whole.
            os.mkdir(name, 0o700, dir_fd=parent_fd)
        except FileExistsError:
            found = os.stat(name, dir_fd=parent_fd, follow_symlinks=False)
            if not stat.S_ISDIR(found.st_mode):
                # A whiteout and then a new directory: nothing of the old one may shine through.
                whiteout = stat.S_ISCHR(found.st_mode) and found.st_rdev == 0
                self.clear(parent_fd, name)
                os.mkdir(name, 0o700, dir_fd=parent_fd)
        fd = os.open(name, _DIRECTORY, dir_fd=parent_fd)
        try:
            self._own_directory(fd, entry)
        finally:
            os.close(fd)
        if whiteout:
            _make_opaque(parent_fd, name)
        self._directories[path] = entry

    def _own_directory(self, fd: int, entry: Entry) -> None:
        found = os.fstat(fd)
        if (found.st_uid, found.st_gid) != (entry.uid, entry.gid):
            os.fchown(fd, entry.uid, entry.gid)

    def other(self, parent_fd: int, name: bytes, entry: Entry) -> None:
        try:
            self.make(parent_fd, name, entry)
        except FileExistsError:
            self.clear(parent_fd, name)
            self.make(parent_fd, name, entry)
        if entry.type == header.LINK:
            return  # owner, mode and times are those of the file it is another name of
        if entry.uid != self._uid or entry.gid != self._gid:
            os.chown(name, entry.uid, entry.gid, dir_fd=parent_fd, follow_symlinks=False)
        if entry.type != header.SYMLINK:
            os.chmod(name, entry.mode, dir_fd=parent_fd)
        if entry.xattrs:
            # No call sets xattrs relative to a directory before Linux 6.13.
            set_xattrs(b"/proc/self/fd/%d/%s" % (parent_fd, name), entry)
        os.utime(name, ns=times(entry), dir_fd=parent_fd, follow_symlinks=False)

    def make(self, parent_fd: int, name: bytes, entry: Entry) -> None:
        kind = entry.type
        if kind == header.SYMLINK:
            os.symlink(entry.linkname, name, dir_fd=parent_fd)
        elif kind == header.LINK:
            self._link(parent_fd, name, entry)
        elif kind == header.FIFO:
            os.mkfifo(name, 0o600, dir_fd=parent_fd)
        elif kind in (header.CHARACTER, header.BLOCK_DEVICE):
            major, minor = entry.devmajor, entry.devminor
            if not (0 <= major <= _MAX_MAJOR and 0 <= minor <= _MAX_MINOR):
                raise TarError(f"{os.fsdecode(name)}: device {major}:{minor} is out of range")
            device = os.makedev(major, minor)
            type_ = stat.S_IFCHR if kind == header.CHARACTER else stat.S_IFBLK
            os.mknod(name, type_ | 0o600, device, dir_fd=parent_fd)
        else:
            raise TarError(f"unhandled tar header type {kind}")

    def _link(self, parent_fd: int, name: bytes, entry: Entry) -> None:
        """Link to a file of this layer; one of a lower layer is no file here, as with Docker."""
        target = clean(entry.linkname)
        source = os.fsdecode(entry.linkname)
        if not target:
            raise TarError(f'invalid hardlink "{source}" -> "{os.fsdecode(name)}"')
        try:
            source_fd, last = self.beneath.open_parent(target)
            try:
                os.link(
                    last,
                    name,
                    src_dir_fd=source_fd,
                    dst_dir_fd=parent_fd,
                    follow_symlinks=False,
                )
            finally:
                os.close(source_fd)
        except FileExistsError:
            raise
        except (FileNotFoundError, NotADirectoryError, PermissionError) as exc:
            text = os.strerror(exc.errno or 0).lower()
            raise TarError(f"link {source} {os.fsdecode(entry.name)}: {text}") from exc

    def _white_out(self, parent_fd: int, name: bytes) -> None:
        if name == OPAQUE:
            _make_opaque(parent_fd, b".")
            return
        if name.startswith(META):
            return  # AUFS's own bookkeeping
        hidden = name[len(WHITEOUT) :]
        if hidden in (b"", b".", b".."):
            raise TarError(f'invalid whiteout "{os.fsdecode(self.path)}"')
        try:
            os.mknod(hidden, stat.S_IFCHR, 0, dir_fd=parent_fd)
        except FileExistsError:
            # The layer deletes what was below and has its own: a file hides it by being there, a
            # directory must be opaque (layer.md: a whiteout never hides its own layer's files).
            found = os.stat(hidden, dir_fd=parent_fd, follow_symlinks=False)
            if stat.S_ISDIR(found.st_mode):
                _make_opaque(parent_fd, hidden)

    def clear(self, parent_fd: int, name: bytes) -> None:
        """Remove what an earlier entry made under this name."""
        found = os.stat(name, dir_fd=parent_fd, follow_symlinks=False)
        remove_tree(parent_fd, name)
        if self._cut is not None and stat.S_IFMT(found.st_mode) in _LED_BY:
            self._cut.give_up()
        if stat.S_ISDIR(found.st_mode) or stat.S_ISLNK(found.st_mode):
            # Paths may have been resolved through it: they mean something else from now on.
            self._replaced = True
            beneath = self.path + b"/"
            for path in [p for p in self._directories if (p + b"/").startswith(beneath)]:
                del self._directories[path]


def _make_opaque(parent_fd: int, name: bytes) -> None:
    """Let nothing of lower layers shine through a directory."""
    fd = os.open(name, _DIRECTORY, dir_fd=parent_fd)
    try:
        os.setxattr(fd, OPAQUE_XATTR, b"y")
    finally:
        os.close(fd)


def set_xattrs(target: int | bytes, entry: Entry, *, follow: bool = False) -> None:
    """Set an entry's xattrs on a descriptor, or on a path whose end is followed only with `follow`.

    What the file system or kind of file cannot have is left out, as Docker does.
    """
    follow = follow or isinstance(target, int)
    for name, value in (entry.xattrs or {}).items():
        if name.startswith(_FORBIDDEN_XATTRS):
            continue
        try:
            os.setxattr(target, name, value, follow_symlinks=follow)
        except OSError as exc:
            # xattr(7): user.* is for regular files and directories only, EPERM elsewhere.
            unsuited = exc.errno == errno.EPERM and name.startswith("user.")
            if exc.errno != errno.ENOTSUP and not unsuited:
                raise


def times(entry: Entry) -> tuple[int, int]:
    """Return (atime, mtime): an archive's access times are not kept, as with Docker."""
    if abs(entry.mtime_ns) > _MAX_TIME_NS:
        return 0, 0
    return entry.mtime_ns, entry.mtime_ns


def _umask() -> int:
    """Read the umask without changing it, which would change it for all threads (proc(5))."""
    with open("/proc/self/status", encoding="ascii", errors="replace") as status:
        for line in status:
            if line.startswith("Umask:"):
                return int(line.split()[1], 8)
    return 0o7777
