"""Work in a mount namespace of its own, in a process whose other threads stay where they are.

The namespace is a thread's, and ends with it: what is mounted in it never shows in the host's mount
table, and a SIGKILL leaves nothing mounted.
"""

import threading
from collections.abc import Callable
from typing import TypeVar

from pier.kernel import mount as mnt
from pier.kernel.namespaces import CLONE_NEWNS, unshare

Result = TypeVar("Result")


def in_own_mounts(work: Callable[[], Result], name: str) -> Result:
    """Call `work` in a thread called `name` and wait for it; return what it returns.

    Raises what it raises, and OSError (unshare(2), mount(2)).
    """
    results: list[Result] = []
    failures: list[BaseException] = []

    def run() -> None:
        try:
            unshare(CLONE_NEWNS)
            mnt.mount("none", "/", "", mnt.MS_REC | mnt.MS_PRIVATE)
            results.append(work())
        except BaseException as exc:  # noqa: BLE001 - it is raised again where somebody waits
            failures.append(exc)

    thread = threading.Thread(target=run, name=name)
    thread.start()
    thread.join()
    if failures:
        raise failures[0]
    return results[0]
