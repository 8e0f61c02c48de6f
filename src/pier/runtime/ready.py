"""Namespaces that were made ahead of a start, and the way back to the host's.

IPC and UTS namespaces take a good part of a start and are the same for every container. So a spare
keeper makes them while it waits and lives in them itself, since nothing that it does depends on
them; the container inherits them. The mount namespace is not made ahead: it would miss what the host
mounts meanwhile. Network namespaces are pierd's to make ahead, which gives them their interfaces
(`network.namespaces`).
"""

from __future__ import annotations

import os

from pier.kernel import namespaces as ns
from pier.kernel.cgroups import Hierarchies
from pier.kernel.lean import suppress
from pier.runtime.prepared import Prepared

KINDS = ("ipc", "uts")


class Ready:
    """Namespaces that were made ahead, and the way back to the host's.

    Where they cannot be made now (their number is limited, namespaces(7)) none is ready, and the
    start makes them: it has someone to tell the reason to.
    """

    def __init__(self) -> None:
        self._host: dict[str, int] = {}
        self.process: Prepared | None = None
        try:
            for kind in KINDS:
                path = f"/proc/self/ns/{ns.PROC_NAMES[kind]}"
                self._host[kind] = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            ns.unshare(ns.CLONE_NEWIPC | ns.CLONE_NEWUTS)
        except OSError:
            for fd in self._host.values():
                os.close(fd)
            self._host = {}

    def prepare(self, hierarchies: Hierarchies) -> None:
        """Clone a container's first process too, where it can be of use: see `prepared`."""
        freezer = hierarchies.home("freezer")
        if self._host and hierarchies.all and (freezer is None or freezer.version == 1):
            with suppress(OSError):
                self.process = Prepared(hierarchies)

    def take(self, flags: int) -> int:
        """Return which CLONE_NEW* of `flags` are left to make; go back where none was wanted.

        A process that was prepared and not taken before ends here.

        With a user namespace all the others have to belong to it: none that was made ahead does.
        """
        if self.process is not None:
            self.process.discard()
            self.process = None
        for kind, host_fd in self._host.items():
            if flags & ns.FLAGS[kind] and not flags & ns.CLONE_NEWUSER:
                flags &= ~ns.FLAGS[kind]
            else:
                ns.setns(host_fd, ns.FLAGS[kind])
            os.close(host_fd)
        self._host = {}
        return flags
