"""The rule set as text: what a network's settings turn into. That nft(8) takes it is shown by the
kernel ring, that packets obey it by the client ring."""

from ipaddress import ip_network

from pier.engine.publishing import changed_bindings
from pier.model.container import PortBinding
from pier.network import guard
from pier.network.options import parse_bridge
from pier.network.rules import (
    BridgeRules,
    Publication,
    Ways,
    add_element,
    delete_element,
    ruleset,
)

KEY = "com.docker.network.bridge."


def bridge(name="pier0", *subnets, internal=False, **options):
    given = {KEY + key: value for key, value in options.items()}
    nets = tuple(ip_network(net) for net in subnets or ("172.17.0.0/16",))
    return BridgeRules(name, nets, parse_bridge(given, internal=internal), internal)


def lines(*bridges, published=(), drops_foreign=False, **more):
    text = ruleset("pier", bridges, published, drops_foreign=drops_foreign, **more)
    return text.splitlines()


def test_the_users_chain_is_never_flushed():
    text = lines(bridge())
    assert "chain user {" in text
    assert "flush chain inet pier user" not in text
    assert "flush chain inet pier forward" in text


def test_a_bridge_is_closed_but_for_published_ports():
    text = lines(bridge())
    order = [
        'oifname { "pier0" } ct status dnat accept',
        'iifname "pier0" oifname "pier0" accept',
        'oifname { "pier0" } drop',
        'iifname { "pier0" } accept',
    ]
    assert sorted(order, key=text.index) == order
    assert 'oifname != "pier0" ip saddr 172.17.0.0/16 masquerade' in text
    assert 'ip daddr 127.0.0.0/8 iifname { "pier0" } drop' in text


def test_settings():
    assert 'iifname "pier0" oifname "pier0" drop' in lines(bridge(enable_icc="false"))
    assert not any('!= "pier0" ip saddr' in line for line in lines(bridge(enable_ip_masquerade="0")))  # fmt: skip
    internal = lines(bridge("int0", internal=True))
    assert 'iifname "int0" oifname != "int0" drop' in internal
    assert not any("masquerade" in line for line in internal)
    routed = lines(bridge(gateway_mode_ipv4="routed"))
    assert 'oifname "pier0" ip daddr . meta l4proto . th dport @open4 accept' in routed
    assert not any("masquerade" in line and "saddr 172" in line for line in routed)


def test_ways_past_the_hosts_ports():
    open4 = 'oifname "pier0" ip daddr . meta l4proto . th dport @open4 accept'
    trusting = lines(bridge(trusted_host_interfaces="wan0:wan1"))
    assert f'iifname {{ "wan0", "wan1" }} {open4}' in trusting
    assert not any("@open4" in line for line in lines(bridge()))
    assert open4 in lines(bridge(), ways=Ways(direct=True))
    marked = lines(bridge(), ways=Ways(mark="0x1/0xff"))
    rule = 'oifname { "pier0" } meta mark and 0xff == 0x1 accept'
    assert marked.index(rule) < marked.index('oifname { "pier0" } drop')


def test_a_host_that_forwards_because_of_us_is_no_router():
    rule = 'meta iifkind != { "bridge", "veth" } meta oifkind != { "bridge", "veth" } drop'
    assert lines(bridge(), drops_foreign=True).count(rule) == 1
    assert rule not in lines(bridge())


def test_ports():
    everywhere = Publication("tcp", "0.0.0.0", 8080, "172.17.0.2", 80)
    assert add_element("pier", everywhere) == (
        "add element inet pier published4 { 6 . 8080 : 172.17.0.2 . 80 }"
    )
    one = Publication("udp", "::5", 53, "fd00::2", 53)
    assert add_element("pier", one) == (
        "add element inet pier published6_at { ::5 . 17 . 53 : fd00::2 . 53 }"
    )
    assert delete_element("pier", one) == (
        "delete element inet pier published6_at { ::5 . 17 . 53 }"
    )
    routed = Publication("tcp", "0.0.0.0", 8080, "172.17.0.2", 80, routed=True)
    assert add_element("pier", routed) == "add element inet pier open4 { 172.17.0.2 . 6 . 80 }"


def test_ports_are_held_to_their_addresses():
    port = guard.Port("veth1", "02:42:ac:11:00:02", ("172.17.0.2", "fd00::2"))
    text = guard.ruleset("pier", [port])
    assert 'add element bridge pier ports { "veth1" }' in text
    assert 'senders4 { "veth1" . 02:42:ac:11:00:02 . 172.17.0.2 }' in text
    assert 'senders6 { "veth1" . 02:42:ac:11:00:02 . fd00::2 }' in text
    assert guard.delete_port("pier", port).count("delete element") == 3


def test_bindings_change():
    def pairs(**changes):
        given = {key: {p: [PortBinding(*b) for b in bs] for p, bs in value.items()}
                 for key, value in changes.items()}  # fmt: skip
        present = {"80/tcp": [PortBinding("", "8080"), PortBinding("127.0.0.1", "8081")]}
        found = changed_bindings(present, **{"add": {}, "remove": {}, **given})
        return {port: [(b.HostIp, b.HostPort) for b in bs] for port, bs in found.items()}

    both = [("", "8080"), ("127.0.0.1", "8081")]
    assert pairs() == {"80/tcp": both}
    assert pairs(remove={"80/tcp": [("", "8080")]}) == {"80/tcp": both[1:]}
    assert pairs(remove={"80/tcp": [("", "")]}) == {}
    assert pairs(remove={"81/tcp": [("", "")]}) == {"80/tcp": both}
    assert pairs(add={"80/tcp": [("", "9")]}) == {"80/tcp": [*both, ("", "9")]}
    assert pairs(add={"53/udp": [("", "")]})["53/udp"] == [("", "")]
