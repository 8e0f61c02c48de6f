"""Drivers that hang on a link of the host: every mode that the kernel has reaches whom it should.

What a kernel has not is refused as by Docker, and nothing is left.
"""

import contextlib
import json
import subprocess
from collections.abc import Iterator

import pytest

from engine_process import Client, EngineProcess


@pytest.fixture(autouse=True)
def _leave_no_network(engine: EngineProcess) -> Iterator[None]:
    yield
    engine.remove_containers()
    engine.calls.remove_networks()


@pytest.fixture
def cable(pierd: EngineProcess) -> Iterator[None]:
    """Two links of the host, up0 and up1, that are each other's ends."""
    ip(pierd, "link add up0 type veth peer name up1", "link set up0 up", "link set up1 up")
    yield
    with contextlib.suppress(subprocess.CalledProcessError):
        subprocess.run([*pierd.in_network, "ip", "link", "del", "up0"], check=True)


def ip(pierd: EngineProcess, *commands: str) -> None:
    """Run ip(8) on the host, and no shell's own one."""
    for command in commands:
        subprocess.run([*pierd.in_network, "ip", *command.split()], check=True)


def network(pierd: EngineProcess, driver: str, name: str, *options: str) -> None:
    """Make a network; skip, when it was refused as it should be, on a kernel without the driver."""
    flags = [word for option in options for word in ("-o", option)]
    done = pierd.docker("network", "create", "-d", driver, *flags, "--subnet", "10.33.0.0/24", name, check=False)  # fmt: skip
    if done.returncode != 0:
        assert "operation not supported" in done.stderr, done.stderr
        assert pierd.docker("network", "ls", "-q", "--filter", f"name=^{name}$").stdout == ""
        assert not {"up0.10", "up1.10", "dm-"} & links(pierd)
        pytest.skip(f"the kernel has no {driver}, or no VLANs")


def links(pierd: EngineProcess) -> set[str]:
    text = subprocess.check_output([*pierd.in_network, "ip", "-j", "link"], text=True)
    return {link["ifname"] for link in json.loads(text)}


def put(docker: Client, image: str, name: str, place: str, *flags: str) -> str:
    """Start a container that sleeps on a network; return its address there."""
    docker("run", "-d", "--name", name, "--network", place, *flags, image, "sleep", "1000")
    template = f'{{{{(index .NetworkSettings.Networks "{place}").IPAddress}}}}'
    return docker("inspect", "-f", template, name).stdout.strip()


def reaches(docker: Client, source: str, address: str) -> bool:
    command = ["exec", source, "ping", "-c", "1", "-W", "1", address]
    return docker(*command, check=False).returncode == 0


@pytest.mark.usefixtures("cable")
@pytest.mark.parametrize(("mode", "neighbours"), [("bridge", True), ("private", False), ("vepa", False)])  # fmt: skip
def test_macvlan_modes(pierd: EngineProcess, image: str, mode: str, neighbours: bool) -> None:
    """Whoever is on the wire is reached; neighbours on the same link by the bridge alone."""
    network(pierd, "macvlan", "lan", "parent=up0", f"macvlan_mode={mode}")
    put(pierd.docker, image, "one", "lan")
    two = put(pierd.docker, image, "two", "lan")
    assert reaches(pierd.docker, "one", two) is neighbours
    ip(pierd, "addr add 10.33.0.99/24 dev up1")
    assert reaches(pierd.docker, "one", "10.33.0.99")


@pytest.mark.usefixtures("cable")
def test_macvlan_passthru(pierd: EngineProcess, image: str) -> None:
    """The link is one container's."""
    network(pierd, "macvlan", "lan", "parent=up0", "macvlan_mode=passthru")
    put(pierd.docker, image, "one", "lan")
    words = ["run", "--rm", "--name", "two", "--network", "lan", image, "true"]
    assert pierd.docker(*words, check=False).returncode != 0


@pytest.mark.usefixtures("cable")
def test_vlans(pierd: EngineProcess, image: str) -> None:
    """Sub-interfaces are made, join the same VLAN over the wire, and go with their network."""
    network(pierd, "macvlan", "ten", "parent=up0.10")
    put(pierd.docker, image, "one", "ten")
    for number, subnet in ((10, "10.33.0"), (20, "10.44.0")):
        name = f"vlan{number}"
        ip(pierd, f"link add link up1 name {name} type vlan id {number}")
        ip(pierd, f"addr add {subnet}.99/24 dev {name}", f"link set {name} up")
    assert reaches(pierd.docker, "one", "10.33.0.99")
    assert "up0.10" in links(pierd)
    pierd.docker("rm", "-f", "one")
    pierd.docker("network", "rm", "ten")
    assert "up0.10" not in links(pierd)


@pytest.mark.usefixtures("cable")
@pytest.mark.parametrize("mode", ["l2", "l3", "l3s"])
def test_ipvlan_modes(pierd: EngineProcess, image: str, mode: str) -> None:
    network(pierd, "ipvlan", "lan", "parent=up0", f"ipvlan_mode={mode}")
    put(pierd.docker, image, "one", "lan")
    two = put(pierd.docker, image, "two", "lan")
    assert reaches(pierd.docker, "one", two)
    mac = ["exec", "one", "cat", "/sys/class/net/eth0/address"]
    theirs = ["exec", "two", "cat", "/sys/class/net/eth0/address"]
    assert pierd.docker(*mac).stdout == pierd.docker(*theirs).stdout  # the link's own


@pytest.mark.usefixtures("cable")
def test_ipvlan_private(pierd: EngineProcess, image: str) -> None:
    network(pierd, "ipvlan", "lan", "parent=up0", "ipvlan_flag=private")
    put(pierd.docker, image, "one", "lan")
    assert not reaches(pierd.docker, "one", put(pierd.docker, image, "two", "lan"))


def test_dummy(pierd: EngineProcess, image: str) -> None:
    network(pierd, "dummy", "nowhere")
    address = put(pierd.docker, image, "one", "nowhere")
    two = put(pierd.docker, image, "two", "nowhere")
    assert reaches(pierd.docker, "one", address)
    assert not reaches(pierd.docker, "one", two)
