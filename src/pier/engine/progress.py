"""Progress of work in a thread, as lines of JSON for a client.

The work tells of itself through a callback; the lines are yielded as they come, and a failure is
raised when the last one was. Work goes on when nobody takes its lines any more.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from concurrent.futures import Executor
from typing import Any

import msgspec

Tell = Callable[[Any], None]


async def stream_progress(work: Callable[[Tell], None], executor: Executor) -> AsyncIterator[bytes]:
    """Run `work(tell)` in a thread; yield what it tells, encoded, each ended by CR LF as dockerd's."""
    loop = asyncio.get_running_loop()
    lines: asyncio.Queue[bytes | None] = asyncio.Queue()
    encode = msgspec.json.Encoder().encode

    def tell(message: Any) -> None:
        loop.call_soon_threadsafe(lines.put_nowait, encode(message) + b"\r\n")

    done = loop.run_in_executor(executor, work, tell)

    def finish(done: asyncio.Future[None]) -> None:
        # Callbacks of the loop run in order: the end comes after every line told before it.
        lines.put_nowait(None)
        if not done.cancelled():
            done.exception()  # looked at, also when nobody reads to the end

    done.add_done_callback(finish)
    while (line := await lines.get()) is not None:
        yield line
    await done
