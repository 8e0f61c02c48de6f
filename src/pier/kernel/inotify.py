"""inotify(7): a descriptor that becomes readable when something changes in a directory.

Thin: which names to care about is the caller's. Not for trees: a watch covers one directory.
"""

import ctypes
import os
import struct
from enum import IntFlag

from pier.kernel.syscalls import call, function

_inotify_init1 = function("inotify_init1", ctypes.c_int)
_inotify_add_watch = function("inotify_add_watch", ctypes.c_int, ctypes.c_char_p, ctypes.c_uint32)

IN_NONBLOCK = os.O_NONBLOCK
IN_CLOEXEC = os.O_CLOEXEC

_EVENT = struct.Struct("iIII")
_READ_BYTES = 64 * 1024


class InotifyMask(IntFlag):
    IN_MODIFY = 0x002
    IN_ATTRIB = 0x004
    IN_CLOSE_WRITE = 0x008
    IN_MOVED_FROM = 0x040
    IN_MOVED_TO = 0x080
    IN_CREATE = 0x100
    IN_DELETE = 0x200
    IN_DELETE_SELF = 0x400
    IN_MOVE_SELF = 0x800
    IN_ONLYDIR = 0x0100_0000
    IN_Q_OVERFLOW = 0x4000


def inotify_init1(flags: int = IN_NONBLOCK | IN_CLOEXEC) -> int:
    """Return a new inotify descriptor, which the caller closes. Raises OSError (EMFILE)."""
    return call(_inotify_init1, flags)


def inotify_add_watch(inotify_fd: int, path: str, mask: InotifyMask) -> int:
    """Watch `path` for the events in `mask`; return the watch descriptor. Raises OSError."""
    return call(_inotify_add_watch, inotify_fd, os.fsencode(path), int(mask))


def read_events(inotify_fd: int) -> list[tuple[InotifyMask, str]]:
    """Take all queued events, as (what happened, name within the directory).

    An empty list when there are none now. A name is "" for events on the directory itself, and
    for the overflow of the queue (IN_Q_OVERFLOW), after which anything may have happened.
    """
    try:
        data = os.read(inotify_fd, _READ_BYTES)
    except BlockingIOError:
        return []
    events = []
    offset = 0
    while offset < len(data):
        _, mask, _, length = _EVENT.unpack_from(data, offset)
        offset += _EVENT.size
        name = os.fsdecode(data[offset : offset + length].rstrip(b"\0"))
        offset += length
        events.append((InotifyMask(mask), name))
    return events
