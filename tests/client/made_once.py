"""What is made once for the machine and kept below .cache: the ring's two workers may both ask."""

import contextlib
import fcntl
import os
import shutil
import subprocess
from collections.abc import Iterator

import pytest

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
CACHE = os.path.join(ROOT, ".cache")
TOOLS = (
    *("nginx-light", "curl", "bind9-dnsutils", "iperf3", "python3-minimal", "iproute2"),
    *("iputils-ping", "redis-server"),
)


@contextlib.contextmanager
def alone(name: str) -> Iterator[None]:
    """Hold the machine's lock of that name."""
    os.makedirs(CACHE, exist_ok=True)
    with open(os.path.join(CACHE, f"{name}.lock"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def made(name: str, tool: str, *words: str) -> str:
    """Return the path of .cache/NAME, which `tools/TOOL words` makes when it is not there."""
    path = os.path.join(CACHE, name)
    with alone(name):
        if not os.path.exists(path):
            command = [os.path.join(ROOT, "tools", tool), *words]
            done = subprocess.run(command, capture_output=True, check=False)
            if done.returncode != 0:
                pytest.skip(f"{tool} failed: {done.stderr.decode(errors='replace')[-500:]}")
    return path


def tools_tar() -> str:
    """Return the path of the tar of a Debian with TOOLS: one for several tests, to make it is slow."""
    return debian_tar("debian-tools", *TOOLS)


def debian_tar(name: str, *packages: str) -> str:
    """Return the path of the tar of a minimal Debian with packages, made by mmdebstrap."""
    path = os.path.join(CACHE, f"{name}.tar")
    if not os.path.exists(path) and not shutil.which("mmdebstrap"):
        pytest.skip("mmdebstrap is not installed")
    return made(f"{name}.tar", "debian_root.sh", path, *packages)
