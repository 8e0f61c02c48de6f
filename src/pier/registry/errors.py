"""What a registry answers when it does not do what was asked, in the words that Docker's users know.

    RegistryError       anything that went wrong between here and a registry
    ├── Refused         the registry answered with an error: `status`, `code`, its message
    └── Unreachable     it did not answer: no route, no name, no TLS, or it broke off

`code` is that of the distribution specification ("MANIFEST_UNKNOWN"), or made up of the status
where the answer has none, as Docker does.
"""

import json

import msgspec
from msgspec import Struct

from pier.errors import Internal, NotFound, PierError, Unauthorized
from pier.model.reference import Reference

_BY_STATUS = {
    401: ("UNAUTHORIZED", "authentication required"),
    403: ("DENIED", "requested access to the resource is denied"),
    429: ("TOOMANYREQUESTS", "too many requests"),
}


class RegistryError(Internal):
    """Talking to a registry failed. `bare` is the reason without the request, where that is known."""

    bare = ""


class Unreachable(RegistryError):
    """It did not answer. `fallback` tells that another way to the same registry may be tried."""

    def __init__(self, message: str, *, fallback: bool = True) -> None:
        super().__init__(message)
        self.fallback = fallback


class Refused(RegistryError):
    """It answered with an error. `retry_after_s` is what it asked for, 0 when it did not."""

    def __init__(self, status: int, code: str, text: str, *, retry_after_s: float = 0) -> None:
        super().__init__(f"{code.lower().replace('_', ' ')}: {text}" if code else text)
        self.status = status
        self.code = code
        self.retry_after_s = retry_after_s


class DiskTrouble(Internal):
    """What was received could not be written."""


class _Entry(Struct):
    """What Go's decoder takes for `code` may be written in any case; most write one of these."""

    code: str = ""
    message: str = ""
    Code: str = ""


class _Body(Struct):
    errors: list[_Entry] = []
    details: str = ""
    message: str = ""


def refused(
    status: int, reason: str, body: bytes, *, retry_after_s: float = 0, is_json: bool = False
) -> Refused:
    """Make the error of an answer's status and body; `is_json` is what its headers say of it."""
    code, text, broken = "", "", ""
    try:
        decoded = msgspec.json.decode(body, type=_Body)
    except (msgspec.DecodeError, UnicodeDecodeError) as exc:
        decoded = _Body()
        broken = str(exc) if is_json and body else ""
    if broken and status in (403, 429):
        shown = body.decode(errors="replace")
        text = f"error parsing HTTP {status} response body: {broken}: {json.dumps(shown)}"
    elif decoded.errors:
        code = decoded.errors[0].code or decoded.errors[0].Code or "UNKNOWN"
        text = decoded.errors[0].message or code.lower().replace("_", " ")
    elif status in _BY_STATUS:
        code, text = _BY_STATUS[status]
        text = decoded.details or decoded.message or text
    else:
        shown = f"{status} {reason}".strip()
        text = f"received unexpected HTTP status: {shown}"
    return Refused(status, code, text, retry_after_s=retry_after_s)


def translate_pull(failure: PierError, reference: Reference) -> PierError:
    """Return a pull's failure with the status and in the words that Docker gives it."""
    if not isinstance(failure, Refused):
        return failure
    if failure.code == "DENIED":
        return NotFound(
            f"pull access denied for {reference.familiar_name}, repository does not exist or may "
            f"require 'docker login': {failure.message}"
        )
    if failure.code == "MANIFEST_UNKNOWN":
        return NotFound(f"manifest for {reference.familiar} not found: {failure.message}")
    if failure.code == "NAME_UNKNOWN":
        return NotFound(f"repository {reference.familiar_name} not found: {failure.message}")
    return plain(failure)


def plain(failure: PierError) -> PierError:
    """Return a refusal as the class that its status stands for, its words unchanged."""
    if isinstance(failure, Refused):
        if failure.status == 404:
            return NotFound(failure.message)
        if failure.status == 401:
            return Unauthorized(failure.message)
    return failure
