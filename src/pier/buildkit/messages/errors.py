"""Details of errors (buildkit solver/errdefs/errdefs.proto)."""

from typing import Annotated

from pier.buildkit.messages.ops import Op, Range, SourceInfo
from pier.grpc.message import Message


class Vertex(Message):
    digest: Annotated[str, 1] = ""


class Source(Message):
    info: Annotated[SourceInfo | None, 1] = None
    ranges: Annotated[list[Range], 2] = []


class Frontend(Message):
    name: Annotated[str, 1] = ""
    source: Annotated[str, 2] = ""


class FrontendCap(Message):
    name: Annotated[str, 1] = ""


class Subrequest(Message):
    name: Annotated[str, 1] = ""


class FileAction(Message):
    index: Annotated[int, 1] = 0


class ContentCache(Message):
    index: Annotated[int, 1] = 0


class Solve(Message):
    inputIDs: Annotated[list[str], 1] = []
    mountIDs: Annotated[list[str], 2] = []
    op: Annotated[Op | None, 3] = None
    file: Annotated[FileAction | None, 4] = None
    cache: Annotated[ContentCache | None, 5] = None
    description: Annotated[dict[str, str], 6] = {}
