"""What a container wrote: its upper directory, and the frozen ones below it.

A snapshot or clone of a container that does not run is a rename: its upper directory becomes a
read-only layer, which others may stand on as well, and it gets an empty one.

    <data-root>/points/<32 hex>          a frozen upper directory, never changed again
    <data-root>/containers/<id>/upper    on top of `record.frozen`, on top of the image's layers

`record.layer_change` is written before anything is moved; a pierd that finds one after a crash
brings it to its end.
"""

import contextlib
import os
import secrets

from pier.engine.directories import ContainerDirectories
from pier.engine.store import ContainerStore
from pier.model.container import ContainerRecord
from pier.storage.copy import copy_metadata, copy_tree
from pier.storage.root import DataRoot

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class WritableLayers:
    def __init__(
        self, root: DataRoot, directories: ContainerDirectories, store: ContainerStore
    ) -> None:
        self._root = root
        self._directories = directories
        self._store = store

    def recover(self) -> None:
        """After a start of pierd: end what was begun, and throw away what nobody stands on."""
        for container in self._store:
            if container.record.layer_change:
                self.bring_to_end(container.record)
                self._store.save(container)
        self.collect()

    def is_empty(self, record: ContainerRecord) -> bool:
        """Whether the upper directory has nothing in it."""
        with os.scandir(self._upper(record)) as entries:
            return next(entries, None) is None

    def bring_to_end(self, record: ContainerRecord) -> None:
        """Do what `layer_change` says; the record is to be saved then. Raises OSError.

        "freeze": the last of `frozen` is what the upper directory is now. "reset": the upper
        directory is thrown away.
        """
        upper = self._upper(record)
        work = f"{self._directories.data(record.Id)}/work"
        # What is limited stays so; a crash may have left either of the two.
        project = self._root.quotas.of(upper, work)
        if record.layer_change == "freeze":
            place = self._directories.point(record.frozen[-1])
            if not os.path.lexists(place):
                os.rename(upper, place)
        else:
            self._root.discard(upper)
        self._root.discard(work)  # what overlayfs keeps in it belongs to the old upper directory
        os.mkdir(work, 0o700)
        if not os.path.lexists(upper):
            os.mkdir(upper, 0o755)
        self._root.quotas.share(project, work, upper)
        self.adorn(record)
        record.layer_change = ""

    def adorn(self, record: ContainerRecord) -> None:
        """Give a new upper directory what the container's root had: owner, mode, xattrs."""
        if not record.frozen:
            return
        with contextlib.ExitStack() as held:
            source_fd = os.open(self._directories.point(record.frozen[-1]), _DIRECTORY)
            held.callback(os.close, source_fd)
            target_fd = os.open(self._upper(record), _DIRECTORY)
            held.callback(os.close, target_fd)
            copy_metadata(source_fd, target_fd, os.fstat(source_fd))

    def copy_upper(self, record: ContainerRecord) -> str:
        """Copy the upper directory of a container whose processes are paused; return where to.

        The place is in staging/, for `keep`. For a thread. Raises OSError, and leaves nothing.
        """
        staged = self._directories.staging()
        os.mkdir(staged, 0o700)
        try:
            with contextlib.ExitStack() as held:
                source_fd = os.open(self._upper(record), _DIRECTORY)
                held.callback(os.close, source_fd)
                target_fd = os.open(staged, _DIRECTORY)
                held.callback(os.close, target_fd)
                copy_tree(source_fd, target_fd, is_layer=True)
        except BaseException:
            self._root.discard(staged)
            raise
        return staged

    def keep(self, staged: str) -> str:
        """Make a copy a frozen directory. Whoever stands on it is recorded in the same step of
        the loop.
        """
        name = new_point()
        os.rename(staged, self._directories.point(name))
        return name

    def collect(self) -> None:
        """Throw away frozen directories that no container and no snapshot stands on."""
        used = set()
        for container in self._store:
            used.update(container.record.frozen)
            for point in container.record.snapshots:
                used.update(point.layers)
        for name in os.listdir(self._root.join("points")):
            if name not in used:
                self._root.discard(self._root.join("points", name))

    def _upper(self, record: ContainerRecord) -> str:
        return f"{self._directories.data(record.Id)}/upper"


def new_point() -> str:
    return secrets.token_hex(16)
