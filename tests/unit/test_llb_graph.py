"""LLB definitions decoded: what is a graph, what is none, and bytes that nobody meant."""

import contextlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llb_client import Llb
from pier.buildkit.llb.graph import read_graph
from pier.buildkit.messages import ops
from pier.errors import InvalidParameter


def chain() -> tuple[Llb, list[str]]:
    llb = Llb()
    made = [llb.source("docker-image://x")]
    made += [llb.run(made[0], "true"), llb.run(made[0], "false")]
    made.append(llb.file(inputs=made[1:]))
    llb.source("local://unused")
    return llb, made


def test_what_the_result_needs_each_after_its_inputs() -> None:
    llb, made = chain()
    graph = read_graph(llb.definition(made[-1], fresh=[made[1]]))
    order = list(graph.nodes)
    assert sorted(order) == sorted(made)
    for node in graph.nodes.values():
        assert all(order.index(edge.digest) < order.index(node.digest) for edge in node.inputs)
    assert [node.use_cache for node in graph.nodes.values()].count(False) == 1
    assert {node.name for node in graph.nodes.values()} == {
        *("docker-image://x", "sh -c true", "sh -c false", ""),
    }


def test_a_long_chain() -> None:
    llb = Llb()
    last = llb.source("docker-image://x")
    for number in range(5000):
        last = llb.run(last, f"echo {number}")
    assert len(read_graph(llb.definition(last)).nodes) == 5001


def test_lines_of_the_file_that_it_came_from() -> None:
    llb, made = chain()
    definition = llb.definition(made[-1])
    lines = ops.Range(ops.Position(3, 0), ops.Position(4, 7))
    definition.source = ops.Source(
        {made[1]: ops.Locations([ops.Location(0, [lines])]), made[2]: ops.Locations([ops.Location(9, [lines])])},
        [ops.SourceInfo("main.go", b"text", "Go")],
    )  # fmt: skip
    nodes = read_graph(definition).nodes
    found = nodes[made[1]].source
    assert found is not None
    assert (found.filename, nodes[made[1]].places[0].last_line) == ("main.go", 4)
    assert nodes[made[2]].source is None  # of a file that is not there


def test_what_is_no_graph() -> None:
    llb, made = chain()
    whole = llb.definition(made[-1])
    nothing = ops.Op(inputs=[]).encode()
    two = ops.Op(inputs=[ops.Input(made[0]), ops.Input(made[1])]).encode()
    for given_ops, message in (
        ([], "empty definition"),
        (whole.ops[:-1], "must only have one input"),
        ([*whole.ops[:-1], nothing], "must only have one input"),
        ([*whole.ops[:-1], two], "must only have one input"),
        (whole.ops[1:], "missing input digest"),
        ([b"\xff", whole.ops[-1]], "failed to parse llb proto op"),
    ):
        with pytest.raises(InvalidParameter, match=message):
            read_graph(ops.Definition(ops=given_ops))
    for index, message in ((-1, "invalid output index"), (0, "invalid nil op")):
        empty = llb.add(ops.Op(inputs=[]))
        with pytest.raises(InvalidParameter, match=message):
            read_graph(llb.definition((empty, index)))


_FUZZ = st.lists(
    st.tuples(st.integers(0, 4), st.integers(0, 400), st.binary(max_size=6)), max_size=6
)


@given(_FUZZ, st.binary(max_size=200))
@settings(max_examples=300, deadline=None)
def test_any_bytes_are_a_graph_or_refused(edits: list[tuple[int, int, bytes]], junk: bytes) -> None:
    """A whole definition with bytes put into its operations; what holds is checked again."""
    llb, made = chain()
    definition = llb.definition(made[-1])
    datas = [bytearray(data) for data in definition.ops]
    for which, at, data in edits:
        datas[which % len(datas)][at : at + len(data)] = data
    for given_ops in ([bytes(data) for data in datas], [junk], [junk, definition.ops[-1]]):
        with contextlib.suppress(InvalidParameter):
            graph = read_graph(ops.Definition(ops=given_ops))
            assert graph.result.digest in graph.nodes
            for node in graph.nodes.values():
                assert all(edge.digest in graph.nodes and edge.index >= 0 for edge in node.inputs)
