"""pierd in a network of a user's own, whose way out is pasta: what rootless networks stand on.

Bridges, rules and ports are made in the network namespace that pierd is started in, and nowhere
else; pasta copies what passes between that and the host's sockets, for which no rights are needed.
"""

import contextlib
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator

import pytest

from busybox_image import NAME, docker_archive, root_tar
from engine_process import EngineProcess, Network, wait_until

PORT = 9311
HOST = "198.51.100.1"
GATEWAY = "198.51.100.2"  # stands for the host itself in pasta's network
SAY = """
import socket
s = socket.create_server(("127.0.0.1", 9312))
print("up", flush=True)
while True:
    c, _ = s.accept()
    c.sendall(b"the host\\n")
    c.close()
"""


@pytest.fixture
def host() -> Iterator[Network]:
    """A host with one address and a default route."""
    network = Network()
    script = f"""
        ip link add h0 type veth peer name h1; ip addr add {HOST}/24 dev h0
        ip link set h0 up; ip link set h1 up; ip route add default via {GATEWAY}
    """
    with contextlib.closing(network):
        subprocess.run([*network.command, "sh", "-ec", script], check=True)
        yield network


def test_behind_pasta(host: Network) -> None:
    """From the host to a published port, and from a container to the host's own server."""
    if not shutil.which("pasta"):
        pytest.skip("pasta (package passt) is not installed")
    options = ["-f", "--runas", "0", "--config-net", "-t", str(PORT), "-u", "none"]
    pasta = [*host.command, "pasta", *options, "-T", "none", "-U", "none", "--"]
    quiet = subprocess.DEVNULL
    server = [*host.command, "python3", "-c", SAY]
    with (
        subprocess.Popen(server, stdout=subprocess.PIPE) as listening,
        subprocess.Popen([*pasta, "sleep", "1000"], stdout=quiet, stderr=quiet, start_new_session=True) as uplink,
    ):  # fmt: skip
        engine = EngineProcess()
        try:
            assert listening.stdout is not None
            assert listening.stdout.readline() == b"up\n"
            wait_until(lambda: _child(uplink.pid), "pasta has made its network")
            inside = ["nsenter", f"--net=/proc/{_child(uplink.pid)}/ns/net", "--"]
            engine.run_in(inside)
            engine.start()
            engine.docker.raw("load", stdin=docker_archive(NAME, [root_tar()]))
            serve = "while true; do echo it | nc -l -p 80; done"
            engine.docker("run", "-d", "--name", "it", "-p", f"{PORT}:80", NAME, "sh", "-c", serve)
            code = f"import socket; print(socket.create_connection(('127.0.0.1', {PORT}), 5).makefile().read())"
            hear = [*host.command, "timeout", "3", "python3", "-c", code]
            ask = ["exec", "it", "timeout", "3", "nc", GATEWAY, "9312"]
            wait_until(lambda: _output(hear).strip() == "it", "the container answers the host")
            wait_until(
                lambda: engine.docker(*ask, check=False).stdout == "the host\n",
                "the host answers the container",
            )
            seen = subprocess.check_output([*host.command, "ip", "-o", "link"], text=True)
            assert "pier0" not in seen
        finally:
            engine.close()
            child = _child(uplink.pid)
            if child:
                os.kill(child, signal.SIGKILL)
            for process in (listening, uplink):
                process.kill()


def _output(command: list[str]) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout


def _child(pid: int) -> int:
    """The process that pasta has started in its network, 0 for none yet."""
    found = subprocess.run(["pgrep", "-P", str(pid), "-x", "sleep"], capture_output=True, text=True, check=False)  # fmt: skip
    return int(found.stdout.split()[0]) if found.stdout.strip() else 0
