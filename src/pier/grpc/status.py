"""How calls end: gRPC's status codes, and errors with their details (grpc.github.io, google.rpc)."""

from collections.abc import Sequence
from enum import IntEnum
from typing import Annotated

from pier.errors import (
    Conflict,
    Forbidden,
    InvalidParameter,
    NotFound,
    PierError,
    Unauthorized,
    Unavailable,
    Unsupported,
)
from pier.grpc.message import Message


class Code(IntEnum):
    OK = 0
    CANCELLED = 1
    UNKNOWN = 2
    INVALID_ARGUMENT = 3
    DEADLINE_EXCEEDED = 4
    NOT_FOUND = 5
    ALREADY_EXISTS = 6
    PERMISSION_DENIED = 7
    RESOURCE_EXHAUSTED = 8
    FAILED_PRECONDITION = 9
    ABORTED = 10
    OUT_OF_RANGE = 11
    UNIMPLEMENTED = 12
    INTERNAL = 13
    UNAVAILABLE = 14
    DATA_LOSS = 15
    UNAUTHENTICATED = 16


class Any(Message):
    """google.protobuf.Any: a message and the URL of its type."""

    type_url: Annotated[str, 1] = ""
    value: Annotated[bytes, 2] = b""


class Status(Message):
    """google.rpc.Status"""

    code: Annotated[int, 1] = 0
    message: Annotated[str, 2] = ""
    details: Annotated[list[Any], 3] = []  # noqa: RUF012 - as msgspec has it


class GrpcError(PierError):
    """A call's end that is not well: ours to the caller, or theirs to us."""

    def __init__(self, code: int, message: str, details: Sequence[Any] = ()) -> None:
        super().__init__(message)
        self.code = code
        self.details = list(details)

    @property
    def status(self) -> Status:
        return Status(self.code, self.message, self.details)


# More special classes first.
_CODES: tuple[tuple[type[PierError], Code], ...] = (
    (InvalidParameter, Code.INVALID_ARGUMENT),
    (Unauthorized, Code.UNAUTHENTICATED),
    (Forbidden, Code.PERMISSION_DENIED),
    (NotFound, Code.NOT_FOUND),
    (Conflict, Code.ALREADY_EXISTS),
    (Unsupported, Code.UNIMPLEMENTED),
    (Unavailable, Code.UNAVAILABLE),
)


def code_of(exc: BaseException) -> int:
    if isinstance(exc, GrpcError):
        return exc.code
    return next((code for kind, code in _CODES if isinstance(exc, kind)), Code.UNKNOWN)


def status_of(exc: BaseException) -> Status:
    """The status that tells a caller of a failure. Only PierErrors carry their message."""
    if isinstance(exc, GrpcError):
        return exc.status
    message = exc.message if isinstance(exc, PierError) else f"{type(exc).__name__}: {exc}"
    return Status(code_of(exc), message)
