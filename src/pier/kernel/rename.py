"""renameat2(2): what os.rename cannot do."""

import ctypes

from pier.kernel.syscalls import call, function

AT_FDCWD = -100
RENAME_EXCHANGE = 2

_renameat2 = function(
    "renameat2", ctypes.c_int, ctypes.c_char_p, ctypes.c_int, ctypes.c_char_p, ctypes.c_uint
)


def exchange(one: bytes, other: bytes) -> None:
    """Let two paths of one file system change places, in one step. Raises OSError."""
    call(_renameat2, AT_FDCWD, one, AT_FDCWD, other, RENAME_EXCHANGE)
