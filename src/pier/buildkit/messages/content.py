"""A content store, the client's or ours (containerd api/services/content/v1/content.proto)."""

from typing import Annotated

from pier.grpc.message import TIME, Message

STAT, WRITE, COMMIT = 0, 1, 2


class InfoRequest(Message):
    digest: Annotated[str, 1] = ""


class Info(Message):
    digest: Annotated[str, 1] = ""
    size: Annotated[int, 2] = 0
    created_at: Annotated[int, 3, TIME] = 0
    updated_at: Annotated[int, 4, TIME] = 0


class InfoResponse(Message):
    info: Annotated[Info | None, 1] = None


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
