"""Names and bytes: how fast the embedded DNS answers, and what goes through a network."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator

from rows import Row, take_turns
from sides import Bench, absent

from busybox_image import NAME
from engine_process import Client

PORT, PUBLISHED = 5201, 5299

# Asks 127.0.0.11 for one name for two seconds, one query at a time; prints answers per second.
ASK = """
import socket, struct, sys, time
name = b"".join(bytes([len(p)]) + p for p in sys.argv[1].encode().split(b".")) + b"\\0"
sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
sock.settimeout(5)
sock.connect(("127.0.0.11", 53))
count, end = 0, time.monotonic() + 2
while time.monotonic() < end:
    sock.send(struct.pack(">6H", count & 0xFFFF, 0x0100, 1, 0, 0, 0) + name + b"\\0\\1\\0\\1")
    answer = sock.recv(512)
    assert answer[7] != 0 and answer[3] & 15 == 0, answer
    count += 1
print(count / 2)
"""


def names(bench: Bench) -> Iterator[Row]:
    """A container of a user-defined network asks for another one."""
    row = Row("DNS: answers for another container's name", unit="1/s", more=True)
    bench.both("network", "create", "bench")
    try:
        for name in ("asked", "asking"):
            bench.both("run", "-d", "--name", name, "--network", "bench", NAME, "sleep", "3600")

        def ask(client: Client) -> Callable[[], float]:
            command = [*_inside(client, "asking"), sys.executable, "-IS", "-c", ASK, "asked"]
            return lambda: float(_output(command))

        sides = {side: ask(client) for side, client in bench.clients.items()}
        yield take_turns(row, bench.few, sides, warm_up=1)
    finally:
        bench.both("rm", "-f", "asked", "asking")
        bench.both("network", "rm", "bench")


def throughput(bench: Bench) -> Iterator[Row]:
    """iperf3 of this machine, in the containers' network namespaces."""
    if shutil.which("iperf3") is None:
        absent("iperf3 is not installed")
        return
    servers: list[subprocess.Popen[bytes]] = []
    try:
        publish = ("-p", f"{PUBLISHED}:{PORT}")
        bench.both("run", "-d", "--name", "server", *publish, NAME, "sleep", "3600")
        bench.both("run", "-d", "--name", "client", NAME, "sleep", "3600")
        for client in bench.clients.values():
            command = [*_inside(client, "server"), "iperf3", "-s", "-p", str(PORT)]
            servers.append(subprocess.Popen(command, stdout=subprocess.DEVNULL))
        near, through = {}, {}
        outside = {
            "Pier": bench.engine.in_network,
            "dockerd": ["nsenter", "--net", "--target", str(bench.peer.pid)],
        }
        for side, client in bench.clients.items():
            template = "{{.NetworkSettings.Networks.bridge.IPAddress}}"
            address = client("inspect", "-f", template, "server").stdout.strip()
            near[side] = _iperf(_inside(client, "client"), address, PORT)
            through[side] = _iperf(outside[side], "127.0.0.1", PUBLISHED)
        row = Row("throughput, container to container", unit="Gbit/s", goal=1, more=True)
        yield take_turns(row, bench.few, near, warm_up=1)
        row = Row("throughput, host to a published port", unit="Gbit/s", goal=1, more=True)
        yield take_turns(row, bench.few, through, warm_up=1)
    finally:
        for server in servers:
            server.terminate()
            server.wait()
        bench.both("rm", "-f", "server", "client")


def _iperf(inside: "list[str]", address: str, port: int) -> Callable[[], float]:
    command = [*inside, "iperf3", "-J", "-t", "2", "-c", address, "-p", str(port)]

    def once() -> float:
        report = json.loads(_output(command))
        return float(report["end"]["sum_received"]["bits_per_second"]) / 1e9

    return once


def _inside(client: Client, name: str) -> "list[str]":
    pid = client("inspect", "-f", "{{.State.Pid}}", name).stdout.strip()
    return ["nsenter", "--net", "--target", pid]


def _output(command: "list[str]") -> str:
    env = {k: v for k, v in os.environ.items() if k in ("PATH", "LANG")}
    done = subprocess.run(command, capture_output=True, text=True, env=env, timeout=60, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(command)}: {done.stderr or done.stdout}")
    return done.stdout
