"""Pulling and pushing a large image, by Pier and by dockerd, each with a registry beside it.

Debian's docker-registry runs in the engine's own network, at localhost:5000. Between two pushes its
data is removed, so that every one sends everything.
"""

import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import archives

from engine_process import Client, place

PORT = 5000
NAME = f"localhost:{PORT}/bench/large:latest"
CONFIG = """\
version: 0.1
log: {{level: error, accesslog: {{disabled: true}}}}
storage: {{filesystem: {{rootdirectory: {directory}/data}}}}
http: {{addr: "127.0.0.1:{port}"}}
"""


@contextmanager
def registry(in_network: list[str], client: Client) -> Iterator[None]:
    """Run a registry where `in_network` leads; the client's environment names its directory."""
    with tempfile.TemporaryDirectory(prefix="pier-bench-", dir=place()) as directory:
        with open(f"{directory}/config.yml", "w") as file:
            file.write(CONFIG.format(directory=directory, port=PORT))
        command = [*in_network, "docker-registry", "serve", f"{directory}/config.yml"]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        client.env["BENCH_REGISTRY"] = directory
        try:
            time.sleep(1)  # it listens at once, and the first push comes much later
            yield
        finally:
            process.terminate()
            process.wait(10)


def push_side(
    client: Client, timed: Callable[..., float], made: archives.Archives
) -> Callable[[], float]:
    """Return a measurement of the first push of an image: it is loaded again before each."""

    def anew() -> None:
        _empty(client)
        remove(client)
        _load(client, made.image, archives.NAME)

    anew()
    return archives.without(anew, lambda: timed(client, "push", NAME))


def push_again_side(client: Client, timed: Callable[..., float]) -> Callable[[], float]:
    """Return a measurement of a push of what was pushed before, and is lost over there."""
    return archives.without(lambda: _empty(client), lambda: timed(client, "push", NAME))


def _empty(client: Client) -> None:
    shutil.rmtree(os.path.join(client.env["BENCH_REGISTRY"], "data"), ignore_errors=True)


def pull_side(
    client: Client, timed: Callable[..., float], archive: str, name: str
) -> Callable[[], float]:
    """Return a measurement of one pull of everything; it is pushed first."""
    _load(client, archive, name)
    client("push", NAME, timeout=300)
    remove(client)
    return archives.without(lambda: remove(client), lambda: timed(client, "pull", NAME))


def remove(client: Client) -> None:
    names = (NAME, archives.NAME, archives.LAYERED)
    client("rmi", "-f", *names, check=False, timeout=300)


def _load(client: Client, archive: str, name: str) -> None:
    client("load", "-i", archive, timeout=300)
    client("tag", name, NAME)
