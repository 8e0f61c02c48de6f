"""Exports to the client: what is made in a thread goes out piece by piece."""

from collections.abc import Iterator, Mapping
from concurrent.futures import Executor

from pier.build.export.exporter import Receiver
from pier.build.threads import finished
from pier.errors import InvalidParameter


def receiver_for(receiver: Receiver | None, kind: str) -> Receiver:
    """Return the client; raise InvalidParameter where there is none that could take files."""
    if receiver is None:
        raise InvalidParameter(f"{kind} exporter requires a session: the client takes no files")
    return receiver


async def send_pieces(
    receiver: Receiver,
    exporter: str,
    attributes: Mapping[str, str],
    pieces: Iterator[bytes],
    executor: Executor,
) -> None:
    """Send a file, one piece at a time; memory is bounded by the client. Raises PierError, OSError."""
    async with await receiver.send_file(exporter, attributes) as writer:
        while piece := await finished(executor, lambda: next(pieces, b"")):
            await writer.write(piece)
