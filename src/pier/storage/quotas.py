"""Limits on the bytes of directories of the data root, where its file system has project quotas."""

import os
import threading
from collections.abc import Callable, Iterator

from pier.kernel import quota

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
FIRST = 0x50000
"""Away from the numbers that an administrator gives out in projid(5), and dockerd from 1 on."""


class ProjectQuotas:
    """A limited directory carries its project's number itself: nothing else is kept about it."""

    def __init__(self, join: Callable[..., str]) -> None:
        """`join` makes paths in the data root."""
        self._join_path = join
        self._lock = threading.Lock()
        self._last = 0

    def offered(self) -> bool:
        """Whether the file system of the data root can limit directories."""
        fd = os.open(self._join_path("staging"), _DIRECTORY)
        try:
            return quota.has_project_quota(fd)
        finally:
            os.close(fd)

    def limit(self, size: int, *directories: str) -> None:
        """Let directories, which are empty, have `size` bytes at most together. Raises OSError."""
        project = self._next()
        for directory in directories:
            self._take_in(directory, project)
        fd = os.open(directories[0], _DIRECTORY)
        try:
            quota.set_limit(fd, project, size)
        finally:
            os.close(fd)

    def of(self, *directories: str) -> int:
        """Return the project of the first of directories that is limited, 0 when none is."""
        for directory in directories:
            try:
                fd = os.open(directory, _DIRECTORY)
            except FileNotFoundError:
                continue
            try:
                if project := project_of(fd):
                    return project
            finally:
                os.close(fd)
        return 0

    def share(self, project: int, *directories: str) -> None:
        """Count what will be in empty directories for a project, unless it is 0. Raises OSError."""
        for directory in directories if project else ():
            self._take_in(directory, project)

    def _take_in(self, directory: str, project: int) -> None:
        fd = os.open(directory, _DIRECTORY)
        try:
            quota.set_project(fd, project)
        finally:
            os.close(fd)

    def _next(self) -> int:
        with self._lock:
            if not self._last:
                self._last = max(self._used(), default=FIRST - 1)
            self._last += 1
            return self._last

    def _used(self) -> Iterator[int]:
        """Yield the projects that directories have: those of volumes and of writable layers."""
        for kind, inner in (("volumes", "_data"), ("containers", "upper"), ("points", "")):
            for name in os.listdir(self._join_path(kind)):
                try:
                    fd = os.open(os.path.join(self._join_path(kind, name), inner), _DIRECTORY)
                except OSError:
                    continue
                try:
                    found = project_of(fd)
                finally:
                    os.close(fd)
                if found >= FIRST:
                    yield found


def project_of(fd: int) -> int:
    """As `quota.project_of`, 0 on file systems without projects."""
    try:
        return quota.project_of(fd)
    except OSError:
        return 0
