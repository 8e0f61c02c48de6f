"""containerd with pier-runtime in place of runc: its shim is the container's parent."""

import os
import subprocess
import time
from collections.abc import Iterator

import pytest
from engines_room import PATIENCE_S, Done, EnginesRoom, find_root

from busybox_image import NAME, docker_archive, root_tar

IMAGE = f"docker.io/{NAME}"
CONFIG = """
version = 2
root = "{0}/containerd"
state = "/run/containerd-test"
disabled_plugins = ["io.containerd.grpc.v1.cri", "io.containerd.cri.v1.runtime",
                    "io.containerd.cri.v1.images"]
[grpc]
  address = "/run/containerd-test/sock"
"""


class Containerd:
    """A containerd in its room, and ctr."""

    def __init__(self, room: EnginesRoom) -> None:
        self.room = room
        with open(f"{room.work}/config.toml", "w") as file:
            file.write(CONFIG.format(room.work))
        room("mkdir", "/run/containerd-test")
        with open(f"{room.work}/containerd.log", "wb") as log:
            self.daemon = room.spawn("containerd", "--config", f"{room.work}/config.toml", log=log)
        deadline = time.monotonic() + PATIENCE_S
        while self("version", ok=False).returncode != 0:
            assert time.monotonic() < deadline, "containerd does not answer"
            time.sleep(0.1)
        with open(f"{room.work}/image.tar", "wb") as file:
            file.write(docker_archive(NAME, [root_tar()]))
        # Since 2.0 only the client's own way unpacks into a snapshotter that is not the default.
        local = ["--local"] if "--local" in self("image", "import", "--help").stdout else []
        self("image", "import", *local, "--snapshotter", "native", f"{room.work}/image.tar")

    def __call__(self, *args: str, ok: bool = True, stdin: str | None = None) -> Done:
        return self.room("ctr", "-a", "/run/containerd-test/sock", *args, ok=ok, stdin=stdin)

    def run(self, *args: str, ok: bool = True, stdin: str | None = None) -> Done:
        runtime = ("--snapshotter", "native", "--runc-binary", self.room.runtime)
        return self("run", *runtime, *args, ok=ok, stdin=stdin)

    def status(self, name: str) -> str:
        rows = [line.split() for line in self("task", "ls").stdout.splitlines()]
        return next((row[2] for row in rows if row[0] == name), "")

    def until(self, name: str, status: str) -> None:
        deadline = time.monotonic() + PATIENCE_S
        while self.status(name) != status:
            assert time.monotonic() < deadline, f"{name} is {self.status(name)}"
            time.sleep(0.05)

    def close(self) -> None:
        self.daemon.kill()
        self.daemon.wait()


@pytest.fixture(scope="module")
def ctr() -> Iterator[Containerd]:
    root = find_root()
    if root is None or not os.path.exists(f"{root}/usr/bin/containerd"):
        pytest.skip(
            "no containerd: PIER_ENGINES_ROOT names no root with one (tools/engines_root.sh)"
        )
    room = EnginesRoom(root, "/default")
    try:
        made = Containerd(room)
        try:
            yield made
        finally:
            made.close()
    finally:
        room.close()


@pytest.fixture
def running(ctr: Containerd) -> Iterator[str]:
    ctr.run("-d", IMAGE, "up", "sleep", "600")
    yield "up"
    ctr("task", "rm", "-f", "up", ok=False)
    ctr("container", "rm", "up")


def test_run(ctr: Containerd) -> None:
    done = ctr.run("--rm", IMAGE, "one", "sh", "-c", "echo out; id -u; exit 7", ok=False)
    assert (done.returncode, done.stdout) == (7, "out\n0\n")
    assert ctr("container", "ls", "-q").stdout == ""


def test_an_error_is_told(ctr: Containerd) -> None:
    done = ctr.run("--rm", IMAGE, "one", "nosuch", ok=False)
    assert done.returncode == 1
    assert "OCI runtime create failed: pier-runtime create failed" in done.stderr
    assert 'exec: "nosuch": executable file not found in $PATH' in done.stderr


def test_exec(ctr: Containerd, running: str) -> None:
    done = ctr("task", "exec", "--exec-id", "e1", running, "sh", "-c", "echo in; exit 3", ok=False)
    assert (done.returncode, done.stdout) == (3, "in\n")
    done = ctr("task", "exec", "--exec-id", "e2", running, "nosuch", ok=False)
    assert "executable file not found in $PATH" in done.stderr


def test_pause(ctr: Containerd, running: str) -> None:
    ctr("task", "pause", running)
    assert ctr.status(running) == "PAUSED"
    ctr("task", "resume", running)
    assert ctr.status(running) == "RUNNING"


def test_kill(ctr: Containerd, running: str) -> None:
    ctr("task", "kill", "-s", "KILL", running)
    ctr.until(running, "STOPPED")


def test_processes(ctr: Containerd, running: str) -> None:
    assert len(ctr("task", "ps", running).stdout.splitlines()) == 2


def test_a_terminal(ctr: Containerd) -> None:
    """ctr wants a terminal of its own for that: script(1) is one."""
    command = " ".join(
        ctr.room.command(
            "ctr", "-a", "/run/containerd-test/sock", "run", "--rm", "-t", "--snapshotter", "native",
            "--runc-binary", ctr.room.runtime, IMAGE, "tty", "tty",
        )
    )  # fmt: skip
    done = subprocess.run(
        ["script", "-qec", command, "/dev/null"], stdin=subprocess.DEVNULL, capture_output=True,
        text=True, timeout=PATIENCE_S, check=False,
    )  # fmt: skip
    assert "/dev/pts/0" in done.stdout, done
