"""Who is measured: Pier and dockerd through the same docker command, podman through its own.

All is started by `open_bench` and ended with it; what is absent is skipped, with a word on stderr.
"""

import http.client
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

from dockerd import Dockerd
from engines_room import EnginesRoom
from rows import DOCKERD, PIER, PODMAN

from busybox_image import NAME, docker_archive, root_tar
from engine_process import Client, EngineProcess

# Prints how many microseconds a command took; what it says is shown only when it fails.
TIMED = """
s=$EPOCHREALTIME
"$@" </dev/null >/tmp/said 2>&1 || { cat /tmp/said >&2; exit 1; }
e=$EPOCHREALTIME
echo $(( ${e/./} - ${s/./} ))
"""


def timed(client: Client, *args: str) -> float:
    """Return how long one command of the client takes, in milliseconds."""
    return clock([client.command, *args], env=client.env)


def clock(command: "list[str]", env: "dict[str, str] | None" = None) -> float:
    """Return how long a command takes, in milliseconds; it has to succeed."""
    start = time.perf_counter()
    done = subprocess.run(
        command,
        env=env,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        check=False,
    )
    elapsed = (time.perf_counter() - start) * 1000
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(command)}: {done.stderr.decode(errors='replace')}")
    return elapsed


class Podman:
    """podman with crun, in a room of its own; crun refuses the v2 half of a hybrid host."""

    def __init__(self, room: EnginesRoom) -> None:
        self._room = room
        room("umount", "/sys/fs/cgroup/unified", ok=False)
        self._podman = [
            *("podman", "--root", f"{room.work}/storage", "--runroot", "/run/podman"),
            *("--runtime", "crun", "--cgroup-manager", "cgroupfs"),
            *("--storage-driver", "overlay", "--log-level", "error"),
        ]
        image = f"{room.work}/image.tar"
        with open(image, "wb") as file:
            file.write(docker_archive(NAME, [root_tar()]))
        self("load", "-q", "-i", image)

    def __call__(self, *args: str) -> str:
        return self._room(*self._podman, *args).stdout

    def timed(self, *args: str) -> float:
        """As the function: measured inside of the room, without the way into it."""
        done = self._room("bash", "-c", TIMED, "timed", *self._podman, *args)
        return int(done.stdout) / 1000


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=120)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


class Api:
    """An engine's API without a command line, where many of something are made."""

    def __init__(self, host: str) -> None:
        self._path = host.removeprefix("unix://")

    def __call__(self, method: str, path: str, body: object = None) -> Any:
        """One request; returns the parsed answer, None for an empty one. Raises RuntimeError."""
        connection = _UnixConnection(self._path)
        try:
            headers = {"Content-Type": "application/json"} if body is not None else {}
            data = None if body is None else json.dumps(body)
            connection.request(method, f"/v1.45{path}", data, headers)
            response = connection.getresponse()
            content = response.read()
            if response.status >= 400:
                raise RuntimeError(f"{method} {path}: {response.status} {content!r}")
            return json.loads(content) if content else None
        finally:
            connection.close()

    def run(self, *words: str) -> float:
        """Create, start and await a container that removes itself; return the milliseconds."""
        begun = time.perf_counter()
        made = self("POST", "/containers/create", {
            "Image": NAME, "Cmd": words, "HostConfig": {"NetworkMode": "none", "AutoRemove": True}
        })  # fmt: skip
        waiter = _UnixConnection(self._path)
        try:
            waiter.request("POST", f"/v1.45/containers/{made['Id']}/wait?condition=removed")
            removed = waiter.getresponse()  # its head comes at once
            self("POST", f"/containers/{made['Id']}/start")
            assert json.loads(removed.read())["StatusCode"] == 0
        finally:
            waiter.close()
        return (time.perf_counter() - begun) * 1000

    def execute(self, container: str, *words: str) -> float:
        """Run a command in a container, attached, to its exit code; return the milliseconds."""
        begun = time.perf_counter()
        path = f"/containers/{container}/exec"
        made = self("POST", path, {"Cmd": words, "AttachStdout": True, "AttachStderr": True})
        connection = _UnixConnection(self._path)
        try:
            headers = {"Content-Type": "application/json"}
            connection.request("POST", f"/v1.45/exec/{made['Id']}/start", "{}", headers)
            connection.getresponse().read()
        finally:
            connection.close()
        assert self("GET", f"/exec/{made['Id']}/json")["ExitCode"] == 0
        return (time.perf_counter() - begun) * 1000

    def make(self, names: Iterable[str], *, start: bool, network: str = "none") -> None:
        """Create containers that sleep, four at a time, and start them."""

        def one(name: str) -> None:
            config = {"Image": NAME, "Cmd": ["sleep", "86400"], "StopSignal": "SIGKILL"}
            self("POST", f"/containers/create?name={name}", {
                **config, "HostConfig": {"NetworkMode": network}
            })  # fmt: skip
            if start:
                self("POST", f"/containers/{name}/start")

        self.each(one, names)

    def remove(self, names: Iterable[str]) -> None:
        self.each(lambda name: self("DELETE", f"/containers/{name}?force=1"), names)

    @staticmethod
    def each(work: Callable[[str], object], names: Iterable[str]) -> None:
        """Do it for all, four at a time. Raises what the first one raised that failed."""
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(work, names))


@dataclass
class Bench:
    """Everything that measurements use; `few` are the runs of what takes seconds, `notes` lines that
    go below the table.
    """

    runs: int
    engine: EngineProcess
    peer: Dockerd
    pier: Client
    dockerd: Client
    podman: Podman | None
    root: str
    notes: list[str] = field(default_factory=list)

    @property
    def few(self) -> int:
        return max(2, self.runs // 5)

    @property
    def clients(self) -> "dict[str, Client]":
        """The two engines that the same docker command reaches."""
        return {PIER: self.pier, DOCKERD: self.dockerd}

    @property
    def data_roots(self) -> "dict[str, str]":
        return {PIER: self.engine.data_root, DOCKERD: self.peer.data_root}

    @property
    def apis(self) -> "dict[str, Api]":
        return {PIER: Api(self.engine.host), DOCKERD: Api(self.peer.host)}

    def command(self, *args: str, podman: bool = False) -> "dict[str, Callable[[], float]]":
        """What measures one command line on both engines, and on podman too where it has it."""

        def of(client: Client) -> Callable[[], float]:
            return lambda: timed(client, *args)

        sides = {name: of(client) for name, client in self.clients.items()}
        if podman and self.podman is not None:
            theirs = self.podman
            sides[PODMAN] = lambda: theirs.timed(*args)
        return sides

    def both(self, *args: str, podman: bool = False) -> None:
        """Run one command line on both engines, unmeasured."""
        for client in self.clients.values():
            client(*args, timeout=300)
        if podman and self.podman is not None:
            self.podman(*args)


@contextmanager
def open_bench(runs: int, root: str) -> Iterator[Bench]:
    """Start all sides, with the small image in each; `root` holds the peers."""
    with ExitStack() as stack:
        engine = EngineProcess()
        # In memory, as /run is on a machine with systemd, and dockerd's in its root.
        engine.exec_root = tempfile.mkdtemp(prefix="pier-bench-", dir="/dev/shm")
        stack.callback(shutil.rmtree, engine.exec_root, ignore_errors=True)
        stack.callback(engine.close)
        engine.start()
        peer = stack.enter_context(Dockerd(root, "--live-restore"))
        dockerd = Client("docker", {**engine.env, "DOCKER_HOST": peer.host})
        for client in (engine.docker, dockerd):
            client.raw("load", stdin=docker_archive(NAME, [root_tar()]))
        yield Bench(runs, engine, peer, engine.docker, dockerd, _podman(root, stack), root)


def _podman(root: str, stack: ExitStack) -> Podman | None:
    if not os.path.exists(f"{root}/usr/bin/podman"):
        absent("podman is not in the peers' root")
        return None
    room = EnginesRoom(root)
    stack.callback(room.close)
    try:
        podman = Podman(room)
        podman("run", "--rm", "--network", "none", NAME, "true")
    except AssertionError as exc:
        absent(f"podman does not run a container here: {exc}")
        return None
    return podman


def absent(text: str) -> None:
    """Say what is not measured, and why."""
    print(f"skipped: {text}", file=sys.stderr, flush=True)
