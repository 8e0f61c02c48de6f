"""What containers may reach outside: refused, allowed, by name, changed live; shown and tested.

The world outside is a network namespace with a web server, reached by a cable, and a DNS server.
"""

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator

import pytest

from engine_process import Client, EngineProcess, wait_until

HERE, THERE, OTHER = "198.51.100.1", "198.51.100.2", "198.51.100.3"
# A DNS server that knows web.test (a CNAME of www.test), other.test and gone.test; and an echo on TCP.
WORLD = f"""
import socket, struct, sys, threading
NAMES = {{b"www.test": "{THERE}", b"other.test": "{OTHER}", b"short.test": "{OTHER}"}}
def labels(name):
    return b"".join(bytes([len(p)]) + p for p in name.split(b".")) + b"\\0"
def answer(q):
    name, i = [], 12
    while q[i]:
        name.append(q[i + 1 : i + 1 + q[i]]); i += 1 + q[i]
    name = b".".join(name).lower(); end = i + 5; kind = q[i + 2]
    print("asked", name.decode(), flush=True)
    records = []
    if name == b"web.test":
        target = labels(b"www.test")
        records.append(b"\\xc0\\x0c" + struct.pack("!HHIH", 5, 1, 60, len(target)) + target)
        if kind == 1:
            at = end + 12
            records.append(struct.pack("!H", 0xC000 | at) + struct.pack("!HHIH", 1, 1, 60, 4)
                           + socket.inet_aton(NAMES[b"www.test"]))
    elif name in NAMES and kind == 1:
        ttl = 5 if name == b"short.test" else 60
        records.append(b"\\xc0\\x0c" + struct.pack("!HHIH", 1, 1, ttl, 4) + socket.inet_aton(NAMES[name]))
    code = 0 if name in NAMES or name == b"web.test" else 3
    return q[:2] + struct.pack("!HHHHH", 0x8180 | code, 1, len(records), 0, 0) + q[12:end] + b"".join(records)
def serve(port):
    s = socket.create_server(("", port))
    while True:
        c, _ = s.accept()
        threading.Thread(target=talk, args=(c, port), daemon=True).start()
def talk(c, port):
    c.sendall(b"hello\\n")
    if port != 82:
        c.close(); return
    while data := c.recv(100):
        c.sendall(data)
for port in (80, 81, 82):
    threading.Thread(target=serve, args=(port,), daemon=True).start()
dns = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); dns.bind(("", 53))
print("up", flush=True)
while True:
    q, who = dns.recvfrom(512)
    dns.sendto(answer(q), who)
"""


@pytest.fixture
def world(pierd: EngineProcess) -> Iterator[str]:
    """The world, for as long as the test takes; the log's path, in which questions are told."""
    log = f"{pierd.directory}/world.log"
    with (
        open(log, "wb") as out,
        subprocess.Popen(
            [
                "unshare",
                "--net",
                sys.executable,
                "-c",
                "import sys; sys.stdin.readline()\n" + WORLD,
            ],
            stdin=subprocess.PIPE,
            stdout=out,
        ) as process,
    ):
        assert process.stdin is not None
        wait_until(lambda: _netns(process.pid) != _netns("self"), "the world has a network")
        script = f"""
            ip link add out0 type veth peer name out1 netns {process.pid}
            ip addr add {HERE}/24 dev out0; ip link set out0 up
            nsenter --net=/proc/{process.pid}/ns/net sh -ec '
                ip link set lo up; ip link set out1 up
                ip addr add {THERE}/24 dev out1; ip addr add {OTHER}/24 dev out1'
        """
        subprocess.run([*pierd.in_network, "sh", "-ec", script], check=True)
        process.stdin.write(b"\n")
        process.stdin.flush()
        try:
            wait_until(lambda: "up" in _text(log), "the world is up")
            yield log
        finally:
            # Before the world's network, which takes it along in the kernel's own time.
            subprocess.run([*pierd.in_network, "ip", "link", "del", "out0"], check=True)
            process.kill()


@pytest.fixture(autouse=True)
def _leave_no_network(engine: EngineProcess) -> Iterator[None]:
    yield
    engine.remove_containers()
    engine.calls.remove_networks()


def _netns(pid: int | str) -> str:
    return os.readlink(f"/proc/{pid}/ns/net")


def _text(path: str) -> str:
    with open(path) as file:
        return file.read()


def run(pier: Client, image: str, policy: str, *flags: str, name: str = "it") -> None:
    own = ["--egress", policy] if policy else []
    pier("run", "-d", "--name", name, "--dns", THERE, *own, *flags, image, "sleep", "1000")


def hears(client: Client, name: str, host: str, port: int = 80) -> bool:
    """Whether a server there says hello to the container."""
    command = ["exec", name, "sh", "-c", f"nc -w 2 {host} {port} < /dev/null"]
    return client(*command, check=False).stdout == "hello\n"


def report(pierd: EngineProcess, name: str) -> dict[str, object]:
    found = json.loads(pierd.pier("network", "policy", "--format", "json", name).stdout)
    assert isinstance(found, dict)
    return found


@pytest.mark.usefixtures("world")
def test_deny(pierd: EngineProcess, image: str) -> None:
    """Nothing outside, nor the host, nor by other networks' ports; neighbours and replies, yes."""
    pier = pierd.pier
    run(pier, image, "")
    assert hears(pier, "it", THERE)
    pier("rm", "-f", "it")
    serve = ["sh", "-c", "while true; do echo hello | nc -l -p 80; done"]
    pier("run", "-d", "--name", "near", image, *serve)
    pier("network", "create", "red")
    pier("run", "-d", "--name", "far", "--network", "red", "-p", "8070:80", image, *serve)
    pier("run", "-d", "--name", "it", "--egress", "deny", "-p", "8071:80", image, *serve)
    near = pier("inspect", "-f", "{{.NetworkSettings.IPAddress}}", "near").stdout.strip()
    assert hears(pier, "it", near)
    assert not hears(pier, "it", THERE)
    assert not hears(pier, "it", HERE, 8070)
    assert not hears(pier, "it", "172.17.0.1", 8070)
    assert hears(pier, "near", "172.17.0.1", 8070)
    host = [*pierd.in_network, "python3", "-c", "import socket; print(socket.create_connection(('127.0.0.1', 8071), 2).makefile().read())"]  # fmt: skip
    assert subprocess.check_output(host, text=True).strip() == "hello"
    ping = ["exec", "it", "ping", "-c", "1", "-W", "1", "172.17.0.1"]
    assert pier(*ping, check=False).returncode != 0
    found = report(pierd, "it")
    assert found["Policy"] == "deny"
    refused = {(r["Address"], r["Protocol"], r["Port"]) for r in found["Refused"]}  # type: ignore[attr-defined]
    assert refused == {
        (THERE, "tcp", 80), (HERE, "tcp", 8070), ("172.17.0.1", "tcp", 8070), ("172.17.0.1", "icmp", 0)
    }  # fmt: skip


def test_names(pierd: EngineProcess, world: str, image: str) -> None:
    """A name stands for what DNS answered, at its port; other names are not even asked for."""
    pier = pierd.pier
    run(pier, image, "allow=web.test:80,10.0.0.0/8")
    assert not hears(pier, "it", THERE)
    assert hears(pier, "it", "web.test")
    assert hears(pier, "it", THERE)
    assert not hears(pier, "it", THERE, 81)
    assert not hears(pier, "it", OTHER)
    assert not hears(pier, "it", "other.test")
    assert "other.test" not in _text(world)
    found = report(pierd, "it")
    assert [(n["Name"], n["Address"]) for n in found["Names"]] == [("web.test", THERE)]  # type: ignore[attr-defined]
    assert 0 < found["Names"][0]["Expires"] <= 60  # type: ignore[index]
    assert "other.test" in found["RefusedNames"]  # type: ignore[operator]
    shown = pier("network", "policy", "it").stdout
    assert shown.startswith("container it: allow=web.test:80,10.0.0.0/8\n")
    assert f"web.test = {THERE}" in shown
    assert f"{OTHER}:80/tcp" in shown
    # What is known outlives pierd, and a flush of all rules.
    pierd.restart()
    assert hears(pier, "it", THERE)
    assert not hears(pier, "it", OTHER)
    subprocess.run([*pierd.in_network, "nft", "flush", "ruleset"], check=True)
    rules = [*pierd.in_network, "nft", "list", "ruleset"]
    wait_until(lambda: b"held4" in subprocess.check_output(rules), "the rules are back")
    assert hears(pier, "it", THERE)
    assert not hears(pier, "it", OTHER)


@pytest.mark.usefixtures("world")
def test_names_expire(pierd: EngineProcess, image: str) -> None:
    pier = pierd.pier
    run(pier, image, "allow=short.test")
    assert hears(pier, "it", "short.test")
    wait_until(lambda: not report(pierd, "it")["Names"], "its time is over")
    assert not hears(pier, "it", OTHER)
    assert hears(pier, "it", "short.test")


@pytest.mark.usefixtures("world")
def test_it_changes_live(pierd: EngineProcess, image: str) -> None:
    """A connection that is not allowed any more is cut, one that is goes on."""
    pier = pierd.pier
    run(pier, image, "")
    script = "(while true; do echo tick; sleep 0.1; done) | nc {} 82 > /{} 2>&1; echo over >> /{}"
    for name, host in (("a", THERE), ("b", OTHER)):
        pier("exec", "-d", "it", "sh", "-c", script.format(host, name, name))

    def said(name: str) -> list[str]:
        return pier("exec", "it", "cat", f"/{name}", check=False).stdout.split()

    wait_until(lambda: "tick" in said("a") and "tick" in said("b"), "both connections are up")
    pier("update", "--egress", f"allow={THERE}", "it")
    wait_until(lambda: said("b")[-1] == "over", "the other connection is cut")
    count = len(said("a"))
    wait_until(lambda: len(said("a")) > count + 3, "the first goes on")
    assert not hears(pier, "it", OTHER)
    assert hears(pier, "it", THERE)
    assert "127.0.0.11" in pier("exec", "it", "cat", "/etc/resolv.conf").stdout
    pier("update", "--egress", "allow", "it")
    assert hears(pier, "it", OTHER)
    tables = subprocess.check_output([*pierd.in_network, "nft", "list", "tables"], text=True)
    assert "egress" not in tables
    done = pier("update", "--egress", "allow=no/good", "it", check=False)
    assert "is no name, address or subnet" in done.stderr


@pytest.mark.usefixtures("world")
def test_networks(pierd: EngineProcess, image: str) -> None:
    """A network's policy holds for all on it, those with CAP_NET_ADMIN too."""
    pier = pierd.pier
    pier("network", "create", "--egress", f"allow={THERE}:80/tcp,web.test", "red")
    shown = json.loads(pier("network", "inspect", "red").stdout)[0]
    assert shown["Options"]["pier.egress"] == f"allow={THERE}:80/tcp,web.test"
    run(pier, image, "", "--network", "red", "--cap-add", "NET_ADMIN")
    assert hears(pier, "it", THERE)
    assert not hears(pier, "it", OTHER)
    pier("exec", "it", "sh", "-c", "ip addr add 172.31.77.2/24 dev eth0")
    assert not hears(pier, "it", OTHER)
    # The container's own policy comes on top.
    pier("update", "--egress", "deny", "it")
    assert not hears(pier, "it", THERE)
    pier("update", "--egress", "allow", "it")
    pier("network", "policy", "--egress", f"allow={OTHER}", "red")
    assert hears(pier, "it", OTHER)
    assert not hears(pier, "it", THERE)
    pierd.restart()
    assert hears(pier, "it", OTHER)
    assert not hears(pier, "it", THERE)
    assert report(pierd, "red")["RefusedPackets"] != 0


@pytest.mark.usefixtures("world")
def test_nobody_slips_past(pierd: EngineProcess, image: str) -> None:
    """Other addresses of its own do not help who may configure networks; nor does a connection."""
    pier = pierd.pier
    run(pier, image, "deny", "--cap-add", "NET_ADMIN")
    pier("exec", "it", "ip", "addr", "add", "172.17.77.7/16", "dev", "eth0")
    pier("exec", "it", "sh", "-c", "ip route replace default via 172.17.0.1 src 172.17.77.7")
    assert not hears(pier, "it", THERE)
    pier("network", "create", "red")
    pier("network", "connect", "red", "it")
    assert not hears(pier, "it", THERE)
    pier("network", "disconnect", "red", "it")
    pier("restart", "-t", "0", "it")
    assert not hears(pier, "it", THERE)


@pytest.mark.usefixtures("world")
def test_trial(pierd: EngineProcess, image: str) -> None:
    pier = pierd.pier
    run(pier, image, f"allow=web.test:80,{OTHER}:99", "--add-host", f"box:{OTHER}")

    def trial(target: str) -> tuple[int, str]:
        done = pier("network", "policy", "test", "it", target, check=False)
        return done.returncode, done.stdout.strip()

    assert trial("web.test:80") == (0, f"{THERE}:80/tcp: allowed: in the policy; connected")
    assert trial(f"{OTHER}:99") == (
        0,
        f"{OTHER}:99/tcp: allowed: in the policy; connection refused",
    )
    code, text = trial("box:80")
    assert (code, text.partition(";")[0]) == (1, f"{OTHER}:80/tcp: refused: not in the policy of the container")  # fmt: skip
    assert not text.endswith("connected")
    assert trial("other.test:80") == (1, "other.test:80: refused: the name is not in the policy")


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--egress", "some"], "use deny, allow, or allow=HOST"),
        (["--egress", "allow=a:0"], "is no port"),
        (["--egress", "deny", "--network", "host"], "and the network mode host"),
    ],
)
def test_refused(pierd: EngineProcess, image: str, flags: list[str], message: str) -> None:
    done = pierd.pier("run", "--rm", *flags, image, "true", check=False)
    assert message in done.stderr


def test_explain(pierd: EngineProcess, image: str) -> None:
    pier = pierd.pier
    pier("network", "create", "red")
    flags = ["--network", "red", "--network-alias", "db", "-p", "8072:80", "--net-rate-in", "10m"]
    pier("run", "-d", "--name", "it", "--egress", "deny", *flags, image, "sleep", "1000")
    inspected = json.loads(pier("inspect", "it").stdout)[0]["NetworkSettings"]["Networks"]["red"]
    page = pier("explain", "it").stdout
    for text in (
        "net     ", "its own", f"address {inspected['IPAddress']}/16", "network red (bridge) by veth",
        f"default              via {inspected['Gateway']} on eth0", "0.0.0.0:8072 -> 80/tcp  by rule",
        "is called it, db", f"knows db = {inspected['IPAddress']}", "receives at most 10m",
        "policy: deny", "RULES inet pier_", inspected["MacAddress"],
    ):  # fmt: skip
        assert text in page, page
    found = json.loads(pier("explain", "--format", "json", "it").stdout)
    assert {n["Kind"] for n in found["Namespaces"]} >= {"net", "mnt", "pid"}
    pier("stop", "-t", "0", "it")
    assert "exited, network red" in pier("explain", "it").stdout
    with contextlib.suppress(AssertionError):
        pier("network", "disconnect", "red", "it")
