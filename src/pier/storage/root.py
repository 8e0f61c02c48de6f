"""The data root: its directories, its lock, its version, and the way things leave it.

    <data-root>/
        version     "1" and a newline
        lock        flock'ed for as long as an engine runs on it
        pier.db     see database.py
        blobs/      see blobs.py                    ingest/    blobs being written
        layers/     see layers.py                   staging/   layers being unpacked
        containers/ the engine's                    trash/     what is being deleted
        partial/    see partial.py
        volumes/    see volumes.py                  points/    see engine/writable.py

Nothing is ever deleted in place: it is renamed into trash/ (one step, so nothing half-deleted is
seen under its name) and removed there by the housekeeper thread. ingest/, staging/ and trash/ hold
only what an engine was busy with, so whatever they hold at start is refuse.
"""

import logging
import os
import queue
import secrets
import threading
from collections.abc import Callable

from pier.kernel import heap
from pier.storage.directory import check_version, take_lock
from pier.storage.placement import spread
from pier.storage.quotas import ProjectQuotas
from pier.storage.tree import remove_tree

log = logging.getLogger(__name__)

VERSION = "1"
# Unpacking and building leave holes in the heap, which the engine's idle life need not carry. Pages
# that come back cost a fault each: not between the starts of a busy engine, and not for a few.
QUIET_S = 5.0
WORTH_IT = 3 << 20
DIRECTORIES = (
    "blobs",
    "ingest",
    "layers",
    "staging",
    "containers",
    "volumes",
    "seccomp",
    "trash",
    "points",
)


class DataRoot:
    """An opened data root. `path` is absolute; `discard` and `later` may be called by any thread.

    Raises Unavailable when another engine holds it, Internal when it was written by a newer one.
    """

    def __init__(self, path: str) -> None:
        self.path = os.path.abspath(path)
        os.makedirs(self.path, mode=0o711, exist_ok=True)
        self._lock_fd = take_lock(
            self.path,
            f"data root {self.path} is in use by another engine; "
            "stop it or give another --data-root",
        )
        try:
            check_version(self.path, VERSION, what="data root", program="engine")
            for name in DIRECTORIES:
                # Containers' users cross these on their way to bind-mounted files of theirs; what
                # they may list is nothing.
                os.makedirs(self.join(name), mode=0o711, exist_ok=True)
            self.quotas = ProjectQuotas(self.join)
            spread(self.join("staging"))
            self._jobs: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
            self._housekeeper = threading.Thread(
                target=self._keep_house, name="housekeeper", daemon=True
            )
            self._housekeeper.start()
            self._sweep()
        except BaseException:
            os.close(self._lock_fd)
            raise

    def close(self) -> None:
        """Finish the housekeeping and give up the lock."""
        self._jobs.put(None)
        self._housekeeper.join()
        os.close(self._lock_fd)

    def join(self, *names: str) -> str:
        return os.path.join(self.path, *names)

    def staging(self, kind: str) -> str:
        """Return a path in `ingest` or `staging` that does not exist yet."""
        return self.join(kind, secrets.token_hex(8))

    def discard(self, path: str) -> None:
        """Take a file or tree out of sight at once; its bytes are freed in the background.

        A path that does not exist is fine.
        """
        target = self.join("trash", secrets.token_hex(8))
        try:
            os.rename(path, target)
        except FileNotFoundError:
            return
        self.later(lambda: self._remove(os.path.basename(target)))

    def later(self, job: Callable[[], None]) -> None:
        """Run a job in the housekeeper thread, in order; its failure is logged."""
        self._jobs.put(job)

    def settle(self) -> None:
        """Wait until the housekeeper has done all that it was given before this call."""
        done = threading.Event()
        self.later(done.set)
        done.wait()

    def _sweep(self) -> None:
        """Throw away what the last engine was in the middle of."""
        for kind in ("ingest", "staging"):
            for name in os.listdir(self.join(kind)):
                self.discard(self.join(kind, name))
        for name in os.listdir(self.join("trash")):
            self.later(lambda name=name: self._remove(name))  # type: ignore[misc]

    def _remove(self, name: str) -> None:
        fd = os.open(self.join("trash"), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            remove_tree(fd, os.fsencode(name))
        finally:
            os.close(fd)

    def _keep_house(self) -> None:
        """Do the jobs, and when there was none for a while, give back what the last ones grew to."""
        low, is_tidy = heap.own_bytes(), True
        while True:
            try:
                job = self._jobs.get(timeout=None if is_tidy else QUIET_S)
            except queue.Empty:
                is_tidy = True
                if heap.own_bytes() > low + WORTH_IT:
                    heap.give_back()
                    low = heap.own_bytes()
                continue
            if job is None:
                return
            is_tidy = False
            try:
                job()
            except OSError as exc:
                # What could not be removed (a mount point in it, an immutable file) stays in
                # trash/ and is tried again at the next start.
                log.warning("housekeeping in %s: %s", self.path, exc)
            except Exception:
                log.exception("housekeeping in %s", self.path)
