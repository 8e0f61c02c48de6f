"""An asynchronous stream over a container's log, which can follow it while it is written.

Reading, decoding and framing happen in a thread, one chunk at a time: the next chunk is read when
the last one was taken, so a slow client costs no memory. Between chunks a follower sleeps until
inotify tells that the log's directory changed, or until the container has ended.
"""

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import Executor

from pier.engine.log_files import LogReader
from pier.engine.logs import LogQuery
from pier.kernel.inotify import InotifyMask, inotify_add_watch, inotify_init1, read_events

_WATCHED = InotifyMask.IN_MODIFY | InotifyMask.IN_CREATE | InotifyMask.IN_MOVED_TO


async def stream_log(
    path: str,
    query: LogQuery,
    executor: Executor,
    *,
    ended: "asyncio.Future[None] | None",
    until_s: float | None = None,
) -> AsyncIterator[bytes]:
    """Yield the log at `path` in ready-made pieces.

    With `ended` it follows: the stream goes on until that future is done and everything that was
    written before was read, or until `until_s`, seconds from now, have passed.
    """
    loop = asyncio.get_running_loop()
    changed = asyncio.Event()
    stopped = asyncio.Event()
    with contextlib.ExitStack() as stack:
        if ended is None:
            stopped.set()
        else:
            stack.enter_context(_watch(os.path.dirname(path), changed))
            stack.enter_context(_stop_when(ended, until_s, stopped, changed))
        reader = await loop.run_in_executor(executor, LogReader, path, query)
        stack.callback(reader.close)
        while True:
            # Whether this is the last round is decided before reading: then nothing is missed.
            is_last = stopped.is_set()
            changed.clear()
            while piece := await loop.run_in_executor(executor, reader.read):
                yield piece
            if is_last or reader.finished:
                return
            await changed.wait()


@contextlib.contextmanager
def _watch(directory: str, changed: asyncio.Event) -> Iterator[None]:
    """Set `changed` whenever a file in the directory was written or renamed."""
    loop = asyncio.get_running_loop()
    inotify_fd = inotify_init1()
    try:
        inotify_add_watch(inotify_fd, directory, _WATCHED)

        def wake() -> None:
            if read_events(inotify_fd):
                changed.set()

        loop.add_reader(inotify_fd, wake)
        try:
            yield
        finally:
            loop.remove_reader(inotify_fd)
    finally:
        os.close(inotify_fd)


@contextlib.contextmanager
def _stop_when(
    ended: "asyncio.Future[None]",
    until_s: float | None,
    stopped: asyncio.Event,
    changed: asyncio.Event,
) -> Iterator[None]:
    """Set both events when the container has ended or the time is up."""

    def stop(_: object = None) -> None:
        stopped.set()
        changed.set()

    ended.add_done_callback(stop)
    timer = None if until_s is None else asyncio.get_running_loop().call_later(until_s, stop)
    try:
        yield
    finally:
        ended.remove_done_callback(stop)
        if timer is not None:
            timer.cancel()
