"""Policies of what is reached outside: how they are read and judged, and what DNS answers say.

That packets obey them is shown by the client ring."""

import struct
from ipaddress import ip_address

import pytest

from pier.errors import InvalidParameter
from pier.network import dns_wire as wire
from pier.network.egress import Policy, parse, target
from pier.network.egress_rules import Holder, remove, replace, table


@pytest.mark.parametrize("text", ["", "allow", " allow "])
def test_none(text):
    assert parse(text) is None


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("deny", "deny"),
        ("allow=Example.com.", "allow=example.com"),
        ("allow=a.b:443,a.b:443", "allow=a.b:443"),
        ("allow=a:1-9/udp, *.b.c ,*:443", "allow=a:1-9/udp,*.b.c,*:443"),
        ("allow=10.1.2.3/8:80/tcp", "allow=10.0.0.0/8:80/tcp"),
        ("allow=10.1.2.3/tcp", "allow=10.1.2.3/tcp"),
        ("allow=fd00::/8,[fd00::1]:5,[fd00::]/9:6", "allow=fd00::/8,[fd00::1]:5,[fd00::/9]:6"),
    ],
)
def test_read(text, shown):
    policy = parse(text)
    assert str(policy) == shown
    assert parse(shown) == policy


@pytest.mark.parametrize(
    "text",
    ["no", "allow=", "allow=,", "deny=a", "allow=a:0", "allow=a:9-1", "allow=a:70000", "allow=a:x",
     "allow=1.2.3", "allow=1.2.3.4/40", "allow=a/b", "allow=a b", "allow=a..b", 'allow=a"b',
     "allow=a;b", "allow=a.*", "allow=" + "a" * 64],
)  # fmt: skip
def test_wrong(text):
    with pytest.raises(InvalidParameter, match=r"invalid pier\.egress"):
        parse(text)


NAMED = parse("allow=web.test:443,*.b.test,10.0.0.0/8:80/tcp,fd00::1")


@pytest.mark.parametrize(
    ("address", "protocol", "port", "passes"),
    [
        ("192.0.2.1", "tcp", 443, True),
        ("192.0.2.1", "udp", 443, True),
        ("192.0.2.1", "tcp", 80, False),
        ("192.0.2.1", "icmp", 0, False),
        ("192.0.2.2", "icmp", 0, True),
        ("192.0.2.3", "tcp", 443, False),
        ("10.9.9.9", "tcp", 80, True),
        ("10.9.9.9", "udp", 80, False),
        ("fd00::1", "sctp", 7, True),
        ("fd00::2", "tcp", 7, False),
    ],
)
def test_judged(address, protocol, port, passes):
    web, below = NAMED.items[:2]
    pinned = {web.key: {ip_address("192.0.2.1")}, below.key: {ip_address("192.0.2.2")}}
    assert NAMED.allows(ip_address(address), protocol, port, pinned) is passes
    assert not Policy().allows(ip_address(address), protocol, port, pinned)


@pytest.mark.parametrize(
    ("name", "listed"),
    [("web.test", True), ("x.web.test", False), ("a.b.test", True), ("a.c.b.test", True),
     ("b.test", False), ("ab.test", False), (".b.test", False)],
)  # fmt: skip
def test_names(name, listed):
    assert NAMED.allows_name(name) is listed


def test_targets():
    assert target("A.b:80") == ("a.b", "tcp", 80)
    assert target("[::1]:53/udp") == ("::1", "udp", 53)
    assert target("10.0.0.1") == ("10.0.0.1", "icmp", 0)
    with pytest.raises(InvalidParameter):
        target("a:1-2")


def test_what_is_made_is_taken_away():
    one = Holder("c1", NAMED, ("pier0",), ("172.17.0.2", "fd00::2"))
    other = Holder("c1", parse("allow=web.test:443"), ("pier0",), ("172.17.0.2",))
    text = table("t", [one], {})
    gone = remove("t", one)
    for word in ("chain c1", "set c1_no4", f"set c1_{NAMED.items[0].key}_4", "counter c1"):
        assert word in text
        assert f"delete {word.replace(' ', ' inet t ', 1)}\n" in gone
    changed = replace("t", one, other)
    assert f"delete set inet t c1_{NAMED.items[1].key}_6\n" in changed
    assert f"delete set inet t c1_{NAMED.items[0].key}" not in changed
    assert "delete element inet t held6 { fd00::2 }" in changed
    assert table("t", [], {}) == "table inet t\ndelete table inet t\n"


def record(owner, kind, data, ttl=60):
    return owner + struct.pack("!HHIH", kind, 1, ttl, len(data)) + data


def response(*records):
    head = struct.pack("!HHHHHH", 7, 0x8180, 1, len(records), 0, 0)
    return head + wire.encode_name("web.test") + struct.pack("!HH", 1, 1) + b"".join(records)


def test_answers():
    question = b"\xc0\x0c"
    alias = wire.encode_name("www.test")
    data = response(
        record(question, 5, alias),
        record(alias, 1, bytes((192, 0, 2, 1)), 30),
        record(alias, 28, ip_address("fd00::1").packed, 9),
        record(wire.encode_name("evil.test"), 1, bytes((192, 0, 2, 66))),
    )
    names, found = wire.addresses_of(data)
    assert names == {"web.test", "www.test"}
    assert found == {ip_address("192.0.2.1"): 30, ip_address("fd00::1"): 9}


@pytest.mark.parametrize(
    "data",
    [b"", b"\0" * 11, response(b"\xc0"), response(record(b"\xc0\xff", 1, bytes(4))),
     response(b"\xc0\x1e" + bytes(10))],
)  # fmt: skip
def test_answers_that_cannot_be_read(data):
    assert wire.addresses_of(data)[1] == {}


def test_a_name_that_points_to_itself():
    data = struct.pack("!HHHHHH", 7, 0x8180, 1, 0, 0, 0) + b"\xc0\x0c"
    assert wire.addresses_of(data) == (set(), {})
