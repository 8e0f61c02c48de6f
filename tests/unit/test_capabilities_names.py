"""Capability names, masks, and which ones a container gets."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pier.engine import capability_set
from pier.engine.defaults import CAPABILITIES
from pier.errors import InvalidParameter
from pier.kernel.capabilities import NAMES, NUMBERS, last_cap, mask, names

EVERYTHING = tuple(NAMES)


@pytest.fixture(autouse=True)
def all_available(monkeypatch):
    """Decide as on a host where this process may give everything."""
    monkeypatch.setattr(capability_set, "available", lambda: EVERYTHING)


def test_numbers():
    assert len(NAMES) == len(set(NAMES)) == 41
    assert NUMBERS["CAP_CHOWN"] == 0
    assert NUMBERS["CAP_SYS_ADMIN"] == 21
    assert NUMBERS["CAP_CHECKPOINT_RESTORE"] == 40
    assert last_cap() >= 40


def test_docker_default_mask():
    assert mask(CAPABILITIES) == 0x00000000A80425FB


def test_unknown_names_are_left_out():
    assert mask(["CAP_CHOWN", "CAP_FROM_THE_FUTURE"]) == 1


@given(st.sets(st.sampled_from(NAMES)))
def test_round_trip(chosen):
    assert set(names(mask(chosen))) == chosen


@pytest.mark.parametrize(
    ("add", "drop", "expected"),
    [
        (None, None, set(CAPABILITIES)),
        (["NET_ADMIN"], None, {*CAPABILITIES, "CAP_NET_ADMIN"}),
        (["cap_net_admin"], ["chown"], {*CAPABILITIES, "CAP_NET_ADMIN"} - {"CAP_CHOWN"}),
        (["ALL"], None, set(EVERYTHING)),
        (["all"], ["CAP_SYS_ADMIN"], set(EVERYTHING) - {"CAP_SYS_ADMIN"}),
        (None, ["ALL"], set()),
        (["KILL"], ["ALL"], {"CAP_KILL"}),
        (["CHOWN", "CHOWN"], ["CHOWN"], set(CAPABILITIES)),
    ],
)
def test_add_and_drop(add, drop, expected):
    found = capability_set.resolve(add, drop)
    assert set(found) == expected
    assert len(found) == len(expected)


def test_privileged_has_all():
    assert capability_set.resolve(None, ["ALL"], privileged=True) == EVERYTHING


def test_unknown():
    with pytest.raises(InvalidParameter, match='invalid CapAdd: unknown capability: "CAP_FOO"'):
        capability_set.normalise(["foo"], "CapAdd")


def test_not_available(monkeypatch):
    monkeypatch.setattr(capability_set, "available", lambda: ("CAP_CHOWN",))
    with pytest.raises(InvalidParameter, match=r'not available .*: "CAP_SYS_RESOURCE"'):
        capability_set.normalise(["SYS_RESOURCE"], "CapDrop")
