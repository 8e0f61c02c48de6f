"""pierd's side of the zygote and the keepers: requests, answers, and word of what happened.

`runtime/protocol.py` has the packets. A keeper's connection closes when its container is over, or
when the keeper was killed: `KeeperEvents.gone` either way, after everything else it had to say.
"""

import asyncio
import contextlib
import errno
import os
import shutil
import signal
import socket
import sys
from collections import deque
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

from msgspec import Struct, convert
from msgspec.json import Decoder

from pier.engine import foreign_runtimes
from pier.errors import Conflict, Internal, PierError, StartFailed, Unavailable
from pier.kernel.cgroups import Cgroup, Hierarchies, detect
from pier.runtime import protocol, zygote
from pier.runtime.protocol import Packet
from pier.runtime.spec import ExecConfig, Resources

REMOVE_ATTEMPTS = 5
# Keepers that are forked ahead, one after the other when nothing was started for a moment.
SPARES = 2
SPARE_DELAY_S = 0.02


class ExitRecord(Struct):
    """How a container ended: exit code (128+n for signal n), OOM kill, nanoseconds since 1970."""

    code: int
    oom: bool
    at: int


class KnownExec(Struct):
    """An exec as its keeper has it; `about` is what it was started with, `code` None while it runs."""

    pid: int
    code: int | None
    about: dict[str, Any]


class KeeperState(Struct):
    """`status` is created, running, paused or stopped; `execs` are those that run, and those that
    ended while nobody listened. `at` is when it began to run, in nanoseconds since the epoch; 0 when
    it did not, and from keepers of before this was told.
    """

    pid: int
    status: str
    execs: dict[str, "KnownExec"]
    at: int = 0


class Started(NamedTuple):
    """The first process of a run, and when it began, in nanoseconds since the epoch."""

    pid: int
    at: int


class KeeperEvents(Protocol):
    """What a keeper reports by itself."""

    def exited(self, record: ExitRecord) -> None: ...
    def exec_exited(self, exec_id: str, code: int) -> None: ...
    def oom(self) -> None: ...
    def detached(self, exec_id: str | None) -> None: ...
    def traced(self, packet: Packet) -> None: ...
    def gone(self) -> None: ...


class Peer:
    """One end of a packet socket on the event loop: requests with answers, and events."""

    def __init__(
        self, sock: socket.socket, on_event: Callable[[Packet], None], on_end: Callable[[], None]
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._sock = sock
        self._on_event = on_event
        self._on_end = on_end
        self._waiting: dict[int, asyncio.Future[Packet]] = {}
        self._seq = 0
        self.closed = False
        sock.setblocking(False)
        self._loop.add_reader(sock.fileno(), self._ready)

    async def request(self, packet: Packet, fds: tuple[int, ...] = ()) -> Packet:
        """Send a request and wait for its answer.

        Raises StartFailed for an answer with "error", Unavailable when the peer is gone.
        """
        future = self.request_nowait(packet, fds)
        return await future

    def request_nowait(self, packet: Packet, fds: tuple[int, ...] = ()) -> asyncio.Future[Packet]:
        """Send a request; the answer comes into the future. Raises as `request` at once."""
        self._seq += 1
        future: asyncio.Future[Packet] = self._loop.create_future()
        self.tell({**packet, "seq": self._seq}, fds)
        self._waiting[self._seq] = future
        return future

    def tell(self, packet: Packet, fds: tuple[int, ...] = ()) -> None:
        """Send what is not answered. Raises Unavailable when the peer is gone."""
        if self.closed:
            raise Unavailable("the keeper is gone")
        try:
            protocol.send(self._sock, packet, fds)
        except OSError as exc:
            raise Unavailable(f"the keeper does not answer: {exc}") from exc

    def finish(self) -> None:
        """Let the peer see the end of our requests; what it has to say still arrives."""
        if not self.closed:
            with contextlib.suppress(OSError):
                self._sock.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        """Close the socket; whoever waits for an answer gets Unavailable. Calls on_end once."""
        if self.closed:
            return
        self.closed = True
        self._loop.remove_reader(self._sock.fileno())
        self._sock.close()
        waiting, self._waiting = self._waiting, {}
        for future in waiting.values():
            if not future.done():
                future.set_exception(Unavailable("the keeper is gone"))
        self._on_end()

    def _ready(self) -> None:
        while not self.closed:
            try:
                received = protocol.receive(self._sock)
            except BlockingIOError:
                return
            except (OSError, ValueError):
                received = None
            if received is None:
                self.close()
                return
            packet, fds = received
            for fd in fds:
                os.close(fd)
            self._take(packet)

    def _take(self, packet: Packet) -> None:
        if "re" not in packet:
            self._on_event(packet)
            return
        future = self._waiting.pop(packet["re"], None)
        if future is None or future.done():
            return
        error = packet.get("error")
        if error is None:
            future.set_result(packet)
        else:
            future.set_exception(
                StartFailed(error["message"], step=error["step"], errno=error["errno"])
            )


class Keeper:
    """A live keeper. Methods raise Unavailable when it is gone."""

    def __init__(self, sock: socket.socket, events: KeeperEvents) -> None:
        self._events = events
        self._peer = Peer(sock, self._event, events.gone)

    async def attach(
        self, client_fd: int, *, stdin: bool, stdout: bool, stderr: bool,
        detach_keys: bytes, pending: bytes,
    ) -> None:  # fmt: skip
        """Hand a client's socket over; the caller's descriptor stays the caller's.

        Legal before `start`. `pending` is input that was read off the socket already.
        """
        await self.attach_nowait(
            client_fd, stdin=stdin, stdout=stdout, stderr=stderr, detach_keys=detach_keys,
            pending=pending,
        )  # fmt: skip

    def attach_nowait(
        self, client_fd: int, *, stdin: bool, stdout: bool, stderr: bool,
        detach_keys: bytes, pending: bytes,
    ) -> asyncio.Future[Packet]:  # fmt: skip
        """As `attach`; what is asked next comes after it, whether the answer was awaited or not."""
        packet = _attachment("attach", stdin, stdout, stderr, detach_keys, pending)
        return self._peer.request_nowait(packet, (client_fd,))

    async def start(self) -> Started:
        """Start the container. Raises StartFailed."""
        answer = await self._peer.request({"op": "start"})
        if "marks" in answer:
            self._events.traced(answer)
        return Started(int(answer["pid"]), int(answer["at"]))

    async def exec(  # noqa: PLR0913 - a client, and what it wants, has that many sides
        self, exec_id: str, config: ExecConfig, *, client_fd: int | None, stdout: bool,
        stderr: bool, detach_keys: bytes, pending: bytes, failure_text: str = "{}",
        about: dict[str, Any] | None = None, frames: bool = True,
    ) -> int:  # fmt: skip
        """Start a further process; returns its pid. Raises StartFailed.

        `frames`: whether the client gets its output in Docker's frames.

        A client that was handed over reads `failure_text`, with the reason in place of "{}". `about`
        is kept there for a later pierd.
        """
        stdin = config["stdin_open"] and client_fd is not None
        packet = _attachment("exec", stdin, stdout, stderr, detach_keys, pending)
        packet |= {"exec": exec_id, "config": config, "failure_text": failure_text}
        packet["about"] = about or {}
        packet["frames"] = frames
        fds = () if client_fd is None else (client_fd,)
        answer = await self._peer.request(packet, fds)
        return int(answer["pid"])

    async def resize(self, height: int, width: int, exec_id: str | None = None) -> None:
        """Set the size of the container's terminal, or of an exec's."""
        packet = {"op": "resize", "height": height, "width": width, "exec": exec_id}
        await self._ask(packet)

    async def kill(self, signal: int) -> None:
        """Signal the container's first process. Raises Conflict when it is gone."""
        try:
            await self._peer.request({"op": "kill", "signal": signal})
        except (StartFailed, Unavailable) as exc:
            raise Conflict("container is not running") from exc

    async def kill_exec(self, exec_id: str) -> None:
        """Send SIGKILL to an exec's process and its session; one that ended is fine."""
        packet = {"op": "kill", "signal": signal.SIGKILL, "exec": exec_id}
        with contextlib.suppress(StartFailed):
            await self._peer.request(packet)

    async def pause(self) -> None:
        """Freeze every process of the container."""
        await self._ask({"op": "pause"})

    async def resume(self) -> None:
        """Thaw them."""
        await self._ask({"op": "resume"})

    async def update(self, resources: Resources) -> None:
        """Change limits."""
        await self._ask({"op": "update", "resources": resources})

    async def state(self) -> KeeperState:
        """Ask how things are. Every event that happened before has been delivered by then."""
        answer = await self._ask({"op": "state"})
        return convert(answer, KeeperState)

    async def witness(self) -> int:
        """Return a descriptor, the caller's, that hangs up when the container is over.

        Raises StartFailed when the keeper is an older Pier's, which knows no such request.
        """
        read_fd, write_fd = os.pipe()
        try:
            await self._peer.request({"op": "witness"}, (write_fd,))
        except BaseException:
            os.close(read_fd)
            raise
        finally:
            os.close(write_fd)
        return read_fd

    async def bye(self) -> None:
        """Tell the keeper that nothing more will be asked; a container that runs goes on.

        `KeeperEvents.gone` follows when the keeper has closed its end, not before: until then it
        may still be removing the cgroup, which a new start would make under the same name.
        """
        self._peer.finish()

    async def _ask(self, packet: Packet) -> Packet:
        try:
            return await self._peer.request(packet)
        except StartFailed as exc:
            raise Internal(exc.message) from exc

    def _event(self, packet: Packet) -> None:
        match packet.get("ev"):
            case "exit":
                if "marks" in packet:
                    self._events.traced(packet)
                self._events.exited(ExitRecord(packet["code"], packet["oom"], packet["at"]))
            case "exec-exit":
                self._events.exec_exited(packet["exec"], packet["code"])
            case "oom":
                self._events.oom()
            case "detach":
                self._events.detached(packet["exec"])


class Keepers:
    """Makes keepers, finds those of an earlier pierd, and clears away after them."""

    def __init__(self, exec_root: str) -> None:
        self._directory = os.path.join(exec_root, "containers")
        self._hierarchies: Hierarchies = detect()
        self._exit_decoder = Decoder(ExitRecord)
        self._zygote: Peer | None = None
        # Channels of keepers that wait for a container.
        self._spares: deque[socket.socket] = deque()
        self._refilling: asyncio.TimerHandle | None = None
        self._zygote_pid = 0

    async def open(self) -> None:
        """Start the zygote."""
        os.makedirs(self._directory, mode=0o700, exist_ok=True)
        self._start_zygote()
        self._refill_later()

    async def close(self) -> None:
        """End the zygote and its spares. Keepers and containers go on."""
        if self._refilling is not None:
            self._refilling.cancel()
        while self._spares:
            self._spares.pop().close()
        if self._zygote is not None:
            self._zygote.close()

    @property
    def zygote_pid(self) -> int:
        """The zygote's pid, 0 when there is none."""
        return self._zygote_pid

    def bundle(self, container_id: str) -> str:
        """The directory of a container's bundle."""
        return os.path.join(self._directory, container_id)

    async def spawn(self, container_id: str, events: KeeperEvents) -> Keeper:
        """Make a keeper for a bundle that is written already.

        Does not wait for it: requests queue in its channel. If the zygote ends before it has forked
        one, the channel closes, and requests raise Unavailable.
        """
        packet = {"op": "keep", "bundle": self.bundle(container_id)}
        while True:
            is_spare = bool(self._spares)
            channel = self._spares.popleft() if is_spare else self._fork()
            try:
                protocol.send(channel, packet)
            except OSError:
                # A spare that was killed meanwhile has no end of the channel any more.
                channel.close()
                if not is_spare:
                    raise
            else:
                break
        self._refill_later()
        return Keeper(channel, events)

    def _fork(self) -> socket.socket:
        """Have a keeper forked, which waits for its bundle; return its channel."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            try:
                self._ask_zygote(theirs.fileno())
            except Unavailable:
                # It was killed between two starts: a new one serves as well.
                self._ask_zygote(theirs.fileno())
        except BaseException:
            ours.close()
            raise
        finally:
            theirs.close()
        return ours

    def _refill_later(self) -> None:
        """See to it that spares are there in a moment: forking takes longer than anything else."""
        if self._refilling is None and len(self._spares) < SPARES:
            loop = asyncio.get_running_loop()
            self._refilling = loop.call_later(SPARE_DELAY_S, self._refill)

    def _refill(self) -> None:
        self._refilling = None
        # Whoever starts a container without a spare tells of it.
        with contextlib.suppress(PierError, OSError):
            self._spares.append(self._fork())
            self._refill_later()

    async def reconnect(self, container_id: str, events: KeeperEvents) -> Keeper | None:
        """Find the keeper of a container that an earlier pierd started; None if there is none."""
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            directory_fd = os.open(self.bundle(container_id), os.O_PATH | os.O_DIRECTORY)
        except FileNotFoundError:
            sock.close()
            return None
        try:
            sock.connect(f"/proc/self/fd/{directory_fd}/keeper.sock")
        except OSError:
            sock.close()
            return None
        finally:
            os.close(directory_fd)
        return Keeper(sock, events)

    def exit_record(self, container_id: str) -> ExitRecord | None:
        """Read how a container ended, from its bundle; None if it left no word."""
        try:
            with open(os.path.join(self.bundle(container_id), "exit.json"), "rb") as file:
                return self._exit_decoder.decode(file.read())
        except (OSError, ValueError):
            return None

    def clean_nowait(self, container_id: str, cgroup: str) -> bool:
        """Clean, if the cgroup is gone already, as a keeper in good order leaves it.

        False when it is not: `clean` may have to wait for processes, and belongs in a thread.
        """
        if Cgroup(self._hierarchies, cgroup).exists():
            return False
        if foreign_runtimes.is_left(self.bundle(container_id)):
            return False
        self._remove_bundle(container_id)
        return True

    def clean(self, container_id: str, cgroup: str) -> None:
        """Kill what is left in a container's cgroup, remove it and the bundle. Idempotent.

        Blocks for as long as processes take to end: up to ten seconds for one that cannot.
        """
        foreign_runtimes.delete(container_id, self.bundle(container_id))
        group = Cgroup(self._hierarchies, cgroup)
        if group.pids():
            try:
                group.kill()
            except OSError as exc:
                # Its keeper may be removing it at this moment.
                if exc.errno not in (errno.ENOENT, errno.ENODEV):
                    raise
        group.remove()
        self._remove_bundle(container_id)

    def _remove_bundle(self, container_id: str) -> None:
        bundle = self.bundle(container_id)
        for _ in range(REMOVE_ATTEMPTS):
            # A keeper that lives on for a moment may put its exit.json where we just looked.
            shutil.rmtree(bundle, ignore_errors=True)
            if not os.path.lexists(bundle):
                return

    def _ask_zygote(self, fd: int) -> None:
        if self._zygote is None or self._zygote.closed:
            self._start_zygote()
        assert self._zygote is not None
        try:
            self._zygote.tell({"op": "fork"}, (fd,))
        except Unavailable:
            self._zygote.close()
            raise

    def _start_zygote(self) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            pid = zygote.spawn(theirs, sys.stderr.fileno())
        except BaseException:
            ours.close()
            raise
        finally:
            theirs.close()
        self._zygote_pid = pid
        # Its own pid, not whichever is current when it ends.
        self._zygote = Peer(ours, _ignore, lambda: self._zygote_ended(pid))

    def _zygote_ended(self, pid: int) -> None:
        """Reap the zygote, which ends with its socket."""
        if self._zygote_pid == pid:
            self._zygote_pid = 0
        pidfd = os.pidfd_open(pid)
        loop = asyncio.get_running_loop()

        def reap() -> None:
            loop.remove_reader(pidfd)
            os.close(pidfd)
            os.waitpid(pid, 0)

        try:
            loop.add_reader(pidfd, reap)
        except RuntimeError:
            signal.pidfd_send_signal(pidfd, signal.SIGKILL)
            os.waitpid(pid, 0)
            os.close(pidfd)


def _attachment(
    op: str, stdin: bool, stdout: bool, stderr: bool, detach_keys: bytes, pending: bytes
) -> Packet:
    return {
        "op": op,
        "stdin": stdin,
        "stdout": stdout,
        "stderr": stderr,
        "detach_keys": detach_keys.decode("latin-1"),
        "pending": pending.decode("latin-1"),
    }


def forget_failure(answer: asyncio.Future[Packet]) -> None:
    """The keeper's channel tells of the failure; this keeps asyncio from warning of it as well."""
    if not answer.cancelled():
        answer.exception()


def _ignore(_packet: dict[str, Any]) -> None:
    pass
