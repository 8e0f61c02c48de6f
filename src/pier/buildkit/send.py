"""A directory sent to a client, as the result of a build with `--output type=local`."""

import os
import stat
from collections.abc import Iterator
from concurrent.futures import Executor
from functools import partial

from pier.build.threads import finished
from pier.buildkit import packets
from pier.buildkit.messages.filesync import Stat
from pier.grpc.status import Code, GrpcError
from pier.grpc.stream import Stream

_CHUNK = 1 << 20
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC


async def send_tree(stream: Stream, directory: str, executor: Executor) -> None:
    """Send what is in a directory; return when the client has it. Raises PierError, OSError."""
    files: dict[int, str] = {}
    links: dict[tuple[int, int], str] = {}
    for number, (path, described) in enumerate(_walk(directory, "", links)):
        await stream.send(packets.stat_packet(described.encode()))
        files[number] = path
    await stream.send(packets.stat_packet(b""))
    while (message := await stream.receive()) is not None:
        packet = packets.read_packet(message)
        if packet.kind == packets.REQ:
            await _send_file(stream, packet.id, files.get(packet.id), executor)
        elif packet.kind == packets.FIN:
            await stream.send(packets.FIN_PACKET, end=True)
        elif packet.kind == packets.ERR:
            raise GrpcError(Code.UNKNOWN, packet.body.decode("utf-8", "replace"))


async def _send_file(stream: Stream, number: int, path: str | None, executor: Executor) -> None:
    if path is None:
        raise GrpcError(Code.INVALID_ARGUMENT, f"invalid file id {number}")
    fd = await finished(executor, partial(os.open, path, _READ))
    file = open(fd, "rb")  # noqa: ASYNC230, SIM115 - it is open already
    with file:
        while data := await finished(executor, partial(file.read, _CHUNK)):
            await stream.send(packets.data_packet(number, data))
    await stream.send(packets.data_packet(number, b""))


def _walk(base: str, below: str, links: dict[tuple[int, int], str]) -> Iterator[tuple[str, Stat]]:
    """Yield what is in a directory, its paths in the order that receivers want: by components."""
    with os.scandir(os.path.join(base, below)) as entries:
        names = sorted((entry.name for entry in entries), key=os.fsencode)
    for name in names:
        path = os.path.join(below, name)
        place = os.path.join(base, path)
        found = os.lstat(place)
        linkname = ""
        if stat.S_ISLNK(found.st_mode):
            linkname = os.readlink(place)
        elif stat.S_ISREG(found.st_mode) and found.st_nlink > 1:
            linkname = links.get((found.st_dev, found.st_ino), "")
            links.setdefault((found.st_dev, found.st_ino), path)
        yield place, packets.stat_of(path, found, linkname)
        if stat.S_ISDIR(found.st_mode):
            yield from _walk(base, path, links)
