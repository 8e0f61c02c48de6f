"""What of the build cache goes: rules, limits, order; daemon.json's `builder`."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pier.build.keeping import CACHE_MOUNT, REGULAR, Kept, Rule, choose, rule_filters
from pier.build.options import INSECURE, NETWORK_HOST
from pier.engine.settings_builder import parse_builder
from pier.errors import InvalidParameter

DAY = 24 * 3600 * 1_000_000_000
NOW = 100 * DAY


def kept(name, *, parent="", size=10, age=0, kind=REGULAR, in_use=False, shared=False):
    used = NOW - age * DAY
    return Kept(name, kind, f"RUN {name}", size, used, used, 1, in_use, shared, parent)


def names(records, rule, *, free=1 << 40):
    return [record.id for record in choose(records, rule, now_ns=NOW, free=free)]


CHAIN = [kept("a", age=9), kept("b", parent="a", age=8), kept("c", parent="b", age=7)]


def test_everything_goes_from_the_leaves():
    assert names(CHAIN, Rule()) == ["c", "b", "a"]


def test_what_is_used_stays_with_what_it_stands_on():
    used = [*CHAIN[:2], kept("c", parent="b", in_use=True)]
    assert names(used, Rule()) == []
    shared = [*CHAIN[:2], kept("c", parent="b", shared=True)]
    assert names(shared, Rule()) == []
    assert names(shared, Rule(everything=True)) == ["c", "b", "a"]


def test_age():
    assert names(CHAIN, Rule(unused_ns=8 * DAY)) == []
    assert names([kept("old", age=9), kept("new", age=1)], Rule(unused_ns=8 * DAY)) == ["old"]


def test_limits_stop_it():
    records = [kept("old", age=9), kept("middle", age=5), kept("new", age=1)]
    assert names(records, Rule(max_used=15)) == ["old", "middle"]
    assert names(records, Rule(max_used=100)) == []
    assert names(records, Rule(max_used=1, reserved=25)) == ["old"]
    assert names(records, Rule(min_free=108), free=100) == ["old"]
    assert names(records, Rule(min_free=50), free=100) == ["old", "middle", "new"]
    assert names(records, Rule(min_free=50, reserved=30), free=100) == []


def test_filters():
    records = [kept("a"), kept("m", kind=CACHE_MOUNT), kept("x y")]
    assert names(records, Rule(filters={"type": [CACHE_MOUNT]})) == ["m"]
    assert names(records, Rule(filters={"id": ["a", "m"]})) == ["a", "m"]
    assert names(records, Rule(filters={"description": ["RUN x"]})) == ["x y"]
    assert names(records, Rule(filters={"inuse": ["true"]})) == []
    rest, unused = rule_filters({"until": ["48h"], "type": ["regular"]}, NOW)
    assert (dict(rest), unused) == ({"type": ["regular"]}, 2 * DAY)
    with pytest.raises(InvalidParameter, match="invalid filter 'what'"):
        rule_filters({"what": ["1"]}, NOW)


@given(
    st.lists(
        st.tuples(st.integers(0, 20), st.integers(0, 50), st.booleans(), st.booleans()), max_size=12
    ),
    st.integers(0, 300),
    st.booleans(),
)
def test_order_and_limit_hold(rows, limit, everything):
    records = []
    for number, (parent, size, in_use, shared) in enumerate(rows):
        name = str(parent) if parent < number else ""
        records.append(
            kept(str(number), parent=name, size=size, age=number, in_use=in_use, shared=shared)
        )
    rule = Rule(max_used=limit, everything=everything)
    gone = choose(records, rule, now_ns=NOW, free=0)
    left = {record.id for record in records} - {record.id for record in gone}
    assert not any(record.in_use for record in gone)
    assert all(record.parent in left for record in records if record.id in left and record.parent)
    for count, record in enumerate(gone):
        later = {other.id for other in gone[count + 1 :]} | left
        assert not any(other.parent == record.id for other in records if other.id in later)


def test_settings():
    found = parse_builder(
        {
            "gc": {
                "enabled": True,
                "policy": [
                    {"keepStorage": "10GB", "filter": ["unused-for=48h", "type=regular"]},
                    {"maxUsedSpace": "1GiB", "all": True, "keepDuration": "24h"},
                    {"reservedSpace": "5MB", "filter": {"type": {"exec.cachemount": True}}},
                ],
            },
            "entitlements": {"security-insecure": True},
        }
    )
    assert found.allowed == (NETWORK_HOST, INSECURE)
    first, second, third = found.rules_on("/")
    assert (first.reserved, first.unused_ns, dict(first.filters)) == (
        10 * 10**9,
        2 * DAY,
        {"type": ["regular"]},
    )
    assert (second.max_used, second.everything, second.unused_ns) == (1 << 30, True, DAY)
    assert (third.reserved, dict(third.filters)) == (5_000_000, {"type": ["exec.cachemount"]})
    assert parse_builder({"gc": {"enabled": False}}).rules_on("/") == ()
    usual = parse_builder({"gc": {"defaultKeepStorage": "20GB"}}).rules_on("/")
    assert [rule.reserved for rule in usual] == [0, *[20 * 10**9] * 3]
    assert [rule.everything for rule in usual] == [False, False, False, True]


@pytest.mark.parametrize(
    "value",
    [
        {"what": 1},
        {"gc": {"policy": [{"keepStorage": "many"}]}},
        {"gc": {"policy": [{"filter": 3}]}},
        {"gc": {"policy": [{"filter": ["what=1"]}]}},
        {"gc": {"defaultMaxUsedSpace": "1XB"}},
        {"entitlements": {"device": True}},
    ],
)
def test_wrong_settings(value):
    with pytest.raises(InvalidParameter):
        parse_builder(value)
