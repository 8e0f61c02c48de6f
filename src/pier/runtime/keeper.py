"""The keeper: one small process per container, which starts it, holds its stdio and sees it end.

It is a fork of the zygote. It serves pierd's requests (`protocol`), over the channel that it was
born with and over keeper.sock for a pierd that was started later, and outlives every pierd. When
the container's first process has ended it

    drains stdio into the log and to the clients
    writes exit.json (a temporary file, then rename)
    removes the cgroup
    tells pierd, and closes its connections: the container is over, a new start may come
    stays only as long as a client is still reading

exit.json is not synced to disk: it lies below the exec-root, which no container outlives, since
both end with the machine; a rename is what a killed process cannot tear.
"""

from __future__ import annotations

import os
import time

from pier.errors import StartFailed
from pier.kernel.cgroups import Cgroup, Hierarchies
from pier.kernel.lean import accept, json, signal, socket, suppress
from pier.kernel.process import status_code
from pier.kernel.pty import set_window_size
from pier.runtime import protocol
from pier.runtime.attach import STDOUT
from pier.runtime.bundle import read_json
from pier.runtime.jsonlog import JsonLog
from pier.runtime.launch import Launch, launch_exec, launch_init
from pier.runtime.loop import EPOLLIN, Loop
from pier.runtime.process import unmarked
from pier.runtime.protocol import Packet
from pier.runtime.ready import Ready
from pier.runtime.streams import Streams
from pier.runtime.witnesses import Witnesses

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any

    from pier.runtime.marks import Marks
    from pier.runtime.spec import KeeperConfig, Spec

    Handler = Callable[["Control", Packet, list[int]], Packet | None]

MISSED_EXECS = 100


class Control:
    """A connection to pierd."""

    def __init__(self, keeper: Keeper, sock: socket.socket) -> None:
        self._keeper = keeper
        self.sock = sock
        sock.setblocking(False)
        keeper.loop.watch(sock.fileno(), EPOLLIN, self._ready)

    def send(self, packet: Packet) -> None:
        """Send, or give the connection up: a pierd that does not read is taken for dead."""
        try:
            protocol.send(self.sock, packet)
        except OSError as exc:
            # A container makes as many of these as it likes: they must not cost us our pierd.
            if not (isinstance(exc, BlockingIOError) and packet.get("ev") == "oom"):
                self.close()

    def close(self) -> None:
        """Close the connection; the container does not mind."""
        if self in self._keeper.controls:
            self._keeper.controls.remove(self)
            self._keeper.loop.forget(self.sock.fileno())
            self.sock.close()
            self._keeper.control_lost()

    def _ready(self, _events: int) -> None:
        try:
            received = protocol.receive(self.sock)
        except BlockingIOError:
            return
        except (OSError, ValueError):
            received = None
        if received is None:
            self._keeper.farewell(self)
        else:
            self._keeper.serve(self, *received)


class ExecProcess:
    """An exec that was asked for: starting, then running."""

    def __init__(
        self, exec_id: str, launch: Launch, streams: Streams, about: dict[str, Any]
    ) -> None:
        self.id = exec_id
        self.launch = launch
        self.streams = streams
        self.about = about
        self.running = False

    def told(self, code: int | None = None) -> dict[str, Any]:
        """What a pierd that was started later is told of it."""
        return {"pid": self.launch.pid, "code": code, "about": self.about}


class Keeper:
    """The state of one keeper. `bundle` is the directory with config.json and keeper.json."""

    def __init__(self, bundle: str, hierarchies: Hierarchies, ready: Ready) -> None:
        self.bundle = bundle
        self.hierarchies = hierarchies
        self.ready = ready
        self.spec: Spec = read_json(bundle, "config.json")
        self.config: KeeperConfig = read_json(bundle, "keeper.json")
        self.marks: Marks | None = None
        self.marks_inside: Marks | None = None
        if self.config.get("trace"):
            began = time.monotonic_ns()
            from pier.runtime.marks import Marks  # noqa: PLC0415  # rare, as hooks are

            self.marks, self.marks_inside = Marks(), Marks()
            self.marks("trace is set up", began)
        self.mark = self.marks or unmarked
        self.mark("keeper is made")
        self.loop = Loop()
        self.controls: list[Control] = []
        self.witnesses = Witnesses(self.loop)
        self.cgroup = Cgroup(hierarchies, self.config["cgroup"])
        self.terminal = self.spec["process"].get("terminal", False)
        self.streams = Streams(
            self.loop,
            self._open_log(),
            terminal=self.terminal,
            close_stdin=self.config["stdin_once"],
            on_detach=lambda: self._tell({"ev": "detach", "exec": None}),
        )
        self.execs: dict[str, ExecProcess] = {}
        # Those that ended while there was no pierd, for the next one: their clients ask it.
        self.missed_execs: dict[str, dict[str, Any]] = {}
        self.launch: Launch | None = None
        self.listener: socket.socket | None = None
        self.oom_fd = -1
        self.oom_told = False
        self.oom_kills_told = 0
        self.paused = False
        self.status = "created"
        self.started_at = 0
        self._handlers: dict[str, Handler] = {
            "attach": self._attach,
            "start": self._start,
            "exec": self._exec,
            "resize": self._resize,
            "kill": self._kill,
            "pause": self._pause,
            "resume": self._resume,
            "update": self._update,
            "state": self._state,
            "witness": self._witness,
        }

    def run(self, channel: socket.socket) -> None:
        """Serve until the container is over and every client has read its output."""
        self.controls.append(Control(self, channel))
        self.mark("waits for requests")
        self.loop.run()

    # Requests

    def serve(self, control: Control, packet: Packet, fds: list[int]) -> None:
        """Carry out one request and answer it; a start or exec answers when it has happened."""
        answer: Packet | None
        try:
            handler = self._handlers.get(packet.get("op", ""))
            answer = (handler or _unknown)(control, packet, fds)
        except Exception as exc:  # noqa: BLE001  # a bad request must not end the container
            answer = {"error": protocol.failure(str(packet.get("op")), exc)}
            for fd in fds:
                os.close(fd)
        if answer is not None:
            control.send({"re": packet.get("seq"), **answer})

    def _attach(self, control: Control, packet: Packet, fds: list[int]) -> Packet:
        streams = self.streams
        streams.attach(socket.socket(fileno=fds.pop()), **attachment(packet))
        return {}

    def _start(self, control: Control, packet: Packet, fds: list[int]) -> None:
        if self.launch is not None:
            raise ValueError("started already")
        self.mark("socket")
        self._listen()
        try:
            self._open_sender()
            launch = launch_init(
                self.spec,
                self.config,
                self.bundle,
                self.cgroup,
                self.hierarchies,
                ready=self.ready,
                mark=self.mark,
                marks_inside=self.marks_inside,
            )
        except Exception as exc:  # noqa: BLE001  # whatever it is, this keeper is of no more use
            self._not_started(control, packet, exc)
            return
        self.launch = launch
        self.loop.watch(
            launch.sync.fileno(), EPOLLIN, lambda _events: self._init_said(control, packet)
        )

    def _init_said(self, control: Control, packet: Packet) -> None:
        launch = self.launch
        assert launch is not None
        sync_fd = launch.sync.fileno()
        try:
            if not launch.listen():
                return
        except StartFailed as exc:
            self.loop.forget(sync_fd)
            launch.abandon()
            self._not_started(control, packet, exc)
            return
        self.mark("executed: streams")
        self.loop.forget(sync_fd)
        launch.sync.close()
        self._run_begins()
        self.streams.open(launch.stdio)
        self.loop.watch(launch.pidfd, EPOLLIN, self._init_ended)
        self._watch_oom()
        try:
            self._run_hooks("poststart", launch.pid)
        except StartFailed as exc:
            signal.pidfd_send_signal(launch.pidfd, signal.SIGKILL)
            control.send({"re": packet.get("seq"), "error": protocol.failure("hook", exc)})
            return
        self.mark("runs")
        control.send(self._started(packet, launch.pid) | self._traced())

    def _run_begins(self) -> None:
        """From now on the container runs. Its end has a later time, whenever pierd hears of it."""
        self.status = "running"
        self.started_at = time.time_ns()

    def _started(self, packet: Packet, pid: int) -> Packet:
        return {"re": packet.get("seq"), "pid": pid, "at": self.started_at}

    def _run_hooks(self, kind: str, pid: int) -> None:
        """Run the hooks of a kind, if there are any. Raises StartFailed; after the stop, complains."""
        listed = self.spec.get("hooks")
        if not listed:
            return
        from pier.runtime import hooks  # noqa: PLC0415  # rare, and the zygote's memory is every keeper's

        state = hooks.state(self.spec, self.config["id"], self.bundle, pid=pid, status=self.status)
        if kind != "poststop":
            hooks.run(listed, kind, state, cwd=self.bundle)
            return
        for failure in hooks.run_all(listed, kind, state, cwd=self.bundle):
            complain(failure)

    def _not_started(self, control: Control, packet: Packet, exc: Exception) -> None:
        self.status = "stopped"
        self._remove_cgroup()
        self._run_hooks("poststop", 0)
        error = protocol.failure("start", exc)
        control.send({"re": packet.get("seq"), "error": error, **self._traced()})
        self.streams.end(self._stop)
        self._close_controls()

    def _exec(self, control: Control, packet: Packet, fds: list[int]) -> None:
        launch = self.launch
        if launch is None or self.status != "running":
            raise ValueError("the container is not running")
        config = packet["config"]
        exec_id = packet["exec"]
        streams = Streams(
            self.loop,
            None,
            terminal=config["process"].get("terminal", False),
            close_stdin=True,
            on_detach=lambda: self._tell({"ev": "detach", "exec": exec_id}),
        )
        if fds:
            streams.attach(socket.socket(fileno=fds.pop()), **attachment(packet))
        linux = self.spec.get("linux", {})
        namespaces = linux.get("namespaces", [])
        try:
            started = launch_exec(
                config,
                launch.pidfd,
                self.cgroup,
                self.hierarchies,
                launch.devpts_fd,
                own_user_namespace=any(entry["type"] == "user" for entry in namespaces),
                linux=linux,
            )
        except Exception as exc:  # noqa: BLE001  # the client waits for the end, whatever it is
            self._exec_not_started(control, packet, streams, exc)
            return
        entry = ExecProcess(exec_id, started, streams, packet.get("about", {}))
        self.execs[exec_id] = entry
        self.loop.watch(
            started.sync.fileno(), EPOLLIN, lambda _events: self._exec_said(control, packet, entry)
        )

    def _exec_said(self, control: Control, packet: Packet, entry: ExecProcess) -> None:
        launch = entry.launch
        sync_fd = launch.sync.fileno()
        try:
            if not launch.listen():
                return
        except StartFailed as exc:
            self.loop.forget(sync_fd)
            launch.abandon()
            del self.execs[entry.id]
            self._exec_not_started(control, packet, entry.streams, exc)
            return
        self.loop.forget(sync_fd)
        launch.sync.close()
        entry.running = True
        entry.streams.open(launch.stdio)
        self.loop.watch(launch.pidfd, EPOLLIN, lambda _events: self._exec_ended(entry))
        control.send({"re": packet.get("seq"), "pid": launch.pid})

    def _exec_not_started(
        self, control: Control, packet: Packet, streams: Streams, exc: Exception
    ) -> None:
        # pierd must know the exit code before the client, who asks for it, sees the end.
        control.send({"re": packet.get("seq"), "error": protocol.failure("exec", exc)})
        text = packet.get("failure_text", "{}").replace("{}", str(exc))
        streams.say(STDOUT, text.encode() + b"\r\n")
        streams.end(nothing)

    def _resize(self, control: Control, packet: Packet, fds: list[int]) -> Packet:
        exec_id = packet.get("exec")
        if exec_id and not self.execs[exec_id].running:
            # Its terminal is there already, and clients do not ask twice.
            master_fd = self.execs[exec_id].launch.stdio.master
        else:
            master_fd = (self.execs[exec_id].streams if exec_id else self.streams).master_fd
        if master_fd >= 0:
            set_window_size(master_fd, packet["height"], packet["width"])
        return {}

    def _kill(self, control: Control, packet: Packet, fds: list[int]) -> Packet | None:
        if self.launch is None or self.status != "running":
            raise ProcessLookupError(3, "the container is not running")
        if exec_id := packet.get("exec"):
            # A session leader of its own; not reaped yet, or it would be no entry any more.
            os.killpg(self.execs[exec_id].launch.pid, packet["signal"])
            return {}
        signal.pidfd_send_signal(self.launch.pidfd, packet["signal"])
        if self.paused and packet["signal"] == signal.SIGKILL:
            # A frozen process of cgroup v1 takes no signal, not even this one.
            self.cgroup.thaw()
        return {}

    def _pause(self, control: Control, packet: Packet, fds: list[int]) -> Packet | None:
        self.cgroup.freeze()
        self.paused = True
        return {}

    def _resume(self, control: Control, packet: Packet, fds: list[int]) -> Packet | None:
        self.cgroup.thaw()
        self.paused = False
        return {}

    def _update(self, control: Control, packet: Packet, fds: list[int]) -> Packet:
        self.cgroup.update(packet["resources"])
        return {}

    def _state(self, control: Control, packet: Packet, fds: list[int]) -> Packet:
        return {
            "pid": self.launch.pid if self.launch else 0,
            "at": self.started_at,
            "status": "paused" if self.paused else self.status,
            "execs": {
                **self.missed_execs,
                **{entry.id: entry.told() for entry in self.execs.values() if entry.running},
            },
        }

    def _witness(self, control: Control, packet: Packet, fds: list[int]) -> Packet:
        self.witnesses.add(fds.pop())
        return {}

    # What happens on its own

    def _reap(self, pid: int) -> int:
        """Wait for a child that has ended or is about to; return its wait status."""
        return os.waitpid(pid, 0)[1]

    def _exec_ended(self, entry: ExecProcess) -> None:
        launch = entry.launch
        self.loop.forget(launch.pidfd)
        status = self._reap(launch.pid)
        os.close(launch.pidfd)
        del self.execs[entry.id]
        code = status_code(status)
        if not self.controls and len(self.missed_execs) < MISSED_EXECS:
            self.missed_execs[entry.id] = entry.told(code)
        self._tell({"ev": "exec-exit", "exec": entry.id, "code": code})
        entry.streams.end(nothing)

    def _init_ended(self, _events: int) -> None:
        launch = self.launch
        assert launch is not None
        self.loop.forget(launch.pidfd)
        self._over(self._reap(launch.pid))

    def _over(self, status: int) -> None:
        """The container's first process has ended, with this wait status."""
        at = time.time_ns()
        self.mark("reaped")
        self.status = "stopped"
        if self.paused or self._shares_pid_namespace():
            # Others may live on where the container had no pid namespace of its own.
            try:
                self.cgroup.kill()
            except OSError as exc:
                # Asleep in the kernel: pierd tries again when it cleans up.
                complain(exc)
        for entry in list(self.execs.values()):
            if entry.running:
                self._exec_ended(entry)
            else:
                entry.launch.abandon()
        oom = self.cgroup.oom_kills() > 0
        if oom and not self.oom_told:
            # The end was noticed before the notice of its cause.
            self._tell({"ev": "oom"})
        record = {"code": status_code(status), "oom": oom, "at": at}
        self._record(record)
        self._stop_watching_oom()
        self.streams.end(self._stop)
        self.mark("removes the cgroup")
        self._tell({"ev": "exit", **record, **self._traced()})
        self._clear_away()

    def _traced(self) -> dict[str, list[tuple[int, str]]]:
        """The marks of a traced start, for the trace that pierd keeps."""
        if self.marks is None or self.marks_inside is None:
            return {}
        return {"marks": self.marks.read(), "marks_inside": self.marks_inside.read()}

    def _clear_away(self) -> None:
        """Everybody knows of the end: remove what is left, and let a new start come."""
        if self.launch is not None and self.launch.mounts_fd >= 0:
            os.close(self.launch.mounts_fd)
            self.launch.mounts_fd = -1
        self._remove_cgroup()
        self._run_hooks("poststop", 0)
        self._close_controls()

    def _remove_cgroup(self) -> None:
        try:
            self.cgroup.remove()
        except OSError as exc:
            # pierd tries again when it cleans up; clients have still output to read from us.
            complain(exc)

    def _shares_pid_namespace(self) -> bool:
        namespaces = self.spec.get("linux", {}).get("namespaces", [])
        return not any(e["type"] == "pid" and not e.get("path") for e in namespaces)

    def _record(self, record: Mapping[str, object]) -> None:
        path = os.path.join(self.bundle, "exit.json")
        try:
            fd = os.open(path + ".tmp", os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
            try:
                os.write(fd, json.dumps(record).encode())
            finally:
                os.close(fd)
            os.rename(path + ".tmp", path)
        except OSError:
            # The disk is full: pierd, if it listens, is told all the same.
            return

    def _watch_oom(self) -> None:
        try:
            self.oom_fd = self.cgroup.oom_event_fd()
        except OSError:
            # No memory controller on this machine: then nothing in it is OOM-killed either.
            return
        self.loop.watch(self.oom_fd, EPOLLIN, self._oom)

    def _oom(self, _events: int) -> None:
        with suppress(BlockingIOError):
            os.read(self.oom_fd, 4096)
        kills = self.cgroup.oom_kills()
        # memory.events of cgroup v2 changes for other reasons too.
        if kills > self.oom_kills_told or self.cgroup.oom_events_are_true():
            self.oom_kills_told = kills
            self.oom_told = True
            self._tell({"ev": "oom"})

    def _stop_watching_oom(self) -> None:
        if self.oom_fd >= 0:
            self.loop.forget(self.oom_fd)
            os.close(self.oom_fd)
            self.oom_fd = -1

    # Connections

    def farewell(self, control: Control) -> None:
        """A pierd asks for nothing more, or is gone."""
        control.close()

    def control_lost(self) -> None:
        """A pierd is gone; before a start that is the end of this keeper too."""
        if not self.controls and self.launch is None:
            self.loop.running = False

    def _tell(self, packet: Packet) -> None:
        for control in list(self.controls):
            control.send(packet)

    def _listen(self) -> None:
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC)
        directory_fd = os.open(self.bundle, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            # Through the descriptor: the path itself may be longer than the 107 bytes of sun_path.
            listener.bind(f"/proc/self/fd/{directory_fd}/keeper.sock")
        finally:
            os.close(directory_fd)
        listener.listen(4)
        listener.setblocking(False)
        self.listener = listener
        self.loop.watch(listener.fileno(), EPOLLIN, self._accept)

    def _accept(self, _events: int) -> None:
        assert self.listener is not None
        try:
            sock = accept(self.listener)
        except OSError:
            return
        self.controls.append(Control(self, sock))

    def _close_controls(self) -> None:
        if self.listener is not None:
            self.loop.forget(self.listener.fileno())
            self.listener.close()
            self.listener = None
        for control in list(self.controls):
            control.close()
        self.witnesses.close()

    def _stop(self) -> None:
        self.loop.running = False

    def _open_log(self) -> JsonLog | None:
        log = self.config["log"]
        if not log["path"]:
            return None
        return JsonLog(
            log["path"],
            log["max_size"],
            log["max_file"],
            compress=log["compress"],
            attributes=log["attributes"],
        )

    def _open_sender(self) -> None:
        """Start what sends the log elsewhere, if it goes there. Raises StartFailed."""
        remote = self.config["log"]["remote"]
        if remote is None:
            return
        from pier.runtime import log_sender  # noqa: PLC0415  # rare, as hooks are

        self.streams.attach_sender(
            log_sender.start(remote),
            max_buffer=remote["max_buffer"],
            blocking=remote["blocking"],
        )


def make_keeper(bundle: str, hierarchies: Hierarchies, ready: Ready) -> Keeper:
    """Return the keeper of a bundle: a monitor where another runtime is to run it."""
    if os.path.exists(os.path.join(bundle, protocol.RUNTIME_FILE)):
        from pier.runtime.monitor import Monitor  # noqa: PLC0415  # rare, and the zygote's memory is every keeper's

        return Monitor(bundle, hierarchies, ready)
    return Keeper(bundle, hierarchies, ready)


def _unknown(control: Control, packet: Packet, fds: list[int]) -> Packet:
    raise ValueError(f"unknown request {packet.get('op')!r}")


def attachment(packet: Packet) -> dict[str, Any]:
    return {
        "stdin": packet["stdin"],
        "stdout": packet["stdout"],
        "stderr": packet["stderr"],
        "detach_keys": packet["detach_keys"].encode("latin-1"),
        "pending": packet["pending"].encode("latin-1"),
        "frames": packet.get("frames"),
    }


def complain(exc: Exception | str) -> None:
    """Into pierd's log, which is our stderr."""
    with suppress(OSError):
        os.write(2, f"pier keeper {os.getpid()}: {exc}\n".encode())


def nothing() -> None:
    pass
