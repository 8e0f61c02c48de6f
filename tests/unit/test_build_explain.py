"""Why a step missed the cache."""

import pytest

from pier.build.explain import Inputs, unpacked, why

RUN = Inputs("RUN", "p1", (("command", "make it"), ("build arguments", "A=1"), ("network", "")))
COPY = Inputs("COPY", "p1", (("destination", "/d"), ("files", "s1")), {"a": "1", "d/b": "2"})


def changed(inputs, **named):
    pairs = [(name, named.get(name.replace(" ", "_"), value)) for name, value in inputs.named]
    return Inputs(
        inputs.kind, named.get("parent", inputs.parent), pairs, named.get("sums", inputs.files)
    )


@pytest.mark.parametrize(
    ("new", "reason"),
    [
        (changed(RUN, command="make its"), "the command: 'make it' became 'make its'"),
        (changed(RUN, build_arguments=""), "the build arguments: 'A=1' became nothing"),
        (changed(RUN, network="host"), "the network: nothing became 'host'"),
        (RUN, "its image is gone from the cache"),
        (
            changed(RUN, parent="p2"),
            "BASE is another one: what this step itself reads is as it was",
        ),
        (
            changed(RUN, parent="p2", network="none"),
            "BASE is another one, and the network: nothing became 'none'",
        ),
        (changed(RUN, command="something else"), "no build before had such a step"),
        (Inputs("WORKDIR", "p1"), "no build before had such a step"),
        (changed(COPY, files="s2", sums={"a": "1", "d/b": "3"}), "the file d/b changed"),
        (changed(COPY, files="s2", sums={"a": "1"}), "the file d/b is gone"),
        (changed(COPY, files="s2", sums={"a": "1", "c": "1", "d/b": "2"}), "the file c is new"),
        (changed(COPY, files="s2", sums=COPY.files), "the files changed"),
    ],
)
def test_reasons(new, reason):
    assert why(new, [RUN, COPY], base="BASE") == reason


def test_the_nearest_counts():
    far = changed(RUN, network="x", build_arguments="B")
    assert why(changed(RUN, command="make its"), [far, RUN], base="") == (
        "the command: 'make it' became 'make its'"
    )


def test_packing():
    assert unpacked(COPY.packed()) == Inputs(
        COPY.kind, COPY.parent, [("destination", "/d"), ("files", "s1")], COPY.files
    )
