"""What an OCI command line remembers of its containers between two commands.

    <root>/<id>/                root: --root, else /run/pier-runtime or below $XDG_RUNTIME_DIR
        state.json              `Record`; appears before anything is made, is replaced by rename
        config.json             the bundle's, as it was at create
        seccomp.bpf             the filter, compiled; for execs too
        start.sock              the gate: there as long as the container was not started

A status is never written down: it is what the process and its cgroup say now. So whichever command
is killed at whatever moment, `delete` finds what there is.
"""

import os

from pier.errors import Conflict, InvalidParameter, NotFound
from pier.kernel.cgroups import Cgroup, Hierarchies, detect
from pier.kernel.lean import json
from pier.runtime import gate

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, TypedDict

    from pier.runtime.spec import Spec

    class Record(TypedDict):
        """state.json. `creator` and `pid` with their start times in clock ticks since boot."""

        version: int
        id: str
        ociVersion: str
        bundle: str
        rootfs: str
        created: str
        owner: int
        annotations: dict[str, str]
        cgroup: str
        covers: int
        creator: list[int]
        process: list[int]


VERSION = 1
MAX_ID_BYTES = 255


def default_root() -> str:
    """Where containers are remembered when --root does not say."""
    if os.geteuid() != 0 and os.environ.get("XDG_RUNTIME_DIR"):
        return os.path.join(os.environ["XDG_RUNTIME_DIR"], "pier-runtime")
    return "/run/pier-runtime"


class Container:
    """A container that was created, and perhaps ended; `directory` holds what is remembered."""

    def __init__(self, directory: str, record: "Record") -> None:
        self.directory = directory
        self.record = record
        self.id = record["id"]
        self._hierarchies: Hierarchies | None = None

    @property
    def pid(self) -> int:
        """The first process, 0 before there was one."""
        return self.record["process"][0] if self.record["process"] else 0

    @property
    def hierarchies(self) -> Hierarchies:
        """The host's cgroup hierarchies, none for a container that has no cgroup."""
        if self._hierarchies is None:
            self._hierarchies = detect() if self.record["cgroup"] else Hierarchies([])
        return self._hierarchies

    @property
    def cgroup(self) -> Cgroup:
        return Cgroup(self.hierarchies, self.record["cgroup"] or "/none")

    def take_cgroup(self, path: str) -> None:
        """Record the container's cgroup, "" for none."""
        self.record["cgroup"] = path
        self._hierarchies = None
        self.save()

    def spec(self) -> "Spec":
        """config.json as it was at create."""
        with open(os.path.join(self.directory, "config.json"), "rb") as file:
            spec: Spec = json.loads(file.read())
        return spec

    def status(self) -> str:
        """Return creating, created, running, paused or stopped."""
        if not self.record["process"]:
            return "creating" if _lives(self.record["creator"]) else "stopped"
        if not _lives(self.record["process"]):
            return "stopped"
        if self._frozen():
            return "paused"
        return "created" if os.path.exists(os.path.join(self.directory, gate.NAME)) else "running"

    def state(self) -> "dict[str, Any]":
        """The state that the runtime specification describes (runtime.md, State)."""
        status = self.status()
        state: dict[str, Any] = {
            "ociVersion": self.record["ociVersion"],
            "id": self.id,
            "pid": 0 if status == "stopped" else self.pid,
            "status": status,
            "bundle": self.record["bundle"],
        }
        if self.record["annotations"]:
            state["annotations"] = self.record["annotations"]
        return state

    def save(self) -> None:
        """Replace state.json."""
        write_file(self.directory, "state.json", json.dumps(self.record).encode())

    def forget(self) -> None:
        """Remove all that is remembered; state.json last, so that it can be done again."""
        for name in sorted(os.listdir(self.directory), key=lambda name: name == "state.json"):
            os.unlink(os.path.join(self.directory, name))
        os.rmdir(self.directory)

    def _frozen(self) -> bool:
        try:
            return self.cgroup.frozen()
        except OSError:
            return False


def reserve(root: str, record: "Record") -> Container:
    """Take the container's id. Raises Conflict when it is taken, InvalidParameter when unfit."""
    _check_id(record["id"])
    os.makedirs(root, 0o711, exist_ok=True)
    directory = os.path.join(root, record["id"])
    try:
        os.mkdir(directory, 0o700)
    except FileExistsError:
        raise Conflict("container with given ID already exists") from None
    container = Container(directory, record)
    container.save()
    return container


def find(root: str, container_id: str) -> Container:
    """Return the container. Raises NotFound."""
    _check_id(container_id)
    container = _load(os.path.join(root, container_id))
    if container is None:
        raise NotFound("container does not exist")
    return container


def every(root: str) -> list[Container]:
    """All containers, by their ids."""
    try:
        names = sorted(os.listdir(root))
    except FileNotFoundError:
        return []
    found = (_load(os.path.join(root, name)) for name in names)
    return [container for container in found if container is not None]


def remains(root: str, container_id: str) -> str | None:
    """The directory of a create that was killed before it wrote anything, None if there is none."""
    _check_id(container_id)
    directory = os.path.join(root, container_id)
    return directory if os.path.isdir(directory) else None


def start_time(pid: int) -> int:
    """When process `pid` was started, in clock ticks since boot; 0 when it is no more, or a zombie.

    proc_pid_stat(5): the name, in parentheses, may hold anything.
    """
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            fields = file.read().rpartition(b")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return 0 if fields[0] in (b"Z", b"X") else int(fields[19])


def write_file(directory: str, name: str, data: bytes) -> None:
    """Write a file that is either whole or not there."""
    path = os.path.join(directory, name)
    fd = os.open(path + ".new", os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        os.write(fd, data)
    finally:
        os.close(fd)
    os.rename(path + ".new", path)


def _lives(process: list[int]) -> bool:
    return bool(process) and start_time(process[0]) == process[1]


def _load(directory: str) -> Container | None:
    try:
        with open(os.path.join(directory, "state.json"), "rb") as file:
            return Container(directory, json.loads(file.read()))
    except (FileNotFoundError, NotADirectoryError):
        return None


def _check_id(container_id: str) -> None:
    if not container_id:
        raise InvalidParameter("container id cannot be empty")
    plain = container_id.isascii() and all(c.isalnum() or c in "_+-." for c in container_id)
    if not plain or container_id in (".", "..") or len(container_id) > MAX_ID_BYTES:
        raise InvalidParameter("invalid container ID format")
