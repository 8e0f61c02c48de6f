"""A definition of LLB as a graph that was checked (buildkit solver/pb/ops.proto, docs/dev/solver.md).

Its operations come in any order but the last, which has no kind and whose one input is the result.
An operation's digest is that of its bytes, so there can be no circle; inputs that are not there,
twice the same operation, and indexes out of range are the client's faults.
"""

from collections.abc import Iterator, Mapping, Sequence

from msgspec import Struct

from pier.build.progress import Place, Source
from pier.buildkit.llb.names import name_of
from pier.buildkit.messages import ops
from pier.errors import InvalidParameter
from pier.grpc.message import BadMessage
from pier.model.digest import digest_of

MAX_OPS = 20_000
NO_INPUT = -1
_KINDS = ("source", "exec", "file", "build", "merge", "diff")


class Edge(Struct, frozen=True):
    """One output of an operation."""

    digest: str
    index: int


class Node(Struct, frozen=True):
    """One operation. `place` and `source` say which lines of which file it came of, if any."""

    digest: str
    op: ops.Op
    kind: str
    inputs: Sequence[Edge]
    name: str
    use_cache: bool
    source: Source | None = None
    places: Sequence[Place] = ()


class Graph(Struct, frozen=True):
    """`nodes` are those that the result needs, each after its inputs."""

    nodes: Mapping[str, Node]
    result: Edge


def read_graph(definition: ops.Definition) -> Graph:
    """Raises InvalidParameter."""
    if len(definition.ops) > MAX_OPS:
        raise InvalidParameter(f"invalid definition: more than {MAX_OPS} operations")
    found: dict[str, ops.Op] = {}
    last = ""
    for data in definition.ops:
        last = digest_of(data)
        try:
            found[last] = ops.Op.decode(data)
        except BadMessage as exc:
            raise InvalidParameter(f"failed to parse llb proto op: {exc}") from exc
    if not found:
        raise InvalidParameter("invalid empty definition")
    top = found[last]
    if _kind(top) or len(top.inputs) != 1:
        raise InvalidParameter("invalid definition: the last operation must only have one input")
    result = _edge(top.inputs[0])
    nodes = {digest: _node(digest, found, definition) for digest in _reachable(result, found)}
    _check_result(result, nodes)
    return Graph(nodes, result)


def _check_result(result: Edge, nodes: Mapping[str, Node]) -> None:
    if result.digest not in nodes:
        raise InvalidParameter(f"missing input digest {result.digest}")


def _kind(op: ops.Op) -> str:
    """Return what it is, "" for the last one, which is nothing but an input."""
    return next((kind for kind in _KINDS if getattr(op, kind) is not None), "")


def _edge(given: ops.Input) -> Edge:
    if given.index < 0:
        raise InvalidParameter(f"invalid output index {given.index}")
    return Edge(given.digest, given.index)


def _reachable(result: Edge, found: Mapping[str, ops.Op]) -> Iterator[str]:
    """Yield what the result needs, inputs first, without recursion: a chain may be long."""
    done: set[str] = set()
    pending = [(result.digest, False)]
    while pending:
        digest, is_ready = pending.pop()
        if digest in done:
            continue
        if digest not in found:
            raise InvalidParameter(f"missing input digest {digest}")
        if is_ready:
            done.add(digest)
            yield digest
            continue
        pending.append((digest, True))
        pending += [(given.digest, False) for given in found[digest].inputs]


def _node(digest: str, found: Mapping[str, ops.Op], definition: ops.Definition) -> Node:
    op = found[digest]
    kind = _kind(op)
    if not kind:
        raise InvalidParameter(f"invalid nil op in definition: {digest}")
    said = definition.metadata.get(digest) or ops.OpMetadata()
    name = said.description.get("llb.customname") or name_of(op)
    source, places = _source(digest, definition)
    edges = [_edge(given) for given in op.inputs]
    return Node(digest, op, kind, edges, name, not said.ignore_cache, source, places)


def _source(digest: str, definition: ops.Definition) -> tuple[Source | None, list[Place]]:
    if definition.source is None:
        return None, []
    for location in (definition.source.locations.get(digest) or ops.Locations()).locations:
        if 0 <= location.sourceIndex < len(definition.source.infos) and location.ranges:
            info = definition.source.infos[location.sourceIndex]
            source = Source(info.filename, info.data, info.language or "Dockerfile")
            return source, [_place(one) for one in location.ranges]
    return None, []


def _place(given: ops.Range) -> Place:
    start, end = given.start or ops.Position(), given.end or ops.Position()
    return Place(start.line, end.line, start.character, end.character)
