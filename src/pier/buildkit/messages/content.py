"""A content store at the client's (containerd api/services/content/v1/content.proto)."""

from typing import Annotated

from pier.grpc.message import Message

STAT, WRITE, COMMIT = 0, 1, 2


class InfoRequest(Message):
    digest: Annotated[str, 1] = ""


class ReadContentRequest(Message):
    digest: Annotated[str, 1] = ""
    offset: Annotated[int, 2] = 0
    size: Annotated[int, 3] = 0


class ReadContentResponse(Message):
    offset: Annotated[int, 1] = 0
    data: Annotated[bytes, 2] = b""


class WriteContentRequest(Message):
    action: Annotated[int, 1] = 0
    ref: Annotated[str, 2] = ""
    total: Annotated[int, 3] = 0
    expected: Annotated[str, 4] = ""
    offset: Annotated[int, 5] = 0
    data: Annotated[bytes, 6] = b""
    labels: Annotated[dict[str, str], 7] = {}


class WriteContentResponse(Message):
    action: Annotated[int, 1] = 0
    offset: Annotated[int, 4] = 0
    total: Annotated[int, 5] = 0
    digest: Annotated[str, 6] = ""
