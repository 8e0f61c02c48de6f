"""Networks as the docker command sees them: made, listed, connected; and who reaches whom."""

import contextlib
import json
import shlex
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest

from busybox_image import NAME, docker_archive, root_tar
from engine_process import Client, EngineProcess, wait_until


@pytest.fixture(autouse=True)
def _leave_no_network(engine: EngineProcess) -> Iterator[None]:
    """The containers are removed first, by the ring's own fixture."""
    yield
    engine.remove_containers()
    engine.calls.remove_networks()


def network(docker: Client, *args: str) -> str:
    """Make a network called by the last argument; return the name."""
    docker("network", "create", *args)
    return args[-1]


def background(docker: Client, image: str, name: str, *flags: str, serves: bool = False) -> None:
    """Start a container that waits, or says its name to whoever connects to port 80."""
    command = ["sh", "-c", f"while true; do echo {name} | nc -l -p 80; done"]
    docker("run", "-d", "--name", name, *flags, image, *(command if serves else ["sleep", "1000"]))


def reaches(docker: Client, source: str, address: str) -> bool:
    done = docker("exec", source, "ping", "-c", "1", "-W", "1", address, check=False)
    return done.returncode == 0


def inspect(docker: Client, ref: str) -> Any:
    return json.loads(docker("inspect", ref).stdout)[0]


def address(docker: Client, name: str, on: str = "bridge") -> str:
    settings = inspect(docker, name)["NetworkSettings"]["Networks"][on]
    found = settings["IPAddress"] or settings["GlobalIPv6Address"]
    assert isinstance(found, str)
    return found


def refused(docker: Client, *args: str) -> str:
    done = docker(*args, check=False)
    assert done.returncode != 0, done.stdout
    return done.stderr


def test_no_ipv6_without_an_address(docker: Client, image: str) -> None:
    """Not link-local either: it would be a way around what was asked for."""
    network(docker, "red")
    shown = docker("run", "--rm", "--network", "red", image, "ip", "-6", "addr").stdout
    assert "::1/128" in shown
    assert "eth0" not in shown


def test_options_decide_the_families(docker: Client) -> None:
    network(docker, "-o", "com.docker.network.enable_ipv6=true", "red")
    network(docker, "--ipv6=false", "-o", "com.docker.network.enable_ipv6=true", "blue")
    families = ["network", "inspect", "--format", "{{.EnableIPv4}} {{.EnableIPv6}}"]
    assert docker(*families, "red", "blue").stdout.split("\n")[:2] == ["true true", "true false"]


def test_two_addresses_of_a_closed_network(docker: Client, image: str) -> None:
    """A bridge that gets no address keeps none of a /31 from its containers."""
    mode = "com.docker.network.bridge.gateway_mode_ipv4=isolated"
    network(docker, "--internal", "-o", mode, "--subnet", "10.9.9.0/31", "red")
    background(docker, image, "one", "--network", "red")
    background(docker, image, "two", "--network", "red")
    assert reaches(docker, "one", "two")


def test_another_gateway(docker: Client, image: str) -> None:
    """Docker's way to say that containers route through somebody else on the network."""
    other = "DefaultGatewayIPv4=10.9.9.9"
    network(docker, "--subnet", "10.9.9.0/24", "--aux-address", other, "red")
    seen = docker("run", "--rm", "--network", "red", image, "ip", "route").stdout
    assert "default via 10.9.9.9 dev eth0" in seen


def test_a_sysctl_of_an_endpoint_in_any_case(docker: Client, image: str) -> None:
    """The docker command writes all of --network in lower case."""
    network(docker, "red")
    option = "driver-opt=com.docker.network.endpoint.sysctls=net.ipv4.conf.IFNAME.log_martians=1"
    path = "/proc/sys/net/ipv4/conf/eth0/log_martians"
    done = docker("run", "--rm", "--network", f"name=red,{option}", image, "cat", path)
    assert done.stdout == "1\n"


def test_default_bridge(docker: Client, image: str) -> None:
    background(docker, image, "one")
    background(docker, image, "two")
    settings = inspect(docker, "one")["NetworkSettings"]
    own = settings["Networks"]["bridge"]
    assert own["IPAddress"].startswith("172.17.0.")
    assert (own["IPPrefixLen"], own["Gateway"]) == (16, "172.17.0.1")
    assert (settings["IPAddress"], settings["EndpointID"]) == (own["IPAddress"], own["EndpointID"])
    listed = json.loads(docker("network", "inspect", "bridge").stdout)[0]
    assert {c["Name"] for c in listed["Containers"].values()} == {"one", "two"}
    seen = docker("exec", "one", "ip", "route").stdout
    assert "default via 172.17.0.1 dev eth0" in seen
    assert own["IPAddress"] in docker("exec", "one", "cat", "/etc/hosts").stdout
    assert reaches(docker, "one", address(docker, "two"))
    assert reaches(docker, "one", "172.17.0.1")


def test_addresses_come_back(docker: Client, image: str) -> None:
    """An address is free when its container has ended, and the lowest one is taken first."""
    first = docker("run", "--rm", image, "hostname", "-i").stdout
    assert docker("run", "--rm", image, "hostname", "-i").stdout == first
    background(docker, image, "holder")
    assert docker("run", "--rm", image, "hostname", "-i").stdout != first
    docker("stop", "-t", "0", "holder")
    assert inspect(docker, "holder")["NetworkSettings"]["Networks"]["bridge"]["IPAddress"] == ""


def test_networks_are_apart(docker: Client, image: str) -> None:
    for name in ("red", "blue"):
        network(docker, name)
        background(docker, image, f"in-{name}", "--network", name)
    background(docker, image, "default")
    blue = address(docker, "in-blue", "blue")
    assert not reaches(docker, "in-red", blue)
    assert not reaches(docker, "default", blue)
    assert reaches(docker, "in-blue", address(docker, "in-blue", "blue"))
    docker("network", "connect", "blue", "in-red")
    assert reaches(docker, "in-red", blue)
    assert "eth1" in docker("exec", "in-red", "ip", "link").stdout
    docker("network", "disconnect", "blue", "in-red")
    assert not reaches(docker, "in-red", blue)
    assert "eth1" not in docker("exec", "in-red", "ip", "link").stdout


def test_internal_and_icc(docker: Client, image: str) -> None:
    network(docker, "--internal", "closed")
    network(docker, "-o", "com.docker.network.bridge.enable_icc=false", "shy")
    for name in ("one", "two"):
        background(docker, image, f"closed-{name}", "--network", "closed")
        background(docker, image, f"shy-{name}", "--network", "shy")
    assert "default" not in docker("exec", "closed-one", "ip", "route").stdout
    assert reaches(docker, "closed-one", address(docker, "closed-two", "closed"))
    assert not reaches(docker, "shy-one", address(docker, "shy-two", "shy"))
    gateway = inspect(docker, "shy-one")["NetworkSettings"]["Networks"]["shy"]["Gateway"]
    assert reaches(docker, "shy-one", gateway)


@contextlib.contextmanager
def outside(pierd: EngineProcess) -> Iterator[list[str]]:
    """A host that is connected to pierd's by a cable: 192.0.2.2 there, 192.0.2.1 here.

    Yields what to put before a command's words to run it there. It routes 172.16/12 and fd00::/8
    this way, as a hostile neighbour would.
    """
    with subprocess.Popen(
        ["unshare", "--net", "sh", "-c", "ip link set lo up; echo; read _"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as holder:
        assert holder.stdout is not None
        holder.stdout.readline()
        there = ["nsenter", f"--net=/proc/{holder.pid}/ns/net", "--"]
        script = f"""
            ip link add out0 type veth peer name out1 netns {holder.pid}
            ip addr add 192.0.2.1/24 dev out0; ip link set out0 up
        """
        subprocess.run([*pierd.in_network, "sh", "-ec", script], check=True)
        script = """
            ip addr add 192.0.2.2/24 dev out1; ip link set out1 up
            ip route add 172.16.0.0/12 via 192.0.2.1
        """
        subprocess.run([*there, "sh", "-ec", script], check=True)
        try:
            yield there
        finally:
            subprocess.run([*pierd.in_network, "ip", "link", "del", "out0"], check=True)
            holder.communicate()


def says(prefix: list[str], host: str, port: int) -> str:
    """What answers on a TCP port, "" for nothing within two seconds."""
    code = (
        "import socket, sys\n"
        "try:\n"
        "    with socket.create_connection((sys.argv[1], int(sys.argv[2])), 2) as s:\n"
        "        print(s.makefile().read().strip())\n"
        "except OSError:\n"
        "    pass\n"
    )
    command = [*prefix, "python3", "-c", code, host, str(port)]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def test_the_world_outside(pierd: EngineProcess, docker: Client, image: str) -> None:
    """Out with the host's address; in only by a published port."""
    network(docker, "--internal", "closed")
    background(docker, image, "web", "-p", "8080:80", serves=True)
    background(docker, image, "hidden", "--network", "closed")
    web = address(docker, "web")
    with outside(pierd) as there:
        assert reaches(docker, "web", "192.0.2.2")
        assert not reaches(docker, "hidden", "192.0.2.2")
        assert says(there, "192.0.2.1", 8080) == "web"
        assert says(there, web, 80) == ""
        ping = subprocess.run([*there, "ping", "-c1", "-W1", web], capture_output=True, check=False)
        assert ping.returncode != 0
    assert says(pierd.in_network, web, 80) == "web"


def test_published_ports(pierd: EngineProcess, docker: Client, image: str) -> None:
    """From the host by every address of it, from the container itself, and from its neighbours."""
    network(docker, "red")
    background(docker, image, "web", "-p", "8080:80", "-p", "127.0.0.1:8081:80", serves=True)
    background(docker, image, "other", "--network", "red")
    here = pierd.in_network
    everywhere = [("127.0.0.1", 8080), ("172.17.0.1", 8080), ("127.0.0.1", 8081), ("::1", 8080)]
    for host, port in everywhere:
        assert says(here, host, port) == "web", (host, port)
    assert says(here, "172.17.0.1", 8081) == ""
    for source in ("web", "other"):
        gateway = docker("exec", source, "sh", "-c", "ip route | awk '/default/ {print $3}'").stdout
        heard = docker("exec", source, "nc", "-w", "2", gateway.strip(), "8080").stdout
        assert heard == "web\n", source
    shown = docker("port", "web").stdout
    for host in ("0.0.0.0:8080", "[::]:8080", "127.0.0.1:8081"):
        assert f"80/tcp -> {host}\n" in shown
    assert "0.0.0.0:8080->80/tcp" in docker("ps", "--filter", "publish=8080").stdout
    assert docker("ps", "-q", "--filter", "publish=80").stdout == ""
    assert docker("ps", "-q", "--filter", "expose=80").stdout != ""
    message = refused(docker, "run", "--rm", "-p", "8080:80", image, "true")
    assert "Bind for 0.0.0.0:8080 failed: port is already allocated" in message
    assert "driver failed programming external connectivity on endpoint" in message
    docker("rm", "-f", "web")
    assert says(here, "127.0.0.1", 8080) == ""
    background(docker, image, "web", "-p", "8080:80", serves=True)
    assert says(here, "127.0.0.1", 8080) == "web"


def test_ports_come_and_go_with_the_way_in(
    pierd: EngineProcess, docker: Client, image: str
) -> None:
    """A container on internal networks alone publishes nothing, until it is on another one."""
    network(docker, "--internal", "closed")
    network(docker, "red")
    background(docker, image, "web", "--network", "closed", "-p", "8083:80", serves=True)
    assert docker("port", "web").stdout == ""
    docker("network", "connect", "red", "web")
    assert docker("port", "web", "80").stdout.splitlines()[0] == "0.0.0.0:8083"
    assert says(pierd.in_network, "127.0.0.1", 8083) == "web"
    assert docker("exec", "web", "nc", "-w", "2", address(docker, "web", "red"), "80").stdout
    docker("network", "disconnect", "red", "web")
    assert docker("port", "web").stdout == ""
    assert says(pierd.in_network, "127.0.0.1", 8083) == ""
    background(docker, image, "other", "-p", "8083:80", serves=True)
    message = refused(docker, "network", "connect", "red", "web")
    assert "Bind for 0.0.0.0:8083 failed: port is already allocated" in message
    assert list(inspect(docker, "web")["NetworkSettings"]["Networks"]) == ["closed"]
    assert "eth1" not in docker("exec", "web", "ip", "link").stdout
    assert says(pierd.in_network, "127.0.0.1", 8083) == "other"
    docker("rm", "-f", "other")
    docker("network", "connect", "red", "web")
    assert says(pierd.in_network, "127.0.0.1", 8083) == "web"


def test_ports_that_others_have(pierd: EngineProcess, docker: Client, image: str) -> None:
    code = "import socket; s = socket.create_server(('', 8090)); print(flush=True); input()"
    with subprocess.Popen(
        [*pierd.in_network, "python3", "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as other:
        assert other.stdout is not None
        other.stdout.readline()
        message = refused(docker, "run", "--rm", "-p", "8090:80", image, "true")
        assert "failed to bind host port 0.0.0.0:8090/tcp: address already in use" in message
        found = docker(
            "run", "-d", "--name", "it", "-p", "8089-8091:80", image, "sleep", "9"
        ).stdout
        assert docker("port", found.strip(), "80").stdout.splitlines()[0] == "0.0.0.0:8089"
        other.communicate(b"\n")


def test_ephemeral_ports(docker: Client, image: str) -> None:
    flags = ["--expose", "90", "--expose", "91/udp", "-P"]
    background(docker, image, "it", *flags)
    ports = inspect(docker, "it")["NetworkSettings"]["Ports"]
    assert set(ports) == {"90/tcp", "91/udp"}
    for bindings in ports.values():
        assert {b["HostIp"] for b in bindings} == {"0.0.0.0", "::"}
        assert len({b["HostPort"] for b in bindings}) == 1
        assert int(bindings[0]["HostPort"]) >= 32768


def test_static_addresses(docker: Client, image: str) -> None:
    network(docker, "--subnet", "10.9.0.0/24", "--ip-range", "10.9.0.128/25", "mine")
    mac = "02:42:ac:11:00:99"
    background(docker, image, "it", "--network", "mine", "--ip", "10.9.0.200", "--mac-address", mac)
    settings = inspect(docker, "it")["NetworkSettings"]["Networks"]["mine"]
    assert (settings["IPAddress"], settings["MacAddress"]) == ("10.9.0.200", mac)
    assert settings["IPAMConfig"] == {"IPv4Address": "10.9.0.200"}
    assert mac in docker("exec", "it", "ip", "link").stdout
    run = ("run", "--rm", "--network", "mine")
    assert "Address already in use" in refused(docker, *run, "--ip", "10.9.0.200", image, "true")
    message = refused(docker, *run, "--ip", "10.8.0.1", image, "true")
    assert "no configured subnet or ip-range contain the IP address 10.8.0.1" in message
    for predefined in ("bridge", "host", "none"):
        asked = ("--network", predefined, "--ip", "172.17.0.9")
        message = refused(docker, "run", "--rm", *asked, image, "true")
        assert "user specified IP address is supported on user defined networks only" in message
    message = refused(docker, *run, "--ip6", "::ffff:10.9.0.7", image, "true")
    assert "invalid IPv6 address: ::ffff:10.9.0.7" in message
    docker("restart", "-t", "0", "it")
    assert address(docker, "it", "mine") == "10.9.0.200"


def test_words_of_the_predefined_networks(docker: Client, image: str) -> None:
    background(docker, image, "alone", "--network", "none")
    for predefined in ("bridge", "host", "none"):
        message = refused(docker, "network", "connect", "--alias", "x", predefined, "alone")
        assert "alias is supported only for containers in user defined networks" in message
    background(docker, image, "hosted", "--network", "host")
    message = refused(docker, "network", "disconnect", "host", "hosted")
    assert "cannot disconnect container from host network - container was created in" in message


def test_subnets_are_shown_by_their_family(docker: Client) -> None:
    network(docker, "--ipv6", "--subnet", "fd80:24e2::/64", "--subnet", "10.28.0.0/16", "both")
    shown = json.loads(docker("network", "inspect", "both").stdout)[0]["IPAM"]["Config"]
    assert [entry["Subnet"] for entry in shown] == ["10.28.0.0/16", "fd80:24e2::/64"]


def test_ipv6(pierd: EngineProcess, docker: Client, image: str) -> None:
    network(docker, "--ipv6", "six")
    background(docker, image, "one", "--network", "six")
    background(docker, image, "two", "--network", "six")
    settings = inspect(docker, "two")["NetworkSettings"]["Networks"]["six"]
    background(docker, image, "web", "--network", "six", "-p", "8065:80", serves=True)
    for host in (settings["IPv6Gateway"], "::1", "127.0.0.1"):
        assert says(pierd.in_network, host, 8065) == "web", host
    assert settings["GlobalIPv6Address"].startswith("fd")
    assert reaches(docker, "one", settings["GlobalIPv6Address"])
    assert reaches(docker, "one", settings["IPv6Gateway"])


def test_create_errors(docker: Client) -> None:
    network(docker, "--subnet", "10.9.0.0/24", "mine")
    for args, message in (
        (["mine"], "network with name mine already exists"),
        (["bridge"], "operation is not permitted on predefined bridge network"),
        (["--subnet", "10.9.0.0/16", "x"], "invalid pool request: Pool overlaps with other one on"),
        (["--subnet", "10.8.0.0/33", "x"], "invalid subnet 10.8.0.0/33: invalid CIDR block"),
        (["--subnet", "10.8.0.5/24", "x"], "invalid subnet 10.8.0.5/24: it should be 10.8.0.0/24"),
        (["-d", "nosuch", "x"], 'plugin "nosuch" not found'),
        (["-d", "host", "x"], 'only one instance of "host" network is allowed'),
        (["--ipv4=false", "x"], "IPv4 or IPv6 must be enabled"),
        (["--ipam-driver", "nosuch", "x"], 'plugin "nosuch" not found'),
        (["--config-from", "nosuch", "x"], 'configuration network "nosuch" does not exist'),
        (["-o", "com.docker.network.driver.mtu=abc", "x"], "value: abc (strconv.Atoi: parsing"),
        (["-o", "com.docker.network.bridge.enable_icc=maybe", "x"], 'ParseBool: parsing "maybe"'),
    ):
        assert message in refused(docker, "network", "create", *args), args
    assert docker("network", "ls", "-q", "--filter", "name=^x$").stdout == ""


def test_removal(docker: Client, image: str) -> None:
    network(docker, "mine")
    background(docker, image, "it", "--network", "mine")
    message = refused(docker, "network", "rm", "mine")
    assert 'error while removing network: network mine has active endpoints (name:"it"' in message
    assert "bridge is a pre-defined network" in refused(docker, "network", "rm", "bridge")
    assert "network nosuch not found" in refused(docker, "network", "rm", "nosuch")
    docker("stop", "-t", "0", "it")
    assert docker("network", "rm", "mine").stdout == "mine\n"
    message = refused(docker, "start", "it")
    assert "failed to set up container networking: network mine not found" in message


def test_connecting(docker: Client, image: str) -> None:
    network(docker, "mine")
    background(docker, image, "it")
    connect = ("network", "connect")
    assert "network nosuch not found" in refused(docker, *connect, "nosuch", "it")
    assert "No such container: nosuch" in refused(docker, *connect, "mine", "nosuch")
    assert "endpoint with name it already exists in network bridge" in refused(
        docker, *connect, "bridge", "it"
    )
    assert "host network" in refused(docker, *connect, "host", "it")
    disconnect = ("network", "disconnect")
    assert "is not connected to network mine" in refused(docker, *disconnect, "mine", "it")
    docker("stop", "-t", "0", "it")
    docker(*connect, "mine", "it")
    docker(*disconnect, "bridge", "it")
    docker("start", "it")
    assert list(inspect(docker, "it")["NetworkSettings"]["Networks"]) == ["mine"]


def test_lists_and_prune(docker: Client, image: str) -> None:
    network(docker, "--label", "tier=a", "kept")
    network(docker, "--label", "tier=b", "spare")
    background(docker, image, "it", "--network", "kept")

    def names(*filters: str) -> list[str]:
        flags = [word for item in filters for word in ("--filter", item)]
        return docker("network", "ls", "--format", "{{.Name}}", *flags).stdout.split()

    assert names() == ["bridge", "host", "kept", "none", "spare"]
    assert names("driver=bridge", "type=custom") == ["kept", "spare"]
    assert names("dangling=true") == ["spare"]
    assert names("label=tier=a") == names("name=kep") == ["kept"]
    assert "invalid filter: 'type'='foo'" in refused(
        docker, "network", "ls", "--filter", "type=foo"
    )
    assert "spare" not in docker("network", "prune", "-f", "--filter", "label=tier=a").stdout
    assert "spare" in docker("network", "prune", "-f").stdout
    assert names("type=custom") == ["kept"]


def test_several_at_once(docker: Client, image: str) -> None:
    network(docker, "one")
    network(docker, "two")
    flags = ["--network", "one", "--network", "name=two,gw-priority=5"]
    background(docker, image, "it", *flags)
    route = docker("exec", "it", "ip", "route").stdout
    gateway = inspect(docker, "it")["NetworkSettings"]["Networks"]["two"]["Gateway"]
    assert f"default via {gateway} dev eth1" in route


def test_configuration_networks(docker: Client, image: str) -> None:
    network(docker, "--config-only", "--subnet", "10.77.0.0/24", "conf")
    network(docker, "--config-from", "conf", "real")
    background(docker, image, "it", "--network", "real")
    assert address(docker, "it", "real").startswith("10.77.0.")
    message = refused(docker, "run", "--rm", "--network", "conf", image, "true")
    assert "cannot create endpoint on configuration-only network" in message


def test_what_the_start_is_told(docker: Client, image: str) -> None:
    message = refused(docker, "run", "--rm", "--network", "nosuch", image, "true")
    assert "failed to set up container networking: network nosuch not found" in message


def test_without_and_with_the_hosts(pierd: EngineProcess, docker: Client, image: str) -> None:
    alone = docker("run", "--rm", "--network", "none", image, "ip", "-o", "link").stdout
    assert [line.split()[1] for line in alone.splitlines()] == ["lo:"]
    shared = docker("run", "--rm", "--network", "host", image, "ip", "-o", "link").stdout
    assert "pier0:" in shared
    background(docker, image, "it", "--network", "none")
    assert list(inspect(docker, "it")["NetworkSettings"]["Networks"]) == ["none"]
    background(docker, image, "joined", "--network", "container:it")
    assert inspect(docker, "joined")["NetworkSettings"]["Networks"] == {}


def test_rules_come_back(pierd: EngineProcess, docker: Client, image: str) -> None:
    """After somebody flushed all rules, and after pierd was killed."""
    background(docker, image, "web", "-p", "8080:80", serves=True)
    subprocess.run([*pierd.in_network, "nft", "flush", "ruleset"], check=True)
    listing = [*pierd.in_network, "nft", "list", "ruleset"]
    wait_until(lambda: b"tcp . 8080 :" in subprocess.check_output(listing), "the rules are back")
    before = address(docker, "web")
    pierd.kill()
    assert says(pierd.in_network, "127.0.0.1", 8080) == "web"
    pierd.start()
    assert says(pierd.in_network, "127.0.0.1", 8080) == "web"
    assert address(docker, "web") == before
    assert docker("run", "--rm", image, "hostname", "-i").stdout.strip() != before


@contextlib.contextmanager
def cable(pierd: EngineProcess) -> Iterator[None]:
    """Two links of the host, up0 and up1, that are each other's ends."""
    script = """
        ip link add up0 type veth peer name up1
        ip link set up0 up; ip link set up1 up
    """
    subprocess.run([*pierd.in_network, "sh", "-ec", script], check=True)
    try:
        yield
    finally:
        subprocess.run([*pierd.in_network, "ip", "link", "del", "up0"], check=True)


def test_macvlan(pierd: EngineProcess, docker: Client, image: str) -> None:
    with cable(pierd):
        options = ["-d", "macvlan", "-o", "parent=up0", "--subnet", "10.33.0.0/24"]
        network(docker, *options, "lan")
        background(docker, image, "one", "--network", "lan")
        background(docker, image, "two", "--network", "lan")
        assert reaches(docker, "one", address(docker, "two", "lan"))
        assert reaches(docker, "one", "two")
        background(docker, image, "guest")
        docker("network", "connect", "lan", "guest")
        assert reaches(docker, "guest", address(docker, "two", "lan"))
        docker("network", "disconnect", "lan", "guest")
        assert "eth1" not in docker("exec", "guest", "ip", "link").stdout
        seen = subprocess.check_output([*pierd.in_network, "ip", "-br", "link"], text=True)
        assert "macvlan" not in seen
        docker("rm", "-f", "one", "two")
        docker("network", "rm", "lan")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["-o", "parent=eth77"], "invalid subinterface vlan name eth77"),
        (["-o", "parent=lo"], "loopback interface is not a valid macvlan parent link"),
        (["-o", "macvlan_mode=odd"], "requested macvlan mode 'odd' is not valid"),
        (["-o", "colour=red"], "invalid option for a macvlan network: colour"),
    ],
)
def test_macvlan_refused(docker: Client, options: list[str], message: str) -> None:
    assert message in refused(docker, "network", "create", "-d", "macvlan", *options, "x")
    assert docker("network", "ls", "-q", "--filter", "name=^x$").stdout == ""


def test_link_local_addresses(docker: Client, image: str) -> None:
    network(docker, "mine")
    background(docker, image, "it", "--network", "mine", "--link-local-ip", "169.254.7.7")
    assert "169.254.7.7/16" in docker("exec", "it", "ip", "addr").stdout


def test_no_container_speaks_for_another(pierd: EngineProcess, docker: Client, image: str) -> None:
    """Packets with an address that it was not given leave a container only if it may route."""
    for name, flags in (("plain", []), ("router", ["--cap-add", "NET_ADMIN"])):
        background(docker, image, name, *flags)
        pid = docker("inspect", "-f", "{{.State.Pid}}", name).stdout.strip()
        ping = "busybox ping -c1 -W1 -I 172.17.0.99 172.17.0.1"
        script = f"ip addr add 172.17.0.99/16 dev eth0; {ping}"
        inside = ["nsenter", f"--net=/proc/{pid}/ns/net", "--", "sh", "-c", script]
        done = subprocess.run(inside, capture_output=True, text=True, check=False)
        assert (done.returncode == 0) == (name == "router"), done.stdout + done.stderr
        # Its neighbour table has still to get over the question that nobody answered.
        subprocess.run(
            [*inside[:3], "ip", "addr", "del", "172.17.0.99/16", "dev", "eth0"], check=True
        )
        own = lambda: reaches(docker, name, "172.17.0.1")  # noqa: B023, E731
        wait_until(own, "it reaches the host with its own address")
        docker("rm", "-f", name)


def test_ports_change_live(pierd: EngineProcess, docker: Client, image: str) -> None:
    """`pier update` publishes and withdraws while the container runs; what stays is not disturbed."""
    here = pierd.in_network
    background(docker, image, "web", "-p", "8070:80", serves=True)
    pierd.pier("update", "--publish-add", "8071:80", "web")
    for port in (8070, 8071):
        assert says(here, "127.0.0.1", port) == "web", port
    assert docker("exec", "web", "nc", "-w", "2", "172.17.0.1", "8071").stdout == "web\n"
    message = pierd.pier("update", "--publish-add", "8070:81", "web", check=False).stderr
    assert "Bind for 0.0.0.0:8070 failed: port is already allocated" in message
    pierd.pier("update", "--publish-rm", "8070:80", "web")
    assert says(here, "127.0.0.1", 8070) == ""
    assert says(here, "127.0.0.1", 8071) == "web"
    assert set(inspect(docker, "web")["HostConfig"]["PortBindings"]["80/tcp"][0].items()) == {
        ("HostIp", ""),
        ("HostPort", "8071"),
    }
    docker("restart", "-t", "0", "web")
    assert says(here, "127.0.0.1", 8071) == "web"
    pierd.pier("update", "--publish-rm", "80", "web")
    assert says(here, "127.0.0.1", 8071) == ""


def test_datagrams_follow_their_port(pierd: EngineProcess, docker: Client, image: str) -> None:
    """A flow that never pauses reaches whoever has the port now, not whoever had it."""
    code = (
        "import socket, sys, time\n"
        "s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\n"
        "while True:\n"
        "    s.sendto(b'hello\\n', ('172.17.0.1', 8075)); time.sleep(0.05)\n"
    )
    server = (
        "import socket, sys\n"
        "s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\n"
        "s.settimeout(15); s.bind(('', 80)); sys.stdout.write(s.recv(9).decode())\n"
    )
    background(docker, image, "squatter")  # so that the second one has another address
    with subprocess.Popen([*pierd.in_network, "python3", "-c", code]) as sender:
        try:
            for name in ("one", "two"):
                background(docker, image, name, "-p", "8075:80/udp")
                pid = docker("inspect", "-f", "{{.State.Pid}}", name).stdout.strip()
                inside = ["nsenter", f"--net=/proc/{pid}/ns/net", "--", "python3", "-c", server]
                assert subprocess.check_output(inside, text=True) == "hello\n", name
                if name == "one":
                    docker("rm", "-f", "squatter", "one")
        finally:
            sender.kill()


@pytest.fixture
def of_its_own() -> Iterator[EngineProcess]:
    """A pierd that is started with settings."""
    running = EngineProcess()
    with contextlib.closing(running):
        yield running


def test_settings_of_the_default_bridge(of_its_own: EngineProcess) -> None:
    """And two engines on one host: the second takes the next name and another subnet."""
    pools = ["--default-address-pool", "base=10.200.0.0/16,size=24"]
    of_its_own.start("--bip", "10.99.0.1/24", "--fixed-cidr", "10.99.0.64/26", *pools)
    docker = of_its_own.docker
    archive = docker_archive(NAME, [root_tar()], {"Cmd": ["sh"]})
    docker.raw("load", stdin=archive)
    assert docker("run", "--rm", NAME, "hostname", "-i").stdout == "10.99.0.64\n"
    network(docker, "mine")
    shown = json.loads(docker("network", "inspect", "mine").stdout)[0]
    assert shown["IPAM"]["Config"] == [{"Subnet": "10.200.0.0/24", "Gateway": "10.200.0.1"}]
    docker("network", "rm", "mine")
    beside = EngineProcess()
    beside.share_network(of_its_own)
    with contextlib.closing(beside):
        beside.start()
        default = json.loads(beside.docker("network", "inspect", "bridge").stdout)[0]
        assert default["Options"]["com.docker.network.bridge.name"] == "pier1"
        beside.docker.raw("load", stdin=archive)
        assert beside.docker("run", "--rm", NAME, "hostname", "-i").stdout == "172.17.0.2\n"
        for engine, name in ((of_its_own, "ours"), (beside, "theirs")):
            background(engine.docker, NAME, name, "-p", "80", serves=True)
        with outside(of_its_own) as there:
            for engine, name in ((of_its_own, "ours"), (beside, "theirs")):
                assert reaches(engine.docker, name, "192.0.2.2"), name
                port = engine.docker("port", name, "80").stdout.split("\n")[0].rpartition(":")[2]
                assert says(there, "192.0.2.1", int(port)) == name


def test_the_hosts_own_firewall(of_its_own: EngineProcess) -> None:
    """What it says of forwarding holds for containers, unless Docker's way is asked for."""
    iptables = [*of_its_own.in_network, "iptables-nft"]
    if subprocess.run([*iptables, "-P", "FORWARD", "DROP"], check=False).returncode != 0:
        pytest.skip("iptables-nft is not installed")
    archive = docker_archive(NAME, [root_tar()], {"Cmd": ["sh"]})
    of_its_own.start()
    of_its_own.docker.raw("load", stdin=archive)
    background(of_its_own.docker, NAME, "web", "-p", "8080:80", serves=True)

    def first() -> str:
        listed = subprocess.check_output([*iptables, "-S", "FORWARD"], text=True).splitlines()
        return listed[1] if listed[1:] else ""

    with outside(of_its_own) as there:
        assert says(there, "192.0.2.1", 8080) == ""
        assert first() == ""
        of_its_own.stop()
        of_its_own.start("--publish-before-firewall")
        assert says(there, "192.0.2.1", 8080) == "web"
        assert reaches(of_its_own.docker, "web", "192.0.2.2")
        assert says(there, address(of_its_own.docker, "web"), 80) == ""
        ours = first()
        assert ours.startswith("-A FORWARD -j PIER-")
        subprocess.run([*iptables, "-I", "FORWARD", "-j", "DROP"], check=True)
        subprocess.run([*iptables, "-D", "FORWARD", *ours.split()[2:]], check=True)
        wait_until(lambda: first() == ours, "it is first again")
        assert says(there, "192.0.2.1", 8080) == "web"
        of_its_own.restart()
        assert "PIER-" not in subprocess.check_output([*iptables, "-S"], text=True)
        assert says(there, "192.0.2.1", 8080) == ""


@contextlib.contextmanager
def between(one: EngineProcess, other: EngineProcess) -> Iterator[None]:
    """A cable from one engine's host (192.0.2.1) to another's (192.0.2.2)."""
    there = other.in_network[1].removeprefix("--net=")
    script = f"""
        ip link add cable0 type veth peer name cable1
        ip link set cable1 netns {there.split("/")[2]}
        ip addr add 192.0.2.1/24 dev cable0; ip link set cable0 up
    """
    subprocess.run([*one.in_network, "sh", "-ec", script], check=True)
    script = "ip addr add 192.0.2.2/24 dev cable1; ip link set cable1 up"
    subprocess.run([*other.in_network, "sh", "-ec", script], check=True)
    try:
        yield
    finally:
        subprocess.run([*one.in_network, "ip", "link", "del", "cable0"], check=True)


def test_overlay(pierd: EngineProcess, of_its_own: EngineProcess, image: str) -> None:
    """Two engines on two hosts: one network, and nothing of it after its removal."""
    of_its_own.start()
    of_its_own.docker.raw("load", stdin=docker_archive(NAME, [root_tar()], {"Cmd": ["sh"]}))
    engines = [(pierd, 1), (of_its_own, 2)]
    with between(pierd, of_its_own):
        for engine, number in engines:
            subnet = ["--subnet", "10.50.0.0/16", "--ip-range", f"10.50.{number}.0/24"]
            subnet += ["--gateway", f"10.50.{number}.1", "--ipv6", "--subnet", "fd50::/64"]
            subnet += ["--gateway", f"fd50::{number}:1", "--ip-range", f"fd50::{number}:0/112"]
            peer = ["-o", f"pier.overlay.peers=192.0.2.{3 - number}"]
            done = engine.docker(
                "network", "create", "-d", "overlay", *subnet, *peer, "blue", check=False
            )
            if "operation not supported" in done.stderr.lower():
                pytest.skip("the kernel has no VXLAN")
            assert done.returncode == 0, done.stderr
            background(engine.docker, image, f"web{number}", "--network", "blue", serves=True)
        shown = json.loads(pierd.docker("network", "inspect", "blue").stdout)[0]
        assert shown["Driver"] == "overlay"
        assert address(of_its_own.docker, "web2", "blue") == "10.50.2.0"
        hear = ["nc", "-w", "2", "10.50.2.0", "80"]
        assert pierd.docker("exec", "web1", *hear).stdout == "web2\n"
        assert (
            of_its_own.docker(
                "exec", "web2", "nc", "-w", "2", address(pierd.docker, "web1", "blue"), "80"
            ).stdout
            == "web1\n"
        )
        six = inspect(of_its_own.docker, "web2")["NetworkSettings"]["Networks"]["blue"][
            "GlobalIPv6Address"
        ]
        assert reaches(pierd.docker, "web1", six)
        # Large frames pass, as the MTU says; who is on another network does not reach it.
        big = ["ping", "-c", "1", "-W", "2", "-s", "1400", "10.50.2.0"]
        assert pierd.docker("exec", "web1", *big, check=False).returncode == 0
        background(pierd.docker, image, "stranger")
        assert not reaches(pierd.docker, "stranger", address(pierd.docker, "web1", "blue"))
        pierd.restart()
        assert pierd.docker("exec", "web1", *hear).stdout == "web2\n"
        pierd.docker("rm", "-f", "web1", "stranger")
        pierd.docker("network", "rm", "blue")
        seen = subprocess.check_output([*pierd.in_network, "ip", "-br", "link"], text=True)
        assert "vx-" not in seen


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ([], "This node is not a swarm manager"),
        (["-o", "pier.overlay.peers=here", "--subnet", "10.50.0.0/16"], "here is no address"),
        (["-o", "pier.overlay.peers=192.0.2.9"], "needs --subnet, the same on every engine"),
        (["-o", "pier.overlay.peers=192.0.2.9", "-o", "pier.overlay.port=0"], "number from 1 to 65535"),
    ],
)  # fmt: skip
def test_overlay_refused(docker: Client, flags: list[str], message: str) -> None:
    assert message in refused(docker, "network", "create", "-d", "overlay", *flags, "x")


def test_clean(of_its_own: EngineProcess) -> None:
    """What networks left goes on demand, once nothing runs; and is made again by the next start."""

    def seen() -> str:
        script = "ip -o link; nft list tables; cat /proc/sys/net/ipv4/ip_forward"
        return subprocess.check_output([*of_its_own.in_network, "sh", "-c", script], text=True)

    roots = ["--data-root", of_its_own.data_root, "--exec-root", of_its_own.exec_root]
    command = [*of_its_own.in_network, of_its_own.command, *roots, "--network-clean"]
    # A new namespace has what the machine has, where others may have enabled it.
    forwarding = "echo 0 > /proc/sys/net/ipv4/ip_forward"
    subprocess.run([*of_its_own.in_network, "sh", "-c", forwarding], check=True)
    before = seen()
    of_its_own.start()
    of_its_own.docker.raw("load", stdin=docker_archive(NAME, [root_tar()], {"Cmd": ["sh"]}))
    network(of_its_own.docker, "red")
    background(of_its_own.docker, NAME, "it", "--network", "red", "-p", "80")
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, "is in use by another engine" in done.stderr) == (1, True)
    of_its_own.stop()
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, "stop them first" in done.stderr) == (1, True)
    of_its_own.start()
    of_its_own.remove_containers()
    of_its_own.kill()
    # Their ends on the bridge go with their namespaces, which the kernel takes apart in its own time.
    wait_until(lambda: "veth" not in seen(), "the containers' links are gone")
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.count("removed: link ") == 2
    assert "removed: forwarding (net.ipv4.ip_forward = 0)" in done.stdout
    assert seen() == before
    of_its_own.start()
    assert of_its_own.docker("run", "--rm", "--network", "red", NAME, "true").returncode == 0


def test_an_engine_beside_the_usual_one_leaves_no_bridge(of_its_own: EngineProcess) -> None:
    """Once none of its containers runs. Its networks are there again with it."""

    def seen() -> set[str]:
        script = "ip -o link | grep -o 'pier[0-9]*:\\|br-[0-9a-f]*:'; nft list tables"
        return set(subprocess.getoutput(shlex.join([*of_its_own.in_network, "sh", "-c", script])).splitlines())  # fmt: skip

    of_its_own.start()
    docker = of_its_own.docker
    docker.raw("load", stdin=docker_archive(NAME, [root_tar()], {"Cmd": ["sh"]}))
    network(docker, "red")
    background(docker, NAME, "it", "--network", "red", "-p", "8080:80", serves=True)
    made = seen()
    assert len(made) == 4
    of_its_own.stop()
    assert seen() == made
    assert says(of_its_own.in_network, "127.0.0.1", 8080) == "it"
    of_its_own.start()
    docker("stop", "-t", "0", "it")
    of_its_own.stop()
    assert seen() == set()
    of_its_own.start()
    assert seen() == made
    docker("start", "it")
    assert says(of_its_own.in_network, "127.0.0.1", 8080) == "it"


def test_an_engine_without_a_bridge(of_its_own: EngineProcess) -> None:
    of_its_own.start("--bridge", "none")
    docker = of_its_own.docker
    docker.raw("load", stdin=docker_archive(NAME, [root_tar()], {"Cmd": ["sh"]}))
    seen = docker("run", "--rm", NAME, "ip", "-o", "link").stdout
    assert [line.split()[1] for line in seen.splitlines()] == ["lo:"]
    links = subprocess.check_output([*of_its_own.in_network, "ip", "-o", "link"], text=True)
    assert "pier0" not in links
