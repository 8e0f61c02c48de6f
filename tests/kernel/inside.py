"""Run a piece of a test in a child with namespaces of its own, so that the machine stays as it is."""

import os
import sys
import traceback
from collections.abc import Callable

from pier.kernel import mount as mnt
from pier.kernel import namespaces as ns


def apart(work: Callable[[], None], flags: int = ns.CLONE_NEWNS) -> None:
    """Fork, unshare `flags`, make mounts private, run `work`; fail when it raised."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            ns.unshare(flags)
            if flags & ns.CLONE_NEWNS:
                mnt.mount("", "/", "", mnt.MS_REC | mnt.MS_PRIVATE)
            work()
            code = 0
        except BaseException:  # noqa: BLE001  # the fork must end here
            traceback.print_exc()
        finally:
            sys.stderr.flush()
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
