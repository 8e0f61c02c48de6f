"""Who a container's process runs as: "user[:group]" looked up in the container's own files.

Runs inside the container's root, which is hostile: /etc/passwd and /etc/group may be anything. So
they are opened without blocking, must be regular files, and are read up to a bound. The rules and
messages are those of Docker's lookup (github.com/moby/sys/user, GetExecUser), which users match on.
Formats: passwd(5), group(5).
"""

from __future__ import annotations

import os
import stat

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

PASSWD_PATH = "/etc/passwd"  # noqa: S105  # a file's name
GROUP_PATH = "/etc/group"
MAX_ID = (1 << 31) - 1
MAX_FILE_BYTES = 1 << 24
READ_BYTES = 1 << 14
_MAX_DIGITS = 20

_RANGE = f"uids and gids must be in range 0-{MAX_ID}"
_NO_USER = "no matching entries in passwd file"
_NO_GROUP = "no matching entries in group file"


# Plain classes: NamedTuple would bring in `typing`, which costs each start from cold 4 ms.


class Identity:
    """`additional_gids` begins with `gid`; `name` is "" for a uid without an entry."""

    __slots__ = ("additional_gids", "gid", "home", "name", "uid")

    def __init__(
        self, uid: int, gid: int, additional_gids: list[int], home: str, name: str
    ) -> None:
        self.uid = uid
        self.gid = gid
        self.additional_gids = additional_gids
        self.home = home
        self.name = name

    def __repr__(self) -> str:
        return f"Identity({self.uid}, {self.gid}, {self.additional_gids}, {self.home!r}, {self.name!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Identity) and repr(self) == repr(other)

    __hash__ = None  # type: ignore[assignment]


class _User:
    __slots__ = ("gid", "home", "name", "uid")

    def __init__(self, name: bytes, uid: int, gid: int, home: bytes) -> None:
        self.name = name
        self.uid = uid
        self.gid = gid
        self.home = home


class _Group:
    __slots__ = ("gid", "members", "name")

    def __init__(self, name: bytes, gid: int, members: bytes) -> None:
        self.name = name
        self.gid = gid
        self.members = members


def lookup(
    user: str,
    groups: Sequence[str] = (),
    *,
    passwd_path: str = PASSWD_PATH,
    group_path: str = GROUP_PATH,
) -> Identity:
    """Resolve `user`: "", "name", "uid", "name:group", "uid:gid", …; `groups` are added ones.

    "" is uid 0. Numbers need no entry. Without an explicit group the user's own ones apply: that
    of its passwd entry, and those that list it as a member. Raises ValueError with the user's text.
    """
    wanted, _, wanted_group = user.partition(":")
    try:
        passwd = _read(passwd_path)
    except ValueError as exc:
        raise ValueError(f"unable to find user {wanted or '0'}: {exc}") from None
    try:
        group_file = _read(group_path)
    except ValueError as exc:
        raise ValueError(f"unable to find groups for spec {user}: {exc}") from None
    entry = _find_user(passwd, wanted)
    uid, gid, home, name = entry.uid, entry.gid, entry.home, entry.name
    additional: list[int] = []
    if wanted_group:
        gid = _find_group(group_file, wanted_group, "unable to find group")
    elif name:
        additional.extend(
            group.gid for group in _groups(group_file) if name in group.members.split(b",")
        )
    additional.extend(_find_group(group_file, item, "unable to find group") for item in groups)
    unique = list(dict.fromkeys([gid, *additional]))
    return Identity(uid, gid, unique, os.fsdecode(home) or "/", os.fsdecode(name))


def _find_user(passwd: bytes, wanted: str) -> _User:
    """The first entry that matches, or one made up for a number that has none."""
    uid = _number(wanted) if wanted else 0
    name = os.fsencode(wanted)
    for entry in _users(passwd):
        # A numeric argument is always a uid, never a name: as Docker has it.
        if entry.uid == uid if uid is not None else entry.name == name:
            return entry
    if uid is None:
        raise ValueError(f"unable to find user {wanted}: {_NO_USER}")
    return _User(b"", _in_range(uid), 0, b"/")


def _find_group(group_file: bytes, wanted: str, failure: str) -> int:
    gid = _number(wanted)
    name = os.fsencode(wanted)
    for group in _groups(group_file):
        if group.gid == gid if gid is not None else group.name == name:
            return group.gid
    if gid is None:
        raise ValueError(f"{failure} {wanted}: {_NO_GROUP}")
    return _in_range(gid)


def _users(passwd: bytes) -> Iterator[_User]:
    # Docker reads a malformed number as 0, and so makes root of a damaged line: we skip the line.
    for fields in _lines(passwd, 4):
        uid, gid = _id(fields[2]), _id(fields[3])
        if fields[0] and uid is not None and gid is not None:
            yield _User(fields[0], uid, gid, fields[5] if len(fields) > 5 else b"")


def _groups(group_file: bytes) -> Iterator[_Group]:
    for fields in _lines(group_file, 3):
        gid = _id(fields[2])
        if fields[0] and gid is not None:
            yield _Group(fields[0], gid, fields[3] if len(fields) > 3 else b"")


def _lines(content: bytes, least: int) -> Iterable[list[bytes]]:
    """The fields of each line that has at least `least` of them."""
    for line in content.split(b"\n"):
        fields = line.strip().split(b":")
        if len(fields) >= least:
            yield fields


def _id(field: bytes) -> int | None:
    if not field.isdigit() or len(field) > _MAX_DIGITS:
        return None
    number = int(field)
    return number if number <= MAX_ID else None


def _number(text: str) -> int | None:
    """The number that Go's strconv.Atoi reads in `text`, None when it is not one."""
    digits = text[1:] if text[:1] in ("+", "-") else text
    if not digits.isascii() or not digits.isdigit() or len(digits) > _MAX_DIGITS:
        return None
    return int(text)


def _in_range(number: int) -> int:
    if not 0 <= number <= MAX_ID:
        raise ValueError(_RANGE)
    return number


def _read(path: str) -> bytes:
    """The file's content, b"" when it cannot be opened; ValueError for what is no file of users.

    O_NONBLOCK keeps a FIFO from holding us for ever, O_NOCTTY a terminal from becoming ours. A
    symbolic link is followed: we are inside the root, it leads nowhere else.
    """
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    except OSError:
        return b""
    try:
        info = os.fstat(fd)
        if not stat.S_ISREG(info.st_mode):
            raise ValueError(f"{path} is not a regular file")
        if info.st_size == 0:
            # Empty, or a file of /proc, which is not ours to read: /proc/kmsg loses what is read.
            return b""
        chunks = []
        left = MAX_FILE_BYTES + 1
        while left > 0 and (chunk := os.read(fd, min(left, READ_BYTES))):
            chunks.append(chunk)
            left -= len(chunk)
        if left <= 0:
            raise ValueError(f"{path} is larger than {MAX_FILE_BYTES} bytes")
        return b"".join(chunks)
    finally:
        os.close(fd)
