"""Who reaches whom: drivers, families and targets, each cell asserted both ways, with real programs.

Servers are nginx in a Debian image, one a network; who asks is a container on each network, the host,
and the world outside, which is a network namespace at the other end of a cable and routes the
containers' subnets to the host as a hostile neighbour would. All questions of one asker are asked
at once, and every cell is a test of its own.
"""

import json
import os
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from made_once import tools_tar

from engine_process import Client, EngineProcess, wait_until

pytestmark = pytest.mark.timeout(400)  # where the image has to be made first

IMAGE = "pier-test/nettools:1"
MODE = "com.docker.network.bridge.gateway_mode_ipv{}={}"
HOST = {4: "192.0.2.1", 6: "2001:db8::1"}
WORLD = {4: "192.0.2.2", 6: "2001:db8::2"}
FAMILIES = (4, 6)

# Network -> what it is made with.
NETWORKS: dict[str, list[str]] = {
    "plain": [],
    "other": [],
    "shy": ["-o", "com.docker.network.bridge.enable_icc=false"],
    "closed": ["--internal"],
    "routed": ["-o", MODE.format(4, "routed"), "-o", MODE.format(6, "routed")],
    "open": ["-o", MODE.format(4, "nat-unprotected"), "-o", MODE.format(6, "nat-unprotected")],
    "trusting": ["-o", "com.docker.network.bridge.trusted_host_interfaces=out0"],
    "lonely": ["--internal", "-o", MODE.format(4, "isolated"), "-o", MODE.format(6, "isolated")],
    "denied": ["-o", "pier.egress=deny"],
    "chosen": ["-o", f"pier.egress=allow={WORLD[4]}:80,{WORLD[6]}"],
    "wide": ["-d", "overlay", "-o", "pier.overlay.peers=192.0.2.77"],
}
# Network -> what a container on it reaches: its neighbour, a server on another network, that one's
# published port at the host's address, its own network's, the world, and a server of the host's.
TARGETS = ("neighbour", "stranger", "published", "hairpin", "world", "host")
REACHED = {
    "plain": "neighbour published hairpin world host",
    "shy": "published hairpin world host",
    "closed": "neighbour",
    "routed": "neighbour published world host",
    "open": "neighbour published hairpin world host",
    "trusting": "neighbour published hairpin world host",
    "lonely": "neighbour",
    # What is led back to its own network has not left it.
    "denied": "neighbour hairpin",
    "chosen": "neighbour hairpin world",
    "wide": "neighbour published hairpin world host",
    "none": "",
    "joined": "neighbour published hairpin world host",
    "hosts": "stranger published world host",
}
# Network -> how the world and the host reach its server: at its own address, and by its port.
BY_WORLD = {
    "plain": "port",
    "shy": "port",
    "closed": "",
    "routed": "address",
    "open": "address port",
    "trusting": "address port",
    "lonely": "",
    "denied": "port",
    "wide": "port",
}
BY_HOST = {
    **dict.fromkeys(
        ("plain", "shy", "open", "trusting", "denied", "wide"), "address port loopback"
    ),
    "closed": "address",
    "routed": "address",
    "lonely": "",
}
PUBLISHED = ("plain", "other", "shy", "routed", "open", "trusting", "denied", "chosen", "wide")
PORTS = {name: 9000 + number for number, name in enumerate(PUBLISHED)}
WORDS = {4: "v4", 6: "v6"}

# Asks all of its arguments (key host port) at once; prints key and what the server said its name is.
ASK = """
import select, socket, sys, time
waiting, heard = {}, {}
for word in sys.argv[1:]:
    key, host, port = word.split(",")
    heard[key] = ""
    s = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    s.setblocking(False)
    try:
        if s.connect_ex((host, int(port))) in (0, 115):
            waiting[s] = [key, b"", False]
    except OSError:
        pass
end = time.monotonic() + 2.5
while waiting and time.monotonic() < end:
    asking = [s for s, w in waiting.items() if not w[2]]
    r, w, _ = select.select(list(waiting), asking, [], 0.2)
    for s in w:
        waiting[s][2] = True
        try:
            s.send(b"GET / HTTP/1.0\\r\\n\\r\\n")
        except OSError:
            del waiting[s]
    for s in r:
        if s not in waiting:
            continue
        try:
            data = s.recv(65536)
        except OSError:
            data = b""
        waiting[s][1] += data
        if not data:
            key, text, _ = waiting.pop(s)
            heard[key] = text.decode().rpartition("\\r\\n\\r\\n")[2].strip()
for key, text in heard.items():
    print(key, text)
"""
# A server of HTTP that says its argument to whoever comes, at all addresses.
SAY = """
import socket, sys, threading
def serve(port):
    s = socket.create_server(("::", port), family=socket.AF_INET6, dualstack_ipv6=True)
    while True:
        c, _ = s.accept()
        c.recv(65536)
        c.sendall(b"HTTP/1.0 200 OK\\r\\n\\r\\n" + sys.argv[1].encode())
        c.close()
for port in (80, 81):
    threading.Thread(target=serve, args=(port,), daemon=True).start()
print("up", flush=True)
sys.stdin.read()
"""


@pytest.fixture(scope="module")
def tools_image(engine: EngineProcess) -> str:
    """Debian with nginx, curl, dig, iperf3 and python, made by mmdebstrap once, below .cache."""
    tar = tools_tar()
    engine.docker("import", tar, IMAGE, timeout=240)
    return IMAGE


class House:
    """The networks, servers and askers, and what each asker was told: `heard[asker][key]`."""

    def __init__(self, engine: EngineProcess, image: str) -> None:
        self.engine = engine
        self.docker: Client = engine.docker
        self.image = image
        self.heard: dict[str, dict[str, str]] = {}
        self.missing: dict[str, str] = {}
        self._addresses: dict[str, dict[int, str]] = {}

    def build(self) -> None:
        for number, (name, options) in enumerate(NETWORKS.items()):
            subnets = [
                "--subnet",
                f"172.30.{number}.0/24",
                "--ipv6",
                "--subnet",
                f"fd30:{number}::/64",
            ]
            done = self.docker("network", "create", *subnets, *options, name, check=False)
            if done.returncode != 0:
                assert name == "wide", done.stderr
                self.missing[name] = done.stderr
                continue
            self._server(name)
            self._asker(name, "--network", name)
        self._asker("none", "--network", "none")
        self._asker("hosts", "--network", "host")
        self._asker("joined", "--network", "container:ask-plain")

    def _server(self, name: str) -> None:
        command = f"echo {name} > /var/www/html/index.html; exec nginx -g 'daemon off;'"
        ports = ["-p", f"{PORTS[name]}:80"] if name in PORTS else []
        flags = ["--name", f"web-{name}", "--network", name, *ports]
        self.docker("run", "-d", *flags, self.image, "sh", "-c", command)
        found = json.loads(self.docker("inspect", f"web-{name}").stdout)[0]
        settings = found["NetworkSettings"]["Networks"][name]
        self._addresses[name] = {4: settings["IPAddress"], 6: settings["GlobalIPv6Address"]}
        up = ["exec", f"web-{name}", "sh", "-c", "test -s /run/nginx.pid"]
        wait_until(lambda: self.docker(*up, check=False).returncode == 0, f"nginx on {name}")

    def _asker(self, name: str, *flags: str) -> None:
        self.docker("run", "-d", "--name", f"ask-{name}", *flags, self.image, "sleep", "1000")

    def ask(self, world: list[str]) -> None:
        """Ask everything of everybody, some at a time: all wait for answers that never come."""
        here = [*self.engine.in_network, "python3", "-c", ASK]
        asked = [
            (name, ["docker", "exec", f"ask-{name}", "python3", "-c", ASK], self._questions(name))
            for name in REACHED
            if name not in self.missing
        ]
        asked.append(("the world", [*world, "python3", "-c", ASK], self._from_outside(BY_WORLD)))
        asked.append(("the host", here, self._from_outside(BY_HOST)))
        with ThreadPoolExecutor(4) as threads:
            for done in [threads.submit(self._ask, *words) for words in asked]:
                done.result()

    def _ask(self, who: str, command: list[str], questions: dict[str, tuple[str, int]]) -> None:
        words = [f"{key},{host},{port}" for key, (host, port) in questions.items()]
        done = subprocess.run(
            [*command, *words], env=self.engine.env, capture_output=True, text=True, check=True
        )
        self.heard[who] = {
            line.partition(" ")[0]: line.partition(" ")[2] for line in done.stdout.splitlines()
        }

    def _questions(self, name: str) -> dict[str, tuple[str, int]]:
        own = {"none": "plain", "joined": "plain", "hosts": "none"}.get(name, name)
        stranger = "other"
        found = {}
        for version in FAMILIES:
            host = HOST[version]
            targets = {
                "stranger": (self._addresses[stranger][version], 80),
                "published": (host, PORTS[stranger]),
                "world": (WORLD[version], 80),
                "host": (host, 81),
            }
            if own in self._addresses:
                targets["neighbour"] = (self._addresses[own][version], 80)
            if own in PORTS:
                targets["hairpin"] = (host, PORTS[own])
            found |= {f"{target}-v{version}": place for target, place in targets.items()}
        return found

    def _from_outside(self, names: dict[str, str]) -> dict[str, tuple[str, int]]:
        found = {}
        for name in names:
            for version in FAMILIES:
                if name in self.missing:
                    continue
                loopback = "127.0.0.1" if version == 4 else "::1"
                places = {"address": (self._addresses[name][version], 80)}
                if name in PORTS:
                    places["port"] = (HOST[version], PORTS[name])
                    places["loopback"] = (loopback, PORTS[name])
                found |= {f"{name}-{way}-v{version}": place for way, place in places.items()}
        return found


@pytest.fixture(scope="module")
def house(engine: EngineProcess, tools_image: str) -> Iterator[House]:
    """Everything is asked once; it stays for the tests that use it otherwise."""
    if type(engine) is not EngineProcess:
        pytest.skip("about pierd itself")
    found = House(engine, tools_image)
    world = [
        "unshare",
        "--net",
        "python3",
        "-c",
        "import sys; sys.stdin.readline()\n" + SAY,
        "world",
    ]
    here = [*engine.in_network, "python3", "-c", SAY, "host"]
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(world, **pipes) as outside, subprocess.Popen(here, **pipes) as inside:
        try:
            _cable(engine, outside.pid)
            for process, first in ((outside, b"\n"), (inside, b"")):
                assert process.stdin is not None
                assert process.stdout is not None
                process.stdin.write(first)
                process.stdin.flush()
                assert process.stdout.readline() == b"up\n"
            found.build()
            found.ask(["nsenter", f"--net=/proc/{outside.pid}/ns/net", "--"])
            yield found
        finally:
            engine.remove_containers()
            engine.docker("network", "rm", *(set(NETWORKS) - set(found.missing)), check=False)
            outside.kill()
            inside.kill()
            cable = [*engine.in_network, "ip", "link", "del", "out0"]
            subprocess.run(cable, check=False, capture_output=True)


def _cable(engine: EngineProcess, pid: int) -> None:
    wait_until(
        lambda: os.readlink(f"/proc/{pid}/ns/net") != os.readlink("/proc/self/ns/net"), "a network"
    )
    script = f"""
        ip link add out0 type veth peer name out1 netns {pid}
        ip addr add {HOST[4]}/24 dev out0; ip addr add {HOST[6]}/64 dev out0 nodad
        ip link set out0 up
        nsenter --net=/proc/{pid}/ns/net sh -ec '
            ip link set lo up; ip link set out1 up
            ip addr add {WORLD[4]}/24 dev out1; ip addr add {WORLD[6]}/64 dev out1 nodad
            ip route add 172.16.0.0/12 via {HOST[4]}; ip route add fd00::/8 via {HOST[6]}'
    """
    subprocess.run([*engine.in_network, "sh", "-ec", script], check=True)


@pytest.fixture(autouse=True)
def _leave_no_container() -> None:
    """The house's containers serve all tests here (the ring's own fixture removes them)."""


def _cells() -> Iterator[tuple[str, str, int]]:
    for name in REACHED:
        for target in TARGETS:
            if name in ("none", "hosts") and target == "hairpin":
                continue
            if name in ("closed", "lonely") and target == "hairpin":
                continue
            if name == "hosts" and target == "neighbour":
                continue
            for version in FAMILIES:
                yield name, target, version


def _name(target: str, asker: str) -> str:
    """What the server there calls itself."""
    own = {"joined": "plain", "none": "plain"}.get(asker, asker)
    names = {"stranger": "other", "published": "other", "world": "world", "host": "host"}
    return names.get(target, own)


@pytest.mark.parametrize(("asker", "target", "version"), list(_cells()))
def test_from_containers(house: House, asker: str, target: str, version: int) -> None:
    if asker in house.missing:
        pytest.skip(house.missing[asker])
    expected = _name(target, asker) if target in REACHED[asker].split() else ""
    assert house.heard[asker].get(f"{target}-v{version}", "") == expected


@pytest.mark.parametrize("version", FAMILIES)
@pytest.mark.parametrize(("who", "table"), [("the world", BY_WORLD), ("the host", BY_HOST)])
@pytest.mark.parametrize("name", list(BY_WORLD))
def test_from_outside(
    house: House, who: str, table: dict[str, str], name: str, version: int
) -> None:
    if name in house.missing:
        pytest.skip(house.missing[name])
    for way in ("address", "port", "loopback"):
        if way == "loopback" and who == "the world":
            continue
        expected = name if way in table[name].split() else ""
        key = f"{name}-{way}-v{version}"
        assert house.heard[who].get(key, "") == expected, key


def test_dig(house: House) -> None:
    """Names, both families, TCP, backwards, round robin; nothing for what is not known."""
    house.docker("run", "-d", "--name", "twin1", "--network", "plain", "--network-alias", "twin", house.image, "sleep", "1000")  # fmt: skip
    house.docker("run", "-d", "--name", "twin2", "--network", "plain", "--network-alias", "twin", house.image, "sleep", "1000")  # fmt: skip

    def dig(*words: str) -> list[str]:
        return house.docker("exec", "ask-plain", "dig", "+short", *words).stdout.split()

    web = json.loads(house.docker("inspect", "web-plain").stdout)[0]
    settings = web["NetworkSettings"]["Networks"]["plain"]
    assert dig("web-plain") == [settings["IPAddress"]]
    assert dig("+tcp", "web-plain.plain") == [settings["IPAddress"]]
    assert dig("AAAA", "web-plain") == [settings["GlobalIPv6Address"]]
    assert dig(web["Id"][:12]) == [settings["IPAddress"]]
    assert dig("-x", settings["IPAddress"]) == ["web-plain.plain."]
    assert dig("-x", settings["GlobalIPv6Address"]) == ["web-plain.plain."]
    turns = [tuple(dig("twin")) for _ in range(4)]
    assert {frozenset(turn) for turn in turns} == {frozenset(turns[0])}
    assert len(set(turns)) == 2 == len(turns[0])
    assert dig("web-shy") == []
    house.docker("rm", "-f", "twin1", "twin2")


@pytest.mark.parametrize("flag", ["-4", "-6"])
def test_curl(house: House, flag: str) -> None:
    """By name on the network; by the port of the host from another one, which sees the client's address."""
    command = ["exec", "ask-plain", "curl", "-s", "-m", "5", flag, "http://web-plain/"]
    assert house.docker(*command).stdout == "plain\n"
    away = ["exec", "ask-shy", "curl", "-s", "-m", "2", flag, "http://web-plain/"]
    assert house.docker(*away, check=False).returncode == 6  # a name that is not known


@pytest.mark.parametrize(
    "flags",
    [["-P", "2"], ["-u", "-b", "5M"], ["-6"], ["-R"]],
    ids=["tcp", "udp", "v6", "reverse"],
)
def test_iperf3(house: House, flags: list[str]) -> None:
    """Between containers and through a published port, all that was sent arrives."""
    ports = ["-p", "9800:5201", "-p", "9800:5201/udp"]
    name = ["--name", "measure", "--network", "plain"]
    house.docker("run", "-d", "--rm", *name, *ports, house.image, "iperf3", "-s")
    try:
        host = HOST[6] if "-6" in flags else HOST[4]
        for asker, place in (("ask-plain", ["measure"]), ("ask-other", [host, "-p", "9800"])):
            command = ["exec", asker, "iperf3", "-J", "-n", "2M", "-c", *place, *flags]
            answers: list[subprocess.CompletedProcess[str]] = []
            wait_until(lambda: _measured(house, command, answers), "iperf3 answers", seconds=10)  # noqa: B023
            end = json.loads(answers[-1].stdout)["end"]
            assert end.get("sum_sent", end.get("sum"))["bytes"] >= 0.95 * (2 << 20)
            assert end.get("sum_received", end.get("sum"))["bytes"] > 0
    finally:
        house.docker("rm", "-f", "measure")


def _measured(
    house: House, command: list[str], answers: list[subprocess.CompletedProcess[str]]
) -> bool:
    answers.append(house.docker(*command, check=False))
    return answers[-1].returncode == 0


def test_source_addresses_are_kept(house: House) -> None:
    """nginx sees who asked: through a port of the host from the world, and on the network."""
    log = house.docker("exec", "web-plain", "cat", "/var/log/nginx/access.log").stdout
    seen = {line.split()[0] for line in log.splitlines()}
    assert {WORLD[4], WORLD[6]} <= seen
