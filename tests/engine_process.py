"""A real pierd of the tests' own, and proof that it left nothing behind.

Everything it owns lies below one temporary directory, whose name therefore also finds what leaked:
mounts, processes (by command line, environment, descriptors, mounts) and directories. Cgroups are
found by comparing what existed before with what is there, empty, afterwards.

It runs in a network namespace of its own, with nothing but loopback: what it makes of bridges and
rules is never the machine's. A command that must reach pierd over IP, or be reached, runs in the
same one: `[*engine.in_network, "command", …]`.
"""

import contextlib
import glob
import os
import re
import shutil
import signal
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Callable, Iterator
from typing import Any

import pexpect

from engine_calls import Calls

PREFIX = "pier-test-"
CONTAINER_ID = re.compile(r"[0-9a-f]{64}")


def place() -> str:
    """Where test data goes: on a disk, which not every machine has below /tmp."""
    return os.environ.get("PIER_TEST_PLACE", "/var/tmp")


class Client:
    """A client's command line, bound to one engine."""

    def __init__(self, command: str, env: dict[str, str]) -> None:
        self.command = command
        self.env = env

    def __call__(
        self, *args: str, check: bool = True, stdin: str = "", timeout: float = 60
    ) -> subprocess.CompletedProcess[str]:
        """Run the client with text in and out; a failure shows what was run and what came back."""
        done = self.raw(*args, stdin=stdin.encode(), timeout=timeout, check=False)
        text = subprocess.CompletedProcess(
            done.args,
            done.returncode,
            done.stdout.decode(errors="backslashreplace"),
            done.stderr.decode(errors="backslashreplace"),
        )
        if check and done.returncode != 0:
            raise AssertionError(
                f"exit code {done.returncode}: {' '.join(done.args)}\n"
                f"--- stdout\n{text.stdout}\n--- stderr\n{text.stderr}"
            )
        return text

    def raw(
        self, *args: str, check: bool = True, stdin: bytes = b"", timeout: float = 60
    ) -> subprocess.CompletedProcess[bytes]:
        """Run the client with bytes in and out."""
        command = [self.command, *args]
        done = subprocess.run(
            command, input=stdin, capture_output=True, env=self.env, timeout=timeout, check=False
        )
        if check and done.returncode != 0:
            raise AssertionError(
                f"exit code {done.returncode}: {' '.join(command)}\n{done.stderr!r}"
            )
        return done

    def popen(self, *args: str, **kwargs: Any) -> subprocess.Popen[bytes]:
        """Start the client with pipes on all three; the caller ends it."""
        pipe = subprocess.PIPE
        options = {"stdin": pipe, "stdout": pipe, "stderr": pipe, "env": self.env, **kwargs}
        return subprocess.Popen([self.command, *args], **options)

    def terminal(self, *args: str, rows: int = 24, columns: int = 80) -> "pexpect.spawn[str]":
        """Start the client on a pseudo-terminal; the caller closes it."""
        return pexpect.spawn(
            self.command,
            list(args),
            env={**self.env, "TERM": "xterm"},
            encoding="utf-8",
            dimensions=(rows, columns),
            timeout=30,
            echo=False,
        )


class Network:
    """A network namespace of its own with loopback up, for as long as `close` was not called.

    A process holds it that ends with us: its stdin is a pipe from here.
    """

    _CODE = (
        "import sys; from pier.kernel import namespaces as ns; ns.unshare(ns.CLONE_NEWNET); "
        "ns.bring_loopback_up(); print('up', flush=True); sys.stdin.read()"
    )

    def __init__(self) -> None:
        self._holder = subprocess.Popen(
            [sys.executable, "-c", self._CODE],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={"PATH": os.environ["PATH"]},
            start_new_session=True,
        )
        assert self._holder.stdout is not None
        if self._holder.stdout.readline() != b"up\n":
            raise AssertionError("no network namespace could be made for the engine")

    @property
    def path(self) -> str:
        """The namespace's file."""
        return f"/proc/{self._holder.pid}/ns/net"

    @property
    def command(self) -> list[str]:
        """What to put before a command's own words so that it runs in here, as the same process."""
        return ["nsenter", f"--net={self.path}", "--"]

    def close(self) -> None:
        """Let go of the namespace; it ends with the last process in it. A second call is fine."""
        self._holder.communicate()


class EngineProcess:
    """A pierd with its own socket, roots, network and pidfile; `start`, then `close`."""

    def __init__(self) -> None:
        self.directory = tempfile.mkdtemp(prefix=PREFIX, dir=place())
        self.socket = os.path.join(self.directory, "pier.sock")
        self.host = f"unix://{self.socket}"
        self.calls = Calls(self.socket)
        self.data_root = os.path.join(self.directory, "data")
        self.exec_root = os.path.join(self.directory, "exec")
        self.pidfile = os.path.join(self.directory, "pierd.pid")
        self.log = os.path.join(self.directory, "pierd.log")
        config = os.path.join(self.directory, "docker-config")
        os.mkdir(config)
        self.env = {
            "PATH": os.environ["PATH"],
            "HOME": self.directory,
            "DOCKER_HOST": self.host,
            "DOCKER_CONFIG": config,
            "LANG": "C.UTF-8",
        }
        self.docker = Client("docker", self.env)
        self.pier = Client(os.path.join(sysconfig.get_path("scripts"), "pier"), self.env)
        self.command = os.path.join(sysconfig.get_path("scripts"), "pierd")
        self._cgroups_before = set(_container_cgroups())
        self._process: subprocess.Popen[bytes] | None = None
        self._network: Network | None = None
        self._shared: list[str] = []

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    @property
    def in_network(self) -> list[str]:
        """What to put before a command's own words so that it shares pierd's network."""
        if self._shared:
            return self._shared
        if self._network is None:
            self._network = Network()
        return self._network.command

    def share_network(self, other: "EngineProcess") -> None:
        """Run in another engine's network, which has to live longer. Before the start."""
        assert self._network is None
        self._shared = other.in_network

    def run_in(self, command: list[str]) -> None:
        """Run in a network that others have made, by what is to be put before the words."""
        assert self._network is None
        self._shared = command

    def start(self, *flags: str) -> None:
        """Start pierd and wait until it answers on its socket."""
        command = [
            *self.in_network,
            self.command,
            *("-H", self.host, "--data-root", self.data_root, "--exec-root", self.exec_root),
            *("--pidfile", self.pidfile, *flags),
            # Of a machine that lacks something, such as the guest of tests/vm.
            *os.environ.get("PIER_TEST_PIERD_FLAGS", "").split(),
        ]
        # Without the options that warn about development: what users run is what is tested.
        environment = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "PIER_"))}
        # All that the zygote and the keepers inherit is PATH: the directory in it marks them.
        environment["PATH"] += f":{self.directory}/bin"
        with open(self.log, "ab") as log:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=environment,
                start_new_session=True,
            )
        process = self._process
        try:
            wait_until(
                lambda: process.poll() is not None or self.calls.answers(),
                "pierd answers",
                seconds=60,
            )
        except AssertionError as exc:
            raise AssertionError(f"{exc}\n{self.log_tail()}") from None
        assert process.poll() is None, f"pierd ended with {process.returncode}:\n{self.log_tail()}"

    def stop(self) -> int:
        """End pierd as an administrator would, with SIGTERM; return its exit code."""
        assert self._process is not None
        self._process.send_signal(signal.SIGTERM)
        try:
            return self._process.wait(30)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
            raise AssertionError(f"pierd ignored SIGTERM:\n{self.log_tail()}") from None

    def kill(self) -> None:
        """End pierd in the middle of whatever it does, with SIGKILL."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    def restart(self) -> None:
        self.stop()
        self.start()

    def remove_containers(self) -> None:
        """Remove all of them, by force; and wait for those that go on their own."""

        def gone() -> bool:
            going = [c for c in self.calls.containers() if not self.calls.remove_container(c)]
            return not going

        wait_until(gone, "no container is left", seconds=60)

    def log_tail(self, lines: int = 60, offset: int = 0) -> str:
        """Return the last lines of pierd's log that lie beyond byte `offset`."""
        with open(self.log, errors="replace") as log:
            log.seek(offset)
            return "".join(log.readlines()[-lines:])

    def log_size(self) -> int:
        return os.path.getsize(self.log)

    def close(self) -> None:
        """Remove every container, end pierd and check that nothing of it is left."""
        try:
            if self._process is not None and self._process.poll() is None:
                self.remove_containers()
                code = self.stop()
                assert code == 0, f"pierd ended with {code}:\n{self.log_tail()}"
            self.assert_nothing_left()
        finally:
            self._sweep()

    def assert_nothing_left(self) -> None:
        """Fail with a list of what leaked; what ends on its own gets a moment to do so."""
        found: list[str] = []

        def clean() -> bool:
            found[:] = self._leftovers()
            return not found

        try:
            wait_until(clean, "nothing is left", seconds=10)
        except AssertionError:
            raise AssertionError(
                "left behind:\n  " + "\n  ".join(found) + f"\n--- pierd's log\n{self.log_tail()}"
            ) from None

    def _leftovers(self) -> list[str]:
        others = set(self._containers_of_others())
        found = [f"mount: {line}" for line in _lines("/proc/self/mountinfo") if self._names(line)]
        found += [f"process: {pid} {_command_line(pid)}" for pid in self._processes()]
        found += [
            f"cgroup: {path}"
            for path in _container_cgroups()
            if path not in self._cgroups_before
            and not _lines(path + "/cgroup.procs")
            and os.path.basename(path) not in others
        ]
        for directory in (
            os.path.join(self.exec_root, "containers"),
            os.path.join(self.data_root, "containers"),
            os.path.join(self.data_root, "staging"),
            os.path.join(self.data_root, "ingest"),
            os.path.join(self.data_root, "trash"),
        ):
            if os.path.isdir(directory):
                found += [f"file: {directory}/{name}" for name in os.listdir(directory)]
        return found

    def _names(self, text: str) -> bool:
        return self.directory in text

    def _containers_of_others(self) -> Iterator[str]:
        """Yield the IDs of what runs in engines beside this one: the ring has two workers."""
        for root in glob.glob(f"{place()}/{PREFIX}*/exec/containers"):
            if not self._names(root):
                with contextlib.suppress(FileNotFoundError):
                    yield from os.listdir(root)

    def _processes(self) -> Iterator[int]:
        """Yield the processes that have anything to do with this engine's directory."""
        ours = {os.getpid(), os.getppid()}
        for name in os.listdir("/proc"):
            if name.isdecimal() and int(name) not in ours and self._is_ours(f"/proc/{name}"):
                yield int(name)

    def _is_ours(self, process: str) -> bool:
        words = [line for part in ("cmdline", "environ") for line in _lines(f"{process}/{part}")]
        if any(map(self._names, words)) or any(map(self._names, _links(f"{process}/fd"))):
            return True
        mounts = _lines(f"{process}/mountinfo")
        # A mount namespace that another engine has made may be a copy with a mount of ours in it.
        return any(map(self._names, mounts)) and not any(
            f"{place()}/{PREFIX}" in line and not self._names(line) for line in (*words, *mounts)
        )

    def _sweep(self) -> None:
        """End and remove whatever a failed run left, so that the machine is as it was."""
        if self._process is not None and self._process.poll() is None:
            self._process.kill()
            self._process.wait()
        for pid in list(self._processes()):
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        for line in reversed(_lines("/proc/self/mountinfo")):
            if self._names(line):
                subprocess.run(["umount", "--lazy", line.split()[4]], check=False)
        if self._network is not None:
            self._network.close()
            self._network = None
        shutil.rmtree(self.directory, ignore_errors=True)


def wait_until(condition: Callable[[], object], what: str, *, seconds: float = 15) -> None:
    """Poll `condition` until it is true; fail, saying `what` was awaited, when it never is."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"waited {seconds} s in vain: {what}"
        time.sleep(0.02)


def _container_cgroups() -> Iterator[str]:
    for directory, names, _ in os.walk("/sys/fs/cgroup"):
        for name in names:
            if CONTAINER_ID.fullmatch(name):
                yield os.path.join(directory, name)


def _lines(path: str) -> list[str]:
    """Return a file's lines, none when it is gone or not ours to read."""
    try:
        with open(path, errors="replace") as file:
            return file.read().splitlines()
    except OSError:
        return []


def _links(directory: str) -> Iterator[str]:
    try:
        names = os.listdir(directory)
    except OSError:
        return
    for name in names:
        try:
            yield os.readlink(os.path.join(directory, name))
        except OSError:
            continue


def _command_line(pid: int) -> str:
    return " ".join(_lines(f"/proc/{pid}/cmdline")).replace("\0", " ")
