"""What goes wrong with networks is told in clear words, and nothing is left half made."""

import contextlib
import json
import subprocess
from collections.abc import Iterator

import pytest

from busybox_image import NAME, docker_archive, root_tar
from engine_process import Client, EngineProcess

IFNAME = "driver-opt=com.docker.network.endpoint.ifname="


@pytest.fixture(autouse=True)
def _leave_no_network(engine: EngineProcess) -> Iterator[None]:
    yield
    engine.remove_containers()
    engine.calls.remove_networks()


def links(pierd: EngineProcess) -> set[str]:
    text = subprocess.check_output([*pierd.in_network, "ip", "-j", "link"], text=True)
    return {link["ifname"] for link in json.loads(text)}


def refused(docker: Client, *words: str) -> str:
    done = docker(*words, check=False)
    assert done.returncode != 0, done.stdout
    assert "Errno" not in done.stderr
    return done.stderr


def test_no_address_is_left(docker: Client, image: str) -> None:
    """And an address that comes back is given again."""
    docker("network", "create", "--subnet", "10.9.9.0/30", "tiny")
    run = ["run", "-d", "--network", "tiny"]
    docker(*run, "--name", "first", image, "sleep", "1000")
    message = refused(docker, *run, "--name", "second", image, "sleep", "1000")
    assert "no available IPv4 addresses on this network's address pools: tiny" in message
    docker("rm", "-f", "first")
    docker("start", "second")


def test_names_of_interfaces(pierd: EngineProcess, docker: Client, image: str) -> None:
    for name in ("red", "blue"):
        docker("network", "create", name)
    before = links(pierd)
    both = ["--network", f"name=red,{IFNAME}wan", "--network", f"name=blue,{IFNAME}wan"]
    message = refused(docker, "run", "--rm", *both, image, "true")
    assert ' to "wan": file exists' in message
    message = refused(docker, "run", "--rm", "--network", f"name=red,{IFNAME}lo", image, "true")
    assert ' to "lo": file exists' in message
    assert links(pierd) == before
    # The others' names keep clear of those that were asked for.
    docker("network", "create", "green")
    given = ["--network", f"name=red,{IFNAME}eth1", "--network", "blue"]
    docker("run", "-d", "--name", "it", *given, image, "sleep", "100")
    docker("network", "connect", "green", "it")
    listed = docker("exec", "it", "ip", "-o", "-4", "addr").stdout.split("\n")
    inside = {words[3].split("/")[0]: words[1] for words in map(str.split, listed) if words}
    networks = json.loads(docker("inspect", "it").stdout)[0]["NetworkSettings"]["Networks"]
    assert {name: inside[shown["IPAddress"]] for name, shown in networks.items()} == {
        "red": "eth1",
        "blue": "eth0",
        "green": "eth2",
    }


def test_our_own_dns_server_is_not_asked_by_itself(docker: Client, image: str) -> None:
    docker("network", "create", "red")
    command = ["nslookup", "elsewhere.example"]
    done = docker(
        "run", "--rm", "--network", "red", "--dns", "127.0.0.11", image, *command, check=False
    )
    assert "SERVFAIL" in done.stdout


def test_a_name_that_is_another_links(pierd: EngineProcess, docker: Client) -> None:
    subprocess.run([*pierd.in_network, "ip", "link", "add", "clash0", "type", "veth"], check=True)
    try:
        option = "com.docker.network.bridge.name=clash0"
        message = refused(docker, "network", "create", "-o", option, "x")
        assert "clash0 is a link of kind veth" in message
        assert docker("network", "ls", "-q", "--filter", "name=^x$").stdout == ""
        assert "clash0" in links(pierd)
    finally:
        subprocess.run([*pierd.in_network, "ip", "link", "del", "clash0"], check=True)


def test_a_host_without_ipv6(of_its_own: EngineProcess) -> None:
    """IPv6 that is off on the host is on for the networks that ask for it, and for no others."""
    off = "for n in all default; do echo 1 > /proc/sys/net/ipv6/conf/$n/disable_ipv6; done"
    subprocess.run([*of_its_own.in_network, "sh", "-c", off], check=True)
    of_its_own.start()
    docker = of_its_own.docker
    docker.raw("load", stdin=docker_archive(NAME, [root_tar()], {"Cmd": ["sh"]}))
    docker("network", "create", "--ipv6", "six")
    docker("run", "-d", "--name", "it", "--network", "six", NAME, "sleep", "1000")
    template = "{{.NetworkSettings.Networks.six.IPv6Gateway}}"
    gateway = docker("inspect", "-f", template, "it").stdout.strip()
    ping = ["exec", "it", "ping", "-6", "-c", "1", "-W", "2", gateway]
    assert docker(*ping, check=False).returncode == 0
    assert docker("run", "--rm", NAME, "true").returncode == 0


def test_rules_that_cannot_be_made(of_its_own: EngineProcess) -> None:
    """Where nftables refuses, bridge networks do not start and say so; none and host go on."""
    of_its_own.start()
    docker = of_its_own.docker
    docker.raw("load", stdin=docker_archive(NAME, [root_tar()], {"Cmd": ["sh"]}))
    table = subprocess.check_output([*of_its_own.in_network, "nft", "list", "tables"], text=True)
    bridge = next(line for line in table.splitlines() if "bridge" in line).split()[-1]
    of_its_own.stop()
    # A chain of the same name at another hook: what is in our table is refused as a whole.
    script = f"""
        nft flush ruleset
        nft 'add table inet {bridge}'
        nft 'add chain inet {bridge} forward {{ type filter hook input priority 0; }}'
    """
    subprocess.run([*of_its_own.in_network, "sh", "-ec", script], check=True)
    of_its_own.start()
    message = refused(docker, "run", "--rm", "-p", "8077:80", NAME, "true")
    assert "the host's firewall cannot be set up" in message
    for network in ("none", "host"):
        assert docker("run", "--rm", "--network", network, NAME, "true").returncode == 0
    subprocess.run([*of_its_own.in_network, "nft", "flush", "ruleset"], check=True)
    of_its_own.restart()
    assert docker("run", "--rm", "-p", "8077:80", NAME, "true").returncode == 0


@pytest.fixture
def of_its_own() -> Iterator[EngineProcess]:
    """A pierd in a host of its own."""
    running = EngineProcess()
    with contextlib.closing(running):
        yield running
