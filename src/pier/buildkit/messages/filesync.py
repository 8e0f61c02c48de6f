"""Files on their way (fsutil types/stat.proto, types/wire.proto; buildkit session/filesync)."""

from typing import Annotated

from pier.grpc.message import Message


class Stat(Message):
    path: Annotated[str, 1] = ""
    mode: Annotated[int, 2] = 0
    uid: Annotated[int, 3] = 0
    gid: Annotated[int, 4] = 0
    size: Annotated[int, 5] = 0
    modTime: Annotated[int, 6] = 0
    linkname: Annotated[str, 7] = ""
    devmajor: Annotated[int, 8] = 0
    devminor: Annotated[int, 9] = 0
    xattrs: Annotated[dict[str, bytes], 10] = {}


class Packet(Message):
    type: Annotated[int, 1] = 0
    stat: Annotated[Stat | None, 2] = None
    ID: Annotated[int, 3] = 0
    data: Annotated[bytes, 4] = b""


class BytesMessage(Message):
    data: Annotated[bytes, 1] = b""
