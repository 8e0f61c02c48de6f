"""What a failed build tells beside its message: the line, the step. Clients print an excerpt of it.

Details are JSON in an Any, with a type's URL of BuildKit's own (buildkit util/grpcerrors, and
containerd's typeurl, which writes protobuf types registered there so).
"""

import base64
from collections.abc import Sequence

import msgspec

from pier.build.failures import StepFailed
from pier.build.progress import Place, Source
from pier.errors import PierError
from pier.grpc.status import Any, Code, GrpcError, code_of

_PREFIX = "github.com/moby/buildkit"


def words_of(exc: Exception) -> str:
    """Return a failure's message as BuildKit says it."""
    if isinstance(exc, StepFailed):
        command = exc.message.partition("'")[2].rpartition("'")[0]
        return f'process "{command}" did not complete successfully: exit code: {exc.code}'
    return exc.message if isinstance(exc, PierError) else str(exc)


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
