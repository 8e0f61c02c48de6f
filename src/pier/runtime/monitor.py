"""A keeper that is the monitor of another OCI runtime, as containerd's shim is runc's.

The runtime is a command line (`create`, `start`, `exec`, `kill`, `delete` …) that leaves the
container's processes to us; we are a subreaper (`children`). No command is waited for: the loop
goes on, and what was asked is answered when the command has ended.

    create ── pid file, terminal by --console-socket ── start ── … ── its end ── delete --force

Without us the container goes on, other than under a keeper of Pier's own runtime; pierd ends it
(`engine.foreign_runtimes.delete`). Loaded only where there is one.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
from collections.abc import Callable

from pier.errors import StartFailed
from pier.kernel.cgroups import Hierarchies
from pier.kernel.process import status_code
from pier.kernel.pty import set_window_size
from pier.runtime import foreign, protocol
from pier.runtime.children import Children
from pier.runtime.console_socket import ConsoleSocket
from pier.runtime.keeper import Control, ExecProcess, Keeper, attachment, nothing
from pier.runtime.launch import Launch
from pier.runtime.protocol import Packet
from pier.runtime.ready import Ready
from pier.runtime.runtime_log import failure_text
from pier.runtime.stdio import Stdio, make_stdio
from pier.runtime.streams import Streams

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pier.runtime.spec import Process, RuntimeCommand

DELETE_TIMEOUT_S = 30.0
# What dockerd's containerd says of each command that failed.
FAILED = "OCI runtime {} failed: {}"

Stdio3 = tuple[int, int, int]


class Foreign(Launch):
    """A process that the runtime starts: no socket leads to it, and no cgroup is ours to make."""

    def __init__(self) -> None:
        unused = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        unused.close()
        super().__init__(0, -1, unused, Stdio())

    def found(self, pid: int) -> None:
        """Take the pid that the runtime wrote down; of one that is over there is no pidfd."""
        self.pid = pid
        with contextlib.suppress(ProcessLookupError):
            self.pidfd = os.pidfd_open(pid)

    def let_go(self) -> None:
        """Close the pidfd: the process is over."""
        if self.pidfd >= 0:
            os.close(self.pidfd)
            self.pidfd = -1

    def abandon(self) -> None:
        """Kill the process if there is one, and close what was opened for it."""
        if self.pidfd >= 0:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self.pidfd, signal.SIGKILL)
        self.let_go()
        self.stdio.close()


class Monitor(Keeper):
    """The state of one monitor; `Keeper` has what is the same: clients, log, end, connections."""

    def __init__(self, bundle: str, hierarchies: Hierarchies, ready: Ready) -> None:
        super().__init__(bundle, hierarchies, ready)
        with open(os.path.join(bundle, protocol.RUNTIME_FILE), "rb") as file:
            self.runtime: RuntimeCommand = json.load(file)
        self.children: Children
        self.mounted: list[str] = []
        self._number = 0
        self._early_end: int | None = None
        self._deleted = self._drained = self._killed = False
        # Not before its start was answered: pierd has nobody else to ask.
        self._starting = False

    # The container

    def _start(self, control: Control, packet: Packet, fds: list[int]) -> None:
        if self.launch is not None:
            raise ValueError("started already")
        self._listen()
        self.launch = launch = Foreign()
        try:
            self.ready.take(0)
            # Before SIGCHLD means anything to us, which the sender, a fork, would inherit.
            self._open_sender()
        except Exception as exc:  # noqa: BLE001  # whatever it is, this keeper is of no more use
            self._deleted = True
            self._not_started(control, packet, exc)
            return
        self._starting = True
        self.children = Children(self.loop)
        try:
            self.mounted = foreign.prepare(self.spec, self.config, self.bundle)
            self._create(control, packet, launch)
        except Exception as exc:  # noqa: BLE001  # whatever it is, this keeper is of no more use
            self._fail(control, packet, exc)

    def _create(self, control: Control, packet: Packet, launch: Foreign) -> None:
        process = self.spec["process"]
        pid_file = os.path.join(self.bundle, "init.pid")

        def created(console: ConsoleSocket | None, problem: str) -> None:
            try:
                _check("create", problem)
                launch.found(_read_pid(pid_file))
                if console is not None:
                    _take_terminal(launch, console, process)
                self.children.adopt(launch.pid, self._ended_with)
                self._run(["start", self.config["id"]], started)
            except Exception as exc:  # noqa: BLE001  # as at any other step of a start
                self._fail(control, packet, exc)

        def started(problem: str) -> None:
            if problem:
                self._fail(control, packet, _failed("start", problem))
            else:
                self._runs(control, packet, launch)

        self._run_with_stdio(
            ["create", "--bundle", self.bundle, "--pid-file", pid_file],
            self.config["id"], process, launch,
            stdin_open=self.config["stdin_open"], then=created,
        )  # fmt: skip

    def _runs(self, control: Control, packet: Packet, launch: Foreign) -> None:
        self._starting = False
        self._run_begins()
        self.streams.open(launch.stdio)
        self._watch_oom()
        control.send(self._started(packet, launch.pid))
        if self._early_end is not None:
            self._over(self._early_end)

    def _fail(self, control: Control, packet: Packet, exc: Exception) -> None:
        """Take away what came of a start, and then tell of its failure."""
        self._starting = False
        assert self.launch is not None
        self.launch.abandon()
        foreign.unmount(self.mounted)
        self._delete(lambda: self._not_started(control, packet, exc))

    def _ended_with(self, status: int) -> None:
        """The container's first process has ended; that may be before its start is answered."""
        if self.status == "running":
            foreign.unmount(self.mounted)
            self._over(status)
        else:
            self._early_end = status

    def _clear_away(self) -> None:
        assert isinstance(self.launch, Foreign)
        self.launch.let_go()
        foreign.unmount(self.mounted)
        self._delete(super()._clear_away)

    def _delete(self, then: Callable[[], None]) -> None:
        def deleted(_problem: str) -> None:
            # A problem is nothing to us: pierd tries again while the file is there.
            if not os.path.exists(os.path.join(self.runtime["root"], self.config["id"])):
                with contextlib.suppress(OSError):
                    os.unlink(os.path.join(self.bundle, protocol.RUNTIME_FILE))
            self._deleted = True
            then()
            if self._drained:
                super(Monitor, self)._stop()

        try:
            pid = self._run(["delete", "--force", self.config["id"]], deleted)
        except (OSError, StartFailed):
            deleted("")
        else:
            self.loop.call_later(DELETE_TIMEOUT_S, lambda: self.children.kill(pid))

    def _stop(self) -> None:
        self._drained = True
        if self._deleted:
            super()._stop()

    def _reap(self, pid: int) -> int:
        return self.children.reap(pid)

    def _run_hooks(self, kind: str, pid: int) -> None:
        """They are the runtime's to run."""

    def farewell(self, control: Control) -> None:
        """The end of the connection says that nothing is left: that may have to wait."""
        if self.status == "stopped" and not self._deleted:
            self.loop.forget(control.sock.fileno())
        else:
            super().farewell(control)

    def control_lost(self) -> None:
        """A pierd is gone: what is being created is its successor's to find, or to clear away."""
        if not self._starting:
            super().control_lost()

    # Execs

    def _exec(self, control: Control, packet: Packet, fds: list[int]) -> None:
        if self.launch is None or self.status != "running":
            raise ValueError("the container is not running")
        entry = self._new_exec(packet)
        if fds:
            entry.streams.attach(socket.socket(fileno=fds.pop()), **attachment(packet))
        try:
            self._start_exec(control, packet, entry)
        except Exception as exc:  # noqa: BLE001  # the client waits for the end, whatever it is
            self._exec_failed(control, packet, entry, exc)

    def _new_exec(self, packet: Packet) -> ExecProcess:
        exec_id = packet["exec"]
        streams = Streams(
            self.loop,
            None,
            terminal=packet["config"]["process"].get("terminal", False),
            close_stdin=True,
            on_detach=lambda: self._tell({"ev": "detach", "exec": exec_id}),
        )
        entry = ExecProcess(exec_id, Foreign(), streams, packet.get("about", {}))
        self.execs[exec_id] = entry
        return entry

    def _start_exec(self, control: Control, packet: Packet, entry: ExecProcess) -> None:
        config, launch = packet["config"], entry.launch
        assert isinstance(launch, Foreign)
        assert self.launch is not None
        process: Process = config["process"]
        root_fd = os.open(f"/proc/{self.launch.pid}/root", os.O_PATH | os.O_CLOEXEC)
        try:
            foreign.set_user(process, config["user"], config["groups"], root_fd)
        finally:
            os.close(root_fd)
        self._number += 1
        process_file = os.path.join(self.bundle, f"exec-{self._number}.json")
        pid_file = os.path.join(self.bundle, f"exec-{self._number}.pid")
        with open(process_file, "w", encoding="utf-8") as file:
            json.dump(process, file)

        def done(console: ConsoleSocket | None, problem: str) -> None:
            try:
                _check("exec", problem)
                launch.found(_read_pid(pid_file))
                if console is not None:
                    _take_terminal(launch, console, process)
                self._exec_runs(control, packet, entry)
            except Exception as exc:  # noqa: BLE001  # as above
                self._exec_failed(control, packet, entry, exc)
            finally:
                _remove(process_file, pid_file)

        self._run_with_stdio(
            ["exec", "--process", process_file, "--detach", "--pid-file", pid_file],
            self.config["id"], process, launch, stdin_open=config["stdin_open"], then=done,
        )  # fmt: skip

    def _exec_runs(self, control: Control, packet: Packet, entry: ExecProcess) -> None:
        launch = entry.launch
        self.children.adopt(launch.pid, lambda status: self._exec_ended_with(entry, status))
        entry.running = True
        entry.streams.open(launch.stdio)
        control.send({"re": packet.get("seq"), "pid": launch.pid})

    def _exec_ended_with(self, entry: ExecProcess, status: int) -> None:
        if entry.id in self.execs:
            assert isinstance(entry.launch, Foreign)
            entry.launch.let_go()
            del self.execs[entry.id]
            code = status_code(status)
            self._tell({"ev": "exec-exit", "exec": entry.id, "code": code})
            entry.streams.end(nothing)

    def _exec_ended(self, entry: ExecProcess) -> None:
        self._exec_ended_with(entry, self._reap(entry.launch.pid))

    def _exec_failed(
        self, control: Control, packet: Packet, entry: ExecProcess, exc: Exception
    ) -> None:
        self.execs.pop(entry.id, None)
        entry.launch.abandon()
        self._exec_not_started(control, {**packet, "failure_text": "{}"}, entry.streams, exc)

    # Requests that are commands

    def _kill(self, control: Control, packet: Packet, fds: list[int]) -> Packet | None:
        if packet.get("exec") or self.launch is None or self.status != "running":
            return super()._kill(control, packet, fds)
        args = ["kill", self.config["id"], str(packet["signal"])]
        pidfd = self.launch.pidfd
        # Which thaws what was paused, and leaves nothing to resume.
        self._killed = self._killed or packet["signal"] == signal.SIGKILL

        def killed(problem: str) -> None:
            answer: Packet = {}
            if packet["signal"] == signal.SIGKILL and self.status == "running":
                # Whatever the runtime thinks of it; nor may a frozen one stay.
                with contextlib.suppress(OSError):
                    signal.pidfd_send_signal(pidfd, signal.SIGKILL)
                if self.paused:
                    self.cgroup.thaw()
            elif problem:
                answer = {"error": protocol.failure("kill", _failed("kill", problem))}
            control.send({"re": packet.get("seq"), **answer})

        self._run(args, killed)
        return None

    def _pause(self, control: Control, packet: Packet, fds: list[int]) -> None:
        self._freeze(control, packet, "pause", paused=True)

    def _resume(self, control: Control, packet: Packet, fds: list[int]) -> None:
        self._freeze(control, packet, "resume", paused=False)

    def _freeze(self, control: Control, packet: Packet, command: str, *, paused: bool) -> None:
        def done(problem: str) -> None:
            if problem and not (command == "resume" and self._killed):
                error = {"error": protocol.failure(command, _failed(command, problem))}
                control.send({"re": packet.get("seq"), **error})
                return
            self.paused = paused
            control.send({"re": packet.get("seq")})

        self._run([command, self.config["id"]], done)

    # The command line

    def _run(self, words: list[str], then: Callable[[str], None]) -> int:
        """Run a command that says nothing; `then` gets why it failed, "" when it did not."""
        null_fd = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
        try:
            return self._spawn(words, (null_fd, null_fd, null_fd), then)
        finally:
            os.close(null_fd)

    def _run_with_stdio(
        self, words: list[str], last: str, process: Process, launch: Foreign, *,
        stdin_open: bool, then: Callable[[ConsoleSocket | None, str], None],
    ) -> None:  # fmt: skip
        """Run `create` or `exec`, whose stdio or terminal is the process's own."""
        theirs, launch.stdio = make_stdio(process, stdin_open=stdin_open, devpts_fd=None)
        if theirs is None:
            self._number += 1
            console = ConsoleSocket(self.bundle, f"console-{self._number}.sock")

            def done(problem: str) -> None:
                try:
                    then(console, problem)
                finally:
                    console.close()

            try:
                self._run([*words, "--console-socket", console.path, last], done)
            except BaseException:
                console.close()
                raise
            return
        try:
            self._spawn([*words, last], theirs, lambda problem: then(None, problem), launch)
        finally:
            for fd in theirs:
                os.close(fd)

    def _spawn(
        self,
        words: list[str],
        stdio: Stdio3,
        then: Callable[[str], None],
        launch: Foreign | None = None,
    ) -> int:
        """Run a command; the output of `launch` says more of its failure where the log is silent."""
        self._number += 1
        runtime = self.runtime
        log = os.path.join(self.bundle, f"log-{self._number}.json")
        args = [runtime["path"], *runtime["args"], "--root", runtime["root"], "--log", log]

        def ended(status: int) -> None:
            problem = ""
            if status != 0:
                said = launch.stdio.stderr if launch is not None else -1
                problem = failure_text(log, runtime["path"], status, said)
            _remove(log)
            then(problem)

        try:
            return self.children.spawn([*args, "--log-format", "json", *words], stdio, ended)
        except OSError as exc:
            raise _failed(words[0], _not_executed(runtime["path"], log, exc)) from exc


def _failed(command: str, problem: str) -> StartFailed:
    return StartFailed(FAILED.format(command, problem), step=f"oci-{command}")


def _check(command: str, problem: str) -> None:
    if problem:
        raise _failed(command, problem)


def _take_terminal(launch: Foreign, console: ConsoleSocket, process: Process) -> None:
    launch.stdio.master = console.receive()
    size = process.get("consoleSize")
    if size and size["height"]:
        set_window_size(launch.stdio.master, size["height"], size["width"])


def _not_executed(path: str, log: str, exc: OSError) -> str:
    """Say why the runtime cannot be run, in the words of containerd and of Go's os/exec."""
    if "/" not in path and exc.errno == 2:
        why = f'exec: "{path}": executable file not found in $PATH'
    else:
        why = f"fork/exec {path}: {os.strerror(exc.errno or 0).lower()}"
    return f"unable to retrieve OCI runtime error (open {log}: no such file or directory): {why}"


def _read_pid(path: str) -> int:
    with open(path, encoding="ascii") as file:
        return int(file.read())


def _remove(*paths: str) -> None:
    for path in paths:
        with contextlib.suppress(OSError):
            os.unlink(path)
