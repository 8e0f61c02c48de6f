"""Containers without an engine: bundles made by hand, driven through the real zygote and keepers.

    room = Room(directory)                 an exec-root and a data-root with one busybox layer
    box = room.container(["sh"], tty=True)     a bundle, written
    client = box.attach(); box.start(); box.wait()
    room.run(["id"]).stdout                all of it in one go
    room.close()

Synchronous on the outside: the loop runs only inside the calls, which is enough for packets that
wait in sockets.
"""

import asyncio
import io
import json
import os
import select
import shutil
import socket
import tarfile
import time
from collections.abc import Coroutine
from dataclasses import dataclass, field
from typing import Any, TypeVar

import busybox_image
from pier.engine.keepers import ExitRecord, Keeper, Keepers
from pier.errors import StartFailed
from pier.kernel.cgroups import Cgroup, detect

T = TypeVar("T")

# A number that no wait on this machine comes near: it ends a test that would hang.
PATIENCE_S = 20.0
CAPABILITIES = [
    "CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FSETID", "CAP_FOWNER", "CAP_MKNOD", "CAP_NET_RAW",
    "CAP_SETGID", "CAP_SETUID", "CAP_SETFCAP", "CAP_SETPCAP", "CAP_NET_BIND_SERVICE",
    "CAP_SYS_CHROOT", "CAP_KILL", "CAP_AUDIT_WRITE",
]  # fmt: skip
PLAIN = ["nosuid", "noexec", "nodev"]
PROC = {"destination": "/proc", "type": "proc", "source": "proc", "options": PLAIN}
DEV = {
    "destination": "/dev",
    "type": "tmpfs",
    "source": "tmpfs",
    "options": ["nosuid", "strictatime", "mode=755", "size=65536k"],
}
PTS = {
    "destination": "/dev/pts",
    "type": "devpts",
    "source": "devpts",
    "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"],
}
SYS = {"destination": "/sys", "type": "sysfs", "source": "sysfs", "options": [*PLAIN, "ro"]}
CGROUP = {
    "destination": "/sys/fs/cgroup",
    "type": "cgroup",
    "source": "cgroup",
    "options": [*PLAIN, "ro"],
}
MQUEUE = {"destination": "/dev/mqueue", "type": "mqueue", "source": "mqueue", "options": PLAIN}
SHM = {
    "destination": "/dev/shm",
    "type": "tmpfs",
    "source": "shm",
    "options": [*PLAIN, "mode=1777", "size=67108864"],
}
MOUNTS = [PROC, DEV, PTS, SYS, CGROUP, MQUEUE, SHM]
NAMESPACES = ("mount", "pid", "uts", "ipc", "network", "cgroup")
DETACH_KEYS = b"\x10\x11"


def process(args: list[str], *, tty: bool = False, **more: Any) -> dict[str, Any]:
    """An OCI process with Docker's default capabilities."""
    return {
        "terminal": tty,
        "args": args,
        "env": ["PATH=/bin", "FOO=bar"],
        "cwd": "/",
        "capabilities": dict.fromkeys(("bounding", "effective", "permitted"), CAPABILITIES),
        **more,
    }


@dataclass
class Result:
    code: int
    stdout: str
    stderr: str
    record: ExitRecord


@dataclass
class Heard:
    """What a keeper told: the events of `KeeperEvents`, collected."""

    record: ExitRecord | None = None
    exec_codes: dict[str, int] = field(default_factory=dict)
    ooms: int = 0
    detaches: list[str | None] = field(default_factory=list)
    is_gone: bool = False
    order: list[str] = field(default_factory=list)

    def exited(self, record: ExitRecord) -> None:
        self.record = record
        self.order.append("exit")

    def exec_exited(self, exec_id: str, code: int) -> None:
        self.exec_codes[exec_id] = code
        self.order.append("exec-exit")

    def oom(self) -> None:
        self.ooms += 1
        self.order.append("oom")

    def traced(self, packet: dict[str, Any]) -> None: ...

    def detached(self, exec_id: str | None) -> None:
        self.detaches.append(exec_id)
        self.order.append("detach")

    def gone(self) -> None:
        self.is_gone = True
        self.order.append("gone")


class Client:
    """The other end of an attached socket."""

    def __init__(self, sock: socket.socket, *, frames: bool) -> None:
        self.sock = sock
        self.frames = frames
        self._raw = b""
        sock.settimeout(PATIENCE_S)

    def send(self, data: bytes) -> None:
        self.sock.sendall(data)

    def end_input(self) -> None:
        self.sock.shutdown(socket.SHUT_WR)

    def read_all(self) -> bytes:
        """Everything up to the end, as it came."""
        while data := self.sock.recv(1 << 16):
            self._raw += data
        return self._raw

    def streams(self) -> tuple[bytes, bytes]:
        """Everything up to the end: (stdout, stderr)."""
        raw = self.read_all()
        if not self.frames:
            return raw, b""
        parts = {1: b"", 2: b""}
        while raw:
            size = int.from_bytes(raw[4:8], "big")
            assert raw[1:4] == b"\0\0\0", raw
            parts[raw[0]] += raw[8 : 8 + size]
            raw = raw[8 + size :]
        return parts[1], parts[2]

    def read_until(self, wanted: bytes) -> bytes:
        """Read until `wanted` was among what came; return everything so far."""
        while wanted not in self._raw:
            data = self.sock.recv(1 << 16)
            assert data, f"ended before {wanted!r}: {self._raw!r}"
            self._raw += data
        return self._raw

    def close(self) -> None:
        self.sock.close()


class Box:
    """One container."""

    def __init__(self, room: "Room", container_id: str, *, tty: bool) -> None:
        self.room = room
        self.id = container_id
        self.tty = tty
        self.heard = Heard()
        self.keeper: Keeper | None = None
        self.pid = 0
        self._clients: list[Client] = []

    @property
    def bundle(self) -> str:
        return self.room.keepers.bundle(self.id)

    @property
    def log_path(self) -> str:
        return f"{self.room.data}/containers/{self.id}/log"

    @property
    def upper(self) -> str:
        return f"{self.room.data}/containers/{self.id}/upper"

    def cgroup(self) -> Cgroup:
        return Cgroup(self.room.hierarchies, self.room.cgroup_path(self.id))

    def spawn(self) -> Keeper:
        if self.keeper is None:
            self.keeper = self.room.do(self.room.keepers.spawn(self.id, self.heard))
        return self.keeper

    def attach(
        self, *, stdin: bool = False, stdout: bool = True, stderr: bool = True,
        pending: bytes = b"", typed: bytes = b"",
    ) -> Client:  # fmt: skip
        """`typed` is on its way already when the keeper gets the socket."""
        keeper = self.spawn()
        ours, theirs = socket.socketpair()
        ours.sendall(typed)
        self.room.do(
            keeper.attach(
                theirs.fileno(), stdin=stdin, stdout=stdout, stderr=stderr,
                detach_keys=DETACH_KEYS, pending=pending,
            )
        )  # fmt: skip
        theirs.close()
        client = Client(ours, frames=not self.tty)
        self._clients.append(client)
        return client

    def start(self) -> int:
        self.pid = self.room.do(self.spawn().start()).pid
        return self.pid

    def exec(
        self, exec_id: str, args: list[str], *, tty: bool = False, user: str = "",
        stdin: bool = False, attached: bool = True, **more: Any,
    ) -> Client:  # fmt: skip
        """Raises StartFailed; its `client` attribute is the client then."""
        keeper = self.spawn()
        config: Any = {
            "process": process(args, tty=tty, **more),
            "user": user,
            "groups": [],
            "stdin_open": stdin,
            "seccomp_bpf": None,
        }
        ours, theirs = socket.socketpair()
        client = Client(ours, frames=not tty)
        self._clients.append(client)
        try:
            self.room.do(
                keeper.exec(
                    exec_id, config, client_fd=theirs.fileno() if attached else None,
                    stdout=True, stderr=True, detach_keys=DETACH_KEYS, pending=b"",
                    failure_text="no luck: {}",
                )
            )  # fmt: skip
        except StartFailed as exc:
            exc.client = client  # type: ignore[attr-defined]
            raise
        finally:
            theirs.close()
        return client

    def exec_code(self, exec_id: str) -> int:
        self.room.until(lambda: exec_id in self.heard.exec_codes)
        return self.heard.exec_codes[exec_id]

    def state(self) -> Any:
        return self.room.do(self.spawn().state())

    def kill(self, number: int = 9) -> None:
        self.room.do(self.spawn().kill(number))

    def wait(self) -> ExitRecord:
        self.room.until(lambda: self.heard.is_gone)
        record = self.heard.record or self.room.keepers.exit_record(self.id)
        assert record is not None, "the keeper went without a word"
        return record

    def wait_gone(self) -> None:
        self.room.until(lambda: self.heard.is_gone)

    def inside(self, path: str) -> str:
        """A path of the container's, as the host sees it through the first process."""
        return f"/proc/{self.pid}/root{path}"

    def clean(self) -> None:
        if self.keeper is not None:
            self.room.do(self.keeper.bye())
        for client in self._clients:
            client.close()
        self.room.keepers.clean(self.id, self.room.cgroup_path(self.id))
        shutil.rmtree(f"{self.room.data}/containers/{self.id}", ignore_errors=True)


class Room:
    """An exec-root and a data-root in `directory`, with their zygote."""

    def __init__(self, directory: str) -> None:
        self.exec_root = f"{directory}/run"
        self.data = f"{directory}/data"
        self.hierarchies = detect()
        self.parent = f"/pier-test-{os.getpid()}"
        self.boxes: list[Box] = []
        self.layers = ["base"]
        self._count = 0
        self._loop = asyncio.new_event_loop()
        os.makedirs(f"{self.data}/containers")
        self.add_layer("base")
        with tarfile.open(fileobj=io.BytesIO(busybox_image.root_tar())) as tar:
            tar.extractall(self.layer("base"), filter="fully_trusted")
        self.keepers = Keepers(self.exec_root)
        self.do(self.keepers.open())

    def layer(self, name: str) -> str:
        return f"{self.data}/layers/{name}/diff"

    def add_layer(self, name: str) -> str:
        os.makedirs(self.layer(name))
        return self.layer(name)

    def cgroup_path(self, container_id: str) -> str:
        return f"{self.parent}/{container_id}"

    def do(self, work: Coroutine[Any, Any, T]) -> T:
        return self._loop.run_until_complete(asyncio.wait_for(work, PATIENCE_S))

    def until(self, condition: Any) -> None:
        """Let events come in until `condition()` holds."""

        async def wait() -> None:
            deadline = time.monotonic() + PATIENCE_S
            while not condition():
                assert time.monotonic() < deadline, "waited in vain"
                await asyncio.sleep(0.002)

        self.do(wait())

    def container(
        self,
        args: list[str],
        *,
        tty: bool = False,
        user: str = "",
        groups: tuple[str, ...] = (),
        init: bool = False,
        stdin: bool = False,
        stdin_once: bool = True,
        mounts: list[dict[str, Any]] | None = None,
        more_mounts: tuple[dict[str, Any], ...] = (),
        namespaces: list[dict[str, Any]] | None = None,
        layers: list[str] | None = None,
        readonly: bool = False,
        hostname: str = "box",
        seccomp_bpf: str | None = None,
        log: dict[str, Any] | None = None,
        linux: dict[str, Any] | None = None,
        resources: dict[str, Any] | None = None,
        top: dict[str, Any] | None = None,
        **more: Any,
    ) -> Box:
        """Write a bundle. `more` goes into the process, `linux` and `top` over what is there."""
        self._count += 1
        box = Box(self, f"c{self._count:03}", tty=tty)
        self.boxes.append(box)
        own = f"containers/{box.id}"
        for path in (box.bundle, f"{self.data}/{own}/upper", f"{self.data}/{own}/work"):
            os.makedirs(path)
        spec = {
            "ociVersion": "1.2.0",
            "process": process(args, tty=tty, **more),
            "root": {"path": "rootfs", "readonly": readonly},
            "hostname": hostname,
            "mounts": [*(MOUNTS if mounts is None else mounts), *more_mounts],
            "linux": {
                "namespaces": namespaces or [{"type": kind} for kind in NAMESPACES],
                "maskedPaths": ["/proc/kcore", "/proc/acpi", "/proc/keys", "/sys/firmware"],
                "readonlyPaths": ["/proc/sys", "/proc/bus"],
                "resources": resources or {},
                **(linux or {}),
            },
            **(top or {}),
        }
        config = {
            "id": box.id,
            "overlay": {
                "base": self.data,
                "lower": [f"layers/{name}/diff" for name in layers or self.layers],
                "upper": f"{own}/upper",
                "work": f"{own}/work",
                "volatile": True,
            },
            "cgroup": self.cgroup_path(box.id),
            "user": user,
            "groups": list(groups),
            "stdin_open": stdin,
            "stdin_once": stdin_once,
            "log": {
                "path": box.log_path,
                "max_size": 0,
                "max_file": 1,
                "compress": False,
                "attributes": {},
                "remote": None,
                **(log or {}),
            },
            "seccomp_bpf": seccomp_bpf,
            "init": init,
        }
        for name, content in (("config", spec), ("keeper", config)):
            with open(f"{box.bundle}/{name}.json", "w") as file:
                json.dump(content, file)
        return box

    def started(self, args: list[str], **options: Any) -> Box:
        box = self.container(args, **options)
        box.start()
        return box

    def run(self, args: list[str], *, typed: bytes | None = None, **options: Any) -> Result:
        """Run a container to its end, attached. `typed` is its stdin."""
        box = self.container(args, stdin=typed is not None, **options)
        client = box.attach(stdin=typed is not None, typed=typed or b"")
        if typed is not None:
            client.end_input()
        box.start()
        stdout, stderr = client.streams()
        record = box.wait()
        box.clean()
        return Result(record.code, stdout.decode(), stderr.decode(), record)

    def sh(self, script: str, **options: Any) -> str:
        """Run a shell script; return its output, which must not end in failure."""
        result = self.run(["sh", "-c", script], **options)
        assert result.code == 0, result
        return result.stdout

    def close(self) -> None:
        """Everything away, whatever state it is in."""
        for box in self.boxes:
            box.clean()
        zygote_pid = self.keepers.zygote_pid
        self.do(self.keepers.close())
        if zygote_pid:
            self.until(lambda: not os.path.exists(f"/proc/{zygote_pid}"))
        self._loop.close()
        Cgroup(self.hierarchies, self.parent).remove()


def wait_ended(pid: int) -> None:
    """Wait until a process, not necessarily a child, has ended."""
    try:
        pidfd = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        assert select.select([pidfd], [], [], PATIENCE_S)[0], f"process {pid} lives on"
    finally:
        os.close(pidfd)


def keeper_pid(container_pid: int) -> int:
    """The keeper of a container: the parent of its first process."""
    with open(f"/proc/{container_pid}/stat") as file:
        return int(file.read().rpartition(")")[2].split()[1])
