"""The directories of a container, as ARCHITECTURE.md draws them.

    <data-root>/containers/<id>/    upper/ work/ hosts hostname resolv.conf <id>-json.log*
    <exec-root>/containers/<id>/    config.json keeper.json rootfs/ keeper.sock exit.json

Plain system calls without threads, since they are on the way of every start; what is slow, the
deletion, is the housekeeper's (`storage.root`).
"""

import asyncio
import os

import msgspec

from pier.engine.ready import ReadyDirectories
from pier.errors import Internal
from pier.runtime.protocol import RUNTIME_FILE
from pier.runtime.spec import KeeperConfig, RuntimeCommand, Spec
from pier.storage.root import DataRoot
from pier.storage.sync import syncfs

DELETION_DELAY_S = 0.005
_MODE = 0o700


class ContainerDirectories:
    def __init__(self, root: DataRoot, exec_root: str) -> None:
        self._root = root
        self._containers = root.join("containers")
        self._bundles = os.path.join(exec_root, "containers")
        self._ready = ReadyDirectories(root)
        self._trashed: list[str] = []
        os.makedirs(self._bundles, mode=_MODE, exist_ok=True)

    def data(self, container_id: str) -> str:
        return f"{self._containers}/{container_id}"

    def bundle(self, container_id: str) -> str:
        return f"{self._bundles}/{container_id}"

    def log_path(self, container_id: str) -> str:
        return f"{self._containers}/{container_id}/{container_id}-json.log"

    def layer(self, chain_id: str) -> str:
        return self._root.join("layers", chain_id.removeprefix("sha256:"), "diff")

    def point(self, name: str) -> str:
        """A frozen upper directory, see `writable`."""
        return self._root.join("points", name)

    def staging(self) -> str:
        """Return a path that does not exist yet; what is left there is removed at the next start."""
        return self._root.staging("staging")

    def discard_staged(self, path: str) -> None:
        """Throw away what is left at a path of `staging`, if there is anything."""
        self._root.discard(path)

    def sync_later(self) -> None:
        """Bring to the disk, in the background, what was written into a container's layer."""
        self._root.later(self._sync)

    def _sync(self) -> None:
        fd = os.open(self._containers, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            syncfs(fd)
        finally:
            os.close(fd)

    def has_quota(self) -> bool:
        """Whether a writable layer can be limited to a size."""
        return self._root.quotas.offered()

    def make(self, container_id: str, *, size: int = 0) -> None:
        """Make the data directory of a new container; leave nothing behind on failure.

        With `size`, what is written to its layer is that many bytes at most. Raises Internal.
        """
        data = self.data(container_id)
        self._ready.take(data)
        if size:
            try:
                self._root.quotas.limit(size, f"{data}/upper", f"{data}/work")
            except OSError as exc:
                self.discard(container_id)
                raise Internal(f"limiting the size of container {container_id}: {exc}") from exc

    def close(self) -> None:
        """Take away what was made ahead, and what was to be deleted in a moment."""
        self._ready.close()
        self._delete_trashed()

    def write_bundle(
        self, container_id: str, spec: Spec, keeper: KeeperConfig,
        runtime: RuntimeCommand | None = None,
    ) -> None:  # fmt: skip
        """Write a fresh bundle. Raises FileExistsError while an old one is there.

        `runtime` is what runs it other than Pier's own.
        """
        path = self.bundle(container_id)
        os.mkdir(path, _MODE)
        os.mkdir(f"{path}/rootfs", 0o755)
        _write(f"{path}/config.json", msgspec.json.encode(spec))
        _write(f"{path}/keeper.json", msgspec.json.encode(keeper))
        if runtime is not None:
            _write(f"{path}/{RUNTIME_FILE}", msgspec.json.encode(runtime))

    def read_cgroup(self, container_id: str) -> str | None:
        """Return the cgroup that a bundle names, None when there is no readable bundle."""
        try:
            with open(f"{self.bundle(container_id)}/keeper.json", "rb") as file:
                return str(msgspec.json.decode(file.read())["cgroup"])
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def data_ids(self) -> list[str]:
        return os.listdir(self._containers)

    def bundle_ids(self) -> list[str]:
        return os.listdir(self._bundles)

    def discard(self, container_id: str) -> None:
        """Take a container's data directory out of sight at once; absent is fine.

        Its deletion waits a moment: it would take the interpreter from the loop just when the
        removal is about to be answered.
        """
        trashed = self._root.staging("trash")
        try:
            os.rename(self.data(container_id), trashed)
        except FileNotFoundError:
            return
        self._trashed.append(trashed)
        asyncio.get_running_loop().call_later(DELETION_DELAY_S, self._delete_trashed)

    def _delete_trashed(self) -> None:
        while self._trashed:
            self._root.discard(self._trashed.pop())


def _write(path: str, data: bytes) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        os.write(fd, data)
    finally:
        os.close(fd)
