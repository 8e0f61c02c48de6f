"""Registries beside an engine, in its network: Debian's docker-registry, and one that misbehaves."""

import contextlib
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping

import pytest
from made_once import alone

from engine_process import EngineProcess

CERTS_D = "/etc/docker/certs.d"
HERE = os.path.dirname(os.path.abspath(__file__))
# alice, secret
HTPASSWD = "alice:$2b$05$oex1so5mVbjMKVakgxzrR.Ksov0cBo3dc5cpYrwVLF8SNg5yaHgJ6\n"


@contextlib.contextmanager
def running(engine: EngineProcess, port: int, *command: str) -> Iterator[subprocess.Popen[bytes]]:
    """Run a server in the engine's network until the block ends; wait until it listens."""
    log = os.path.join(engine.directory, f"server-{port}.log")
    path = os.pathsep.join((os.path.dirname(HERE), HERE))
    with open(log, "wb") as out:
        process = subprocess.Popen(
            [*engine.in_network, *command],
            stdout=out,
            stderr=out,
            env={**os.environ, "PYTHONPATH": path},
        )
    try:
        deadline = time.monotonic() + 30
        while not _listens(process.pid, port):
            with open(log) as said:
                assert process.poll() is None, said.read()
            assert time.monotonic() < deadline, f"nothing listens on {port}"
            time.sleep(0.02)
        yield process
    finally:
        process.terminate()
        process.wait(10)


def _listens(pid: int, port: int) -> bool:
    """Tell whether anything listens on the port in a process's network."""
    ends = f":{port:04X} "
    for kind in ("tcp", "tcp6"):
        with contextlib.suppress(FileNotFoundError), open(f"/proc/{pid}/net/{kind}") as file:
            if any(ends in line and line.split()[3] == "0A" for line in file):
                return True
    return False


@contextlib.contextmanager
def docker_registry(
    engine: EngineProcess, port: int, *, users: bool = False, tls: str = ""
) -> Iterator[str]:
    """Run Debian's docker-registry; yield its address. `tls` is a directory with cert and key."""
    command = _docker_registry(engine, port, users=users, tls=tls, clients=True)
    with running(engine, port, *command):
        yield f"localhost:{port}"


@contextlib.contextmanager
def docker_registry_at(
    engine: EngineProcess, port: int, *, address: str = "127.0.0.1", tls: str = ""
) -> Iterator[subprocess.Popen[bytes]]:
    """Run it, or run it again with what it has, at an address; yield its process."""
    command = _docker_registry(engine, port, tls=tls, address=address)
    with running(engine, port, *command) as process:
        yield process


def _docker_registry(
    engine: EngineProcess,
    port: int,
    *,
    users: bool = False,
    tls: str = "",
    clients: bool = False,
    address: str = "127.0.0.1",
) -> list[str]:
    """Write a configuration; return the command. With `clients`, TLS asks for certificates."""
    program = shutil.which("docker-registry")
    if program is None:
        pytest.skip("docker-registry is not installed")
    directory = os.path.join(engine.directory, f"registry-{port}")
    os.makedirs(directory, exist_ok=True)
    config = (
        f"version: 0.1\nstorage:\n  filesystem:\n    rootdirectory: {directory}/data\n"
        f"http:\n  addr: {address}:{port}\n"
    )
    if tls:
        config += f"  tls:\n    certificate: {tls}/server.pem\n    key: {tls}/server.key\n"
    if clients and tls:
        config += f"    clientcas:\n      - {tls}/ca.pem\n"
    if users:
        with open(f"{directory}/htpasswd", "w") as file:
            file.write(HTPASSWD)
        config += f"auth:\n  htpasswd:\n    realm: test\n    path: {directory}/htpasswd\n"
    with open(f"{directory}/config.yml", "w") as file:
        file.write(config)
    return [program, "serve", f"{directory}/config.yml"]


def make_certificates(directory: str, names: str = "DNS:localhost,IP:127.0.0.1") -> None:
    """Make a CA (ca.pem), and of it a certificate for a server, with `names`, and for a client."""
    if not shutil.which("openssl"):
        pytest.skip("openssl is not installed")
    os.makedirs(directory)

    def openssl(*args: str) -> None:
        subprocess.run(["openssl", *args], cwd=directory, check=True, capture_output=True)

    key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
    openssl(
        *("req", "-x509", *key, "-keyout", "ca.key", "-out", "ca.pem", "-subj", "/CN=test"),
        *("-days", "2"),
    )
    for name in ("server", "client"):
        openssl(
            "req", *key, "-keyout", f"{name}.key", "-out", f"{name}.csr", "-subj", f"/CN={name}"
        )
        with open(f"{directory}/{name}.ext", "w") as file:
            file.write(f"subjectAltName={names}\n")
        openssl(
            *("x509", "-req", "-in", f"{name}.csr", "-CA", "ca.pem", "-CAkey", "ca.key"),
            *("-CAcreateserial", "-days", "2", "-extfile", f"{name}.ext", "-out", f"{name}.pem"),
        )


@contextlib.contextmanager
def trusted(host: str, files: Mapping[str, str]) -> Iterator[None]:
    """Put certificates where a registry's are looked for: a name in there, and what to copy.

    The directory is the machine's: the ring's other worker may do the same at the time.
    """
    directory = f"{CERTS_D}/{host}"
    with alone("certs.d"):
        os.makedirs(directory)
    try:
        for name, source in files.items():
            shutil.copy(source, f"{directory}/{name}")
        yield
    finally:
        shutil.rmtree(directory)
        with alone("certs.d"), contextlib.suppress(OSError):  # what others have there stays
            os.rmdir(CERTS_D)


@contextlib.contextmanager
def fake_registry(engine: EngineProcess, port: int) -> Iterator[str]:
    """Run the registry that misbehaves; yield the path of its list of requests."""
    directory = os.path.join(engine.directory, f"fake-{port}")
    os.makedirs(directory)
    with running(engine, port, sys.executable, f"{HERE}/fake_registry.py", str(port), directory):
        yield f"{directory}/requests"
