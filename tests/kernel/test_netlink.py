"""Links, addresses, routes and rules in a network namespace of the test's own."""

import errno
import json
import os
import socket
from ipaddress import ip_interface, ip_network

import pytest
from inside import apart

from pier.kernel import conntrack
from pier.kernel import mount as mnt
from pier.kernel import namespaces as ns
from pier.kernel import rtnetlink as rt
from pier.kernel.netlink import Netlink
from pier.kernel.nftables import Missing, Nftables
from pier.network import egress, egress_rules, guard, links, rules
from pier.network.namespaces import Namespaces
from pier.network.options import parse_bridge


def alone(run):
    """Run a function in a process with a network of its own; it reports by exceptions."""

    def child():
        ns.bring_loopback_up()
        run()

    apart(child, ns.CLONE_NEWNET)


@pytest.fixture
def bridges():
    """Skips where the kernel has no bridges or veth pairs."""

    def probe():
        with Netlink() as netlink:
            netlink.request(rt.add_link("bridge", "b9"))
            netlink.request(rt.add_link("veth", "v9"))

    try:
        alone(probe)
    except AssertionError:
        pytest.skip("this kernel has no bridges or veth pairs")


@pytest.mark.usefixtures("bridges")
def test_a_bridge_and_a_container():
    def run():
        namespaces = Namespaces(lambda _delay, _call: None)
        with Netlink() as netlink:
            index = links.make_bridge(netlink, "b0", "mine", "02:42:01:02:03:04", 1400)
            links.set_addresses(netlink, index, [ip_interface("10.5.0.1/24")])
            links.set_addresses(netlink, index, [ip_interface("10.6.0.1/24")])
            found = links.find(netlink, "b0")
            assert (found.kind, found.alias, found.mtu) == ("bridge", "mine", 1400)
            assert [str(net) for net, _ in links.routes(netlink)] == ["10.6.0.0/24"]
            with pytest.raises(OSError, match="File exists") as caught:
                links.make_bridge(netlink, "b0", "", "02:42:01:02:03:05", 0)
            assert caught.value.errno == errno.EEXIST

            netns_fd = namespaces.take()
            address = ip_interface("10.6.0.2/24")
            inside = links.Inside("eth0", "02:42:0a:06:00:02", [address], gateways=["10.6.0.1"])
            links.add_veth(netlink, "v0", inside, netns_fd, bridge=index, isolated=True)
            with namespaces.entered(netns_fd), Netlink() as other:
                links.configure(other, inside)
                assert links.find(other, "eth0").address == b"\x02\x42\x0a\x06\x00\x02"
                listener = socket.create_server(("10.6.0.2", 80))
            assert links.find(netlink, "v0").master == index
            assert links.find(netlink, "eth0") is None
            with socket.create_connection(("10.6.0.2", 80), timeout=5):
                accepted, peer = listener.accept()
            assert peer[0] == "10.6.0.1"
            accepted.close()
            listener.close()
            links.remove(netlink, "v0")
            links.remove(netlink, "v0")
            os.close(netns_fd)
        namespaces.close()

    alone(run)


@pytest.mark.usefixtures("bridges")
def test_a_batch_tells_of_the_first_failure():
    def run():
        with Netlink() as netlink:
            netlink.request(rt.add_link("bridge", "b0"))
            with pytest.raises(OSError, match="netlink") as caught:
                netlink.batch([rt.delete_link_named("none"), rt.delete_link_named("b0")])
            assert caught.value.errno == errno.ENODEV
            assert links.find(netlink, "b0") is None

    alone(run)


@pytest.fixture
def nftables():
    """Skips where the library or the kernel's part is not there."""

    def probe():
        with Nftables() as nft:
            nft.run("add table inet probe\n")

    try:
        Nftables().close()
        alone(probe)
    except Missing as exc:
        pytest.skip(str(exc))
    except AssertionError:
        pytest.skip("this kernel has no nftables")


@pytest.mark.usefixtures("nftables")
def test_rules_need_no_file_of_protocols():
    def run():
        # What a minimal system lacks, and where libnftables would look names up.
        if os.path.exists("/etc/protocols"):
            mnt.mount("/dev/null", "/etc/protocols", "", mnt.MS_BIND)
        policy = egress.parse("allow=web.test:443,10.0.0.0/8:80-90/udp,fd00::1")
        holder = egress_rules.Holder("c1", policy, ("a0",), ("10.1.0.2", "fd00::2"))
        refusals = [egress_rules.Refusal("192.0.2.1", name, 1, 2, 3) for name in ("tcp", "icmp")]
        port = rules.Publication("tcp", "0.0.0.0", 8080, "10.1.0.2", 80)
        with Nftables() as nft:
            nft.run(guard.ruleset("t", [guard.Port("veth1", "02:42:0a:01:00:02", ("10.1.0.2",))]))
            nft.run(rules.ruleset("t", [], [port], drops_foreign=True))
            standing = egress_rules.Standing(refusals=refusals)
            nft.run(egress_rules.table("e", [holder], {"c1": standing}))
            listing = json.loads(nft.run("list table inet e\n", json=True))
            kept = egress_rules.read(listing)["c1"].refusals
        assert sorted(kept, key=str) == sorted(refusals, key=str)

    apart(run, ns.CLONE_NEWNET | ns.CLONE_NEWNS)


@pytest.mark.usefixtures("nftables")
def test_a_rule_set_replaces_itself_whole():
    def run():
        every = [
            rules.BridgeRules("a0", (ip_network("10.1.0.0/16"),), parse_bridge({}), False),
            rules.BridgeRules(
                "t0",
                (ip_network("10.4.0.0/16"), ip_network("fd04::/64")),
                parse_bridge({"com.docker.network.bridge.trusted_host_interfaces": "a0:b0"}),
                False,
            ),
            rules.BridgeRules(
                "i0", (ip_network("10.2.0.0/16"), ip_network("fd00::/64")), parse_bridge({}), True
            ),
            rules.BridgeRules(
                "r0",
                (ip_network("10.3.0.0/16"), ip_network("fd01::/64")),
                parse_bridge(
                    {
                        "com.docker.network.bridge.gateway_mode_ipv4": "routed",
                        "com.docker.network.bridge.gateway_mode_ipv6": "nat-unprotected",
                        "com.docker.network.host_ipv6": "fd09::1",
                    }
                ),
                False,
            ),
        ]
        ports = [
            rules.Publication("tcp", "0.0.0.0", 8080, "10.1.0.2", 80),
            rules.Publication("udp", "127.0.0.1", 53, "10.1.0.2", 53),
            rules.Publication("tcp", "::", 80, "fd01::2", 80),
            rules.Publication("sctp", "fd09::1", 80, "fd01::2", 80),
            rules.Publication("tcp", "0.0.0.0", 80, "10.3.0.2", 80, routed=True),
        ]
        port = guard.Port("veth1", "02:42:0a:01:00:02", ("10.1.0.2", "fd01::2"))
        with Nftables() as nft:
            for _ in range(2):
                nft.run(guard.ruleset("t", [port]))
            nft.run(guard.delete_port("t", port))
            nft.run(guard.delete("t"))
            ways = rules.Ways(direct=True, mark="0x1/0xff")
            nft.run(rules.ruleset("t", every, ports, drops_foreign=True, ways=ways))
            nft.run(rules.ruleset("t", every, ports, drops_foreign=True))
            nft.run("add rule inet t user ip saddr 192.0.2.1 drop\n")
            once = nft.run("list table inet t\n")
            nft.run(rules.ruleset("t", every, ports, drops_foreign=True))
            assert nft.run("list table inet t\n") == once
            assert "192.0.2.1 drop" in once
            for port in ports:
                nft.run(rules.delete_element("t", port))
            with pytest.raises(OSError, match="No such file"):
                nft.run(rules.delete_element("t", ports[0]))
            nft.run(rules.ruleset("t", [], [], drops_foreign=False))
            nft.run(rules.delete("t"))
            nft.run(rules.delete("t"))
            assert "inet t" not in nft.run("list ruleset\n")

    alone(run)


@pytest.mark.usefixtures("nftables")
def test_flows_are_forgotten():
    def run():
        with Nftables() as nft:
            nft.run(
                "table inet t {\nchain c {\ntype filter hook output priority 0;\nct state new accept\n}\n}\n"
            )
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            for port in (5300, 5301):
                sock.sendto(b"x", ("127.0.0.1", port))
        assert conntrack.forget(socket.IPPROTO_TCP, {5300}) == 0
        assert conntrack.forget(socket.IPPROTO_UDP, {5300, 5302}) == 1
        assert conntrack.forget(socket.IPPROTO_UDP, {5300, 5301}) == 1

    alone(run)
