"""What a failed build tells beside its message: the line, the step. Clients print an excerpt of it.

Details are JSON in an Any, with a type's URL of BuildKit's own (buildkit util/grpcerrors, and
containerd's typeurl, which writes protobuf types registered there so).
"""

import base64
import re
from collections.abc import Sequence

import msgspec

from pier.build.progress import Place, Source
from pier.errors import PierError
from pier.grpc.status import Any, Code, GrpcError, code_of

_PREFIX = "github.com/moby/buildkit"


_STEP = re.compile(r"The command '(.*)' returned a non-zero code: (\d+)", re.DOTALL)
_MISSING = re.compile(
    r"(?:\w+ failed: )?file not found in build context or excluded by \.dockerignore: "
    r"stat (.*): file does not exist"
)
_STATUS = re.compile(r"ADD failed: failed to GET \S+ with status (\d+) .*", re.DOTALL)
_REQUEST = re.compile(r"ADD failed: failed to GET (\S+): (.*)", re.DOTALL)
_LOAD = "failed to load cache key: "


def words_of(exc: Exception) -> str:
    """Return a failure's message as BuildKit says it."""
    text = translated(exc.message if isinstance(exc, PierError) else str(exc))
    return f"failed to compute cache key: {text}" if text.startswith(_CHECKSUM) else text


_CHECKSUM = "failed to calculate checksum of ref "


def translated(text: str) -> str:
    """Return a message of the classic builder in BuildKit's words."""
    if found := _STEP.fullmatch(text):
        return f'process "{found[1]}" did not complete successfully: exit code: {found[2]}'
    if found := _MISSING.fullmatch(text):
        return f'{_CHECKSUM}context: "/{found[1]}": not found'
    if found := _STATUS.fullmatch(text):
        return f"{_LOAD}invalid response status {found[1]}"
    if found := _REQUEST.fullmatch(text):
        return f'{_LOAD}Get "{found[1]}": {found[2]}'
    return text


def solve_error(
    exc: Exception, *, source: Source | None, places: Sequence[Place], vertex: str = ""
) -> GrpcError:
    """Return a failure with where it happened; `vertex` is the step's digest, "" for none."""
    if isinstance(exc, GrpcError) and exc.details:
        return exc
    details = []
    if source is not None and places:
        details.append(_detail("errdefs.Source", _source(source, places)))
    if vertex:
        details.append(_detail("errdefs.Vertex", {"digest": vertex}))
    code = code_of(exc)
    # Clients print other codes in front of the message.
    code = Code.UNKNOWN if not isinstance(exc, GrpcError) else code
    return GrpcError(code, words_of(exc), details)


def _detail(name: str, value: object) -> Any:
    return Any(f"{_PREFIX}/{name}+json", msgspec.json.encode(value))


def _source(source: Source, places: Sequence[Place]) -> dict[str, object]:
    return {
        "info": {
            "filename": source.filename,
            "data": base64.b64encode(source.data).decode(),
            "language": source.language,
        },
        "ranges": [
            {
                "start": {"line": place.first_line, "character": place.first_character},
                "end": {"line": place.last_line, "character": place.last_character},
            }
            for place in places
        ],
    }
