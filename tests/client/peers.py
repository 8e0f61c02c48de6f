"""Other people's clients: on PATH, or in the root that PIER_PEERS_ROOT names."""

import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

PEERS = os.environ.get("PIER_PEERS_ROOT", "")

# The peers' root with a directory of the host as /mnt, in a mount namespace that ends with the client.
ENTER = (
    "root=$1 dir=$2; shift 2; mount --make-rprivate /; "
    "for m in proc sys dev; do mount --rbind /$m $root/$m; done; "
    "mount -t tmpfs tmpfs $root/run; mount -t tmpfs tmpfs $root/tmp; "
    'mount --bind "$dir" $root/mnt; exec chroot $root sh -c \'cd /mnt; exec "$@"\' sh "$@"'
)


def run(name: str, *args: str, directory: Path, prefix: Sequence[str] = ()) -> str:
    """Run a client in a directory of the host; skip when there is none.

    `prefix` goes before the command, to run it in another network namespace.
    """
    command = [name, *args]
    if not shutil.which(name):
        if not os.path.exists(f"{PEERS}/usr/bin/{name}"):
            pytest.skip(f"no {name} on PATH, nor in PIER_PEERS_ROOT")
        command = ["unshare", "-m", "bash", "-ec", ENTER, "peers", PEERS, str(directory), *command]
    command = [*prefix, *command]
    done = subprocess.run(
        command, cwd=directory, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def podman(directory: Path) -> tuple[str, ...]:
    """Return the words of a podman whose store is in the directory."""
    if shutil.which("podman"):
        return ("podman", "--root", f"{directory}/root", "--storage-driver=vfs")
    return ("podman", "--root", "/mnt/root", "--runroot", "/run/podman", "--storage-driver=vfs")
