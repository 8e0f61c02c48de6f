"""What an exec's process does between clone3 and execve: it joins the container and gives up rights.

It is a fork of the keeper inside the container's pid namespace, so processes in the container can
see it: it is not dumpable, opens no path of the container's before its rights are dropped but
/etc/passwd and /etc/group, and holds no descriptor of the host's when it executes.
"""

from __future__ import annotations

import os

from pier.kernel import namespaces as ns
from pier.kernel import pty
from pier.kernel.cgroups import Cgroup
from pier.kernel.lean import socket
from pier.runtime import protocol
from pier.runtime.init import take_stdio
from pier.runtime.process import (
    become,
    end_imports,
    end_without_keeper,
    execute,
    filter_loader,
    rare_steps,
    reset_affinity,
    set_label,
    set_oom_score,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import NoReturn

    from pier.runtime.spec import ExecConfig, Linux

# The user namespace comes first, and the pid namespace came with the clone.
JOINED = frozenset(("uts", "ipc", "network", "cgroup", "time"))


class Exec:
    """The set-up of one exec, seen from inside. `target_pidfd` is the container's first process.

    `prepared` says that it was born with its OOM score and label.
    """

    def __init__(  # noqa: PLR0913  # what an exec is made of
        self,
        config: ExecConfig,
        *,
        sync: socket.socket,
        stdio: tuple[int, int, int],
        seccomp_bpf: bytes | None,
        target_pidfd: int,
        own_user_namespace: bool,
        joins: Cgroup | None,
        linux: Linux,
        inherited: int | None = None,
        prepared: bool = False,
    ) -> None:
        self.prepared = prepared
        self.joins = joins
        self.linux = linux
        self.inherited = inherited
        self.config = config
        self.sync = sync
        self.stdio = stdio
        self.seccomp_bpf = seccomp_bpf
        self.target_pidfd = target_pidfd
        self.own_user_namespace = own_user_namespace
        self.step = "namespace"

    def run(self) -> NoReturn:
        """Join, drop rights and execute. Ends the process when that fails."""
        try:
            self._run()
        except Exception as exc:  # noqa: BLE001  # whatever it is, silence would look like success
            protocol.send_failure(self.sync, self.step, exc)
        finally:
            os._exit(1)

    def _run(self) -> None:
        os.setsid()
        process = self.config["process"]
        # Loaded before the container is joined: past that an import reads the container's files.
        steps = rare_steps(process, self.linux)
        load = filter_loader(self.linux, lambda: self.sync)
        final = self._set_affinity()
        if self.joins is not None:
            self.step = "cgroup"
            self.joins.join()
        final()
        if not self.prepared:
            self.step = "oom_score_adj"
            # While /proc is still the host's, and before the program could run with another score.
            set_oom_score("self", process)
            set_label(process)
        self.step = "namespace"
        become_root: Callable[[], None] | None = None
        if self.own_user_namespace:
            # Loaded before the root is another.
            from pier.runtime import userns  # noqa: PLC0415  # rare

            become_root = userns.become_root
        end_imports()
        user = ns.CLONE_NEWUSER if self.own_user_namespace else 0
        ns.setns(self.target_pidfd, user | self._joined())
        if become_root is not None:
            become_root()
        if process.get("terminal"):
            self.step = "console"
            pty.make_controlling(self.stdio[0])
        self.step = "start"
        (self.sync,) = take_stdio(self.stdio, [self.sync], self.inherited or 0)
        path, args, env = become(
            process,
            self.config["user"],
            self.config["groups"],
            self.seccomp_bpf,
            dies_with_parent=self.inherited is None,
            steps=steps,
            load=load,
        )
        end_without_keeper(self.sync)
        execute(path, args, env)

    def _joined(self) -> int:
        """Return which namespaces are joined: those that the container does not share with us.

        A user could not join the host's, where it is already; kernels without time namespaces
        refuse the flag.
        """
        kinds = {entry["type"] for entry in self.linux.get("namespaces", [])}
        flags = ns.CLONE_NEWNS
        for kind in JOINED & kinds:
            flags |= ns.FLAGS[kind]
        return flags

    def _set_affinity(self) -> Callable[[], None]:
        """Set the initial CPU affinity; return what sets the one that comes after the cgroup."""
        if "execCPUAffinity" not in self.config["process"]:
            return reset_affinity
        from pier.runtime import scheduling  # noqa: PLC0415  # rare, and memory of every keeper

        initial, final = scheduling.parse_affinity(self.config["process"])
        scheduling.set_affinity(initial)
        return lambda: scheduling.set_affinity(final)
