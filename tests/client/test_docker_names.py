"""What containers are called: DNS on networks that users make, /etc/hosts, links."""

import contextlib
import subprocess
from collections.abc import Iterator

import pytest

from engine_process import Client, EngineProcess

# Answers every question for an A record with 192.0.2.53, on one UDP and one TCP port 53.
SERVER = """
import socket, sys, threading
def answer(q):
    return q[:2] + b"\\x81\\x80\\0\\1\\0\\1\\0\\0\\0\\0" + question(q) + \\
        b"\\xc0\\x0c\\0\\1\\0\\1\\0\\0\\0\\1\\0\\4\\xc0\\0\\2\\x35"
def question(q):
    end = 12
    while q[end]:
        end += 1 + q[end]
    return q[12:end + 5]
def tcp():
    listener = socket.create_server((sys.argv[1], 53))
    while True:
        with listener.accept()[0] as peer:
            said = answer(peer.recv(600)[2:])
            peer.sendall(len(said).to_bytes(2, "big") + said)
threading.Thread(target=tcp, daemon=True).start()
udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
udp.bind((sys.argv[1], 53))
print("up", flush=True)
while True:
    data, peer = udp.recvfrom(600)
    print(data[13:13 + data[12]].decode(), flush=True)
    udp.sendto(answer(data), peer)
"""


@pytest.fixture(autouse=True)
def red(engine: EngineProcess) -> Iterator[str]:
    engine.docker("network", "create", "--subnet", "10.7.0.0/24", "red")
    yield "red"
    engine.remove_containers()
    engine.docker("network", "rm", "red")


def background(docker: Client, image: str, name: str, *flags: str) -> None:
    docker("run", "-d", "--name", name, *flags, image, "sleep", "1000")


def lookup(docker: Client, source: str, name: str) -> set[str]:
    """The addresses that a name has for a container."""
    done = docker("exec", source, "nslookup", name, check=False)
    answers = done.stdout.partition("answer:")[2].splitlines()
    return {line.split()[1] for line in answers if line.startswith("Address:")}


@contextlib.contextmanager
def dns_server(pierd: EngineProcess, address: str) -> "Iterator[subprocess.Popen[str]]":
    command = [*pierd.in_network, "python3", "-c", SERVER, address]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        assert server.stdout.readline() == "up\n"
        try:
            yield server
        finally:
            server.kill()


def test_names(docker: Client, image: str) -> None:
    background(
        docker, image, "one", "--network", "red", "--network-alias", "svc", "--ip", "10.7.0.50"
    )
    background(docker, image, "two", "--network", "red", "--network-alias", "svc")
    short = docker("inspect", "-f", "{{slice .Id 0 12}}", "one").stdout.strip()
    for name in ("one", "ONE", "one.red", "svc", short):
        assert "10.7.0.50" in lookup(docker, "two", name), name
    assert len(lookup(docker, "two", "svc")) == 2
    assert docker("exec", "two", "ping", "-c1", "-W2", "one").returncode == 0
    assert "name = one.red" in docker("exec", "two", "nslookup", "10.7.0.50").stdout
    conf = docker("exec", "two", "cat", "/etc/resolv.conf").stdout
    assert "nameserver 127.0.0.11" in conf
    assert "options ndots:0" in conf
    docker("rename", "one", "uno")
    assert lookup(docker, "two", "uno") == {"10.7.0.50"}
    docker("stop", "-t", "0", "uno")
    assert lookup(docker, "two", "uno") == set()


def test_names_are_of_their_network(docker: Client, image: str) -> None:
    background(docker, image, "one", "--network", "red")
    background(docker, image, "other")
    assert lookup(docker, "other", "one") == set()
    docker("network", "connect", "--alias", "guest", "red", "other")
    assert lookup(docker, "other", "one")
    assert lookup(docker, "one", "guest")
    hosts = docker("exec", "other", "cat", "/etc/hosts").stdout
    assert "10.7.0." in hosts
    docker("network", "disconnect", "red", "other")
    assert not lookup(docker, "one", "guest")
    assert "10.7.0." not in docker("exec", "other", "cat", "/etc/hosts").stdout


def test_port_53_is_the_containers(docker: Client, image: str) -> None:
    """Both: it may be bound by a program, and is answered for."""
    script = "nc -l -p 53 & sleep 0.3; nslookup me; netstat -tuln"
    flags = ["--network", "red", "--hostname", "me", "--ip", "10.7.0.9"]
    seen = docker("run", "--rm", *flags, image, "sh", "-c", script).stdout
    assert "10.7.0.9" in seen
    assert ":::53" in seen


def test_after_a_restart(pierd: EngineProcess, docker: Client, image: str) -> None:
    background(docker, image, "one", "--network", "red")
    background(docker, image, "two", "--network", "red")
    before = lookup(docker, "two", "one")
    assert before
    pierd.kill()
    pierd.start()
    assert lookup(docker, "two", "one") == before


def test_the_rest_is_asked_elsewhere(pierd: EngineProcess, docker: Client, image: str) -> None:
    with dns_server(pierd, "10.7.0.1") as server:
        background(
            docker, image, "it", "--network", "red", "--dns", "10.7.0.1", "--dns-search", "x.y"
        )
        assert lookup(docker, "it", "example.com.") == {"192.0.2.53"}
        assert lookup(docker, "it", "it.") != {"192.0.2.53"}
        assert "search x.y" in docker("exec", "it", "cat", "/etc/resolv.conf").stdout
        server.kill()
        assert server.stdout is not None
        assert set(server.stdout.read().split()) == {"example"}


def test_internal_networks_ask_nobody(pierd: EngineProcess, docker: Client, image: str) -> None:
    docker("network", "create", "--internal", "--subnet", "10.8.0.0/24", "closed")
    try:
        with dns_server(pierd, "10.8.0.1") as server:
            background(docker, image, "it", "--network", "closed", "--dns", "10.8.0.1")
            assert lookup(docker, "it", "example.com.") == set()
            server.kill()
            assert server.stdout is not None
            assert server.stdout.read() == ""
    finally:
        docker("rm", "-f", "it")
        docker("network", "rm", "closed")


def test_links_on_a_network(docker: Client, image: str) -> None:
    background(docker, image, "db", "--network", "red", "--ip", "10.7.0.60")
    background(docker, image, "web", "--network", "red", "--link", "db:store")
    assert lookup(docker, "web", "store") == {"10.7.0.60"}
    assert lookup(docker, "db", "store") == set()


def test_legacy_links(docker: Client, image: str) -> None:
    background(docker, image, "db", "--expose", "5432", "-e", "A=b")
    address = docker("inspect", "-f", "{{.NetworkSettings.IPAddress}}", "db").stdout.strip()
    background(docker, image, "web", "--link", "db:store")
    assert f"{address}\tstore " in docker("exec", "web", "cat", "/etc/hosts").stdout
    env = docker("exec", "web", "cat", "/proc/1/environ").stdout.split("\0")
    assert f"STORE_PORT_5432_TCP=tcp://{address}:5432" in env
    assert {"STORE_NAME=/web/store", "STORE_ENV_A=b"} <= set(env)
    links = docker("inspect", "-f", "{{.HostConfig.Links}}", "web").stdout
    assert links == "[/db:/web/store]\n"
    names = docker("ps", "--no-trunc", "--format", "{{.Names}}").stdout.split()
    assert set(names) == {"db,web/store", "web"}
    docker("rename", "web", "site")
    assert docker("inspect", "-f", "{{.Name}}", "site/store").stdout == "/db\n"
    docker("rename", "db", "data")
    links = docker("inspect", "-f", "{{.HostConfig.Links}}", "site").stdout
    assert links == "[/data:/site/store]\n"
    docker("rename", "data", "db")
    docker("rename", "site", "web")
    assert "STORE_NAME=/web/store\n" in docker("exec", "web", "env").stdout
    background(docker, image, "outside", "--network", "host")
    done = docker("create", "--link", "outside:x", image, check=False)
    assert "host type networking can't be used with links" in done.stderr
    done = docker("run", "--rm", "--link", "nosuch:x", image, "true", check=False)
    assert "could not get container for nosuch: No such container: nosuch" in done.stderr
    docker("stop", "-t", "0", "db", "web")
    done = docker("start", "web", check=False)
    assert "Cannot link to a non running container: /db AS /web/store" in done.stderr


def test_a_link_to_who_shares_anothers_network(docker: Client, image: str) -> None:
    background(docker, image, "holder", "--hostname", "holder.example.com")
    background(docker, image, "guest", "--network", "container:holder")
    background(docker, image, "web", "--link", "guest:it")
    address = docker("inspect", "-f", "{{.NetworkSettings.IPAddress}}", "holder").stdout.strip()
    assert f"{address}\tit " in docker("exec", "web", "cat", "/etc/hosts").stdout
    own = docker("exec", "holder", "cat", "/etc/hosts").stdout
    assert f"{address}\tholder.example.com holder\n" in own


def test_a_made_up_port_is_not_one_that_is_wanted(docker: Client, image: str) -> None:
    background(docker, image, "one", "-p", "80")
    port = int(docker("port", "one", "80").stdout.split()[0].rpartition(":")[2])
    background(docker, image, "two", "-p", "80", "-p", f"{port + 1}:8080")
    assert f":{port + 1}\n" in docker("port", "two", "8080").stdout


def test_host_gateway(docker: Client, image: str) -> None:
    flags = ["--add-host", "host.docker.internal:host-gateway", "--add-host", "x:192.0.2.9"]
    hosts = docker("run", "--rm", *flags, image, "cat", "/etc/hosts").stdout
    assert "172.17.0.1\thost.docker.internal\n192.0.2.9\tx\n" in hosts
