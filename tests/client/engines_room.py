"""A room of its own for podman and containerd, driven with pier-runtime in place of theirs.

    room = EnginesRoom(root)              mount, pid and network namespaces, `root` as its root
    room("podman", "--version")           one command in it, to its end
    room.close()                          every process in it ends, its cgroup goes

`root` is a file system with both engines, see tools/engines_root.sh. It is covered by an overlay
in memory, so nothing is ever written to it; the repository and our interpreter appear in it under
their own paths, and `room.work` as a directory of the machine's.
"""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from typing import IO

from engine_process import place
from pier.kernel.cgroups import Cgroup, detect

PATIENCE_S = 60.0
REPOSITORY = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
Done = subprocess.CompletedProcess[str]

ENTER = """
root=$1 work=$2; shift 2
mount -t tmpfs tmpfs /mnt
mkdir /mnt/upper /mnt/work /mnt/root
mount -t overlay overlay -o "lowerdir=$root,upperdir=/mnt/upper,workdir=/mnt/work" /mnt/root
cd /mnt/root
for m in sys dev; do mount --rbind "/$m" "$m"; done
mount -t proc proc proc
mount -t tmpfs tmpfs run
mount -t tmpfs tmpfs tmp
for path in "$work" "$@"; do
  mkdir -p "./$path"
  mount --rbind "$path" "./$path"
done
mkdir -p .old
pivot_root . .old
umount -l /.old
ip link set lo up 2>/dev/null || true
: > "$work/ready"
trap : TERM
sleep infinity &
wait
"""


def find_root() -> str | None:
    """The root with the engines, None when there is none."""
    given = os.environ.get("PIER_ENGINES_ROOT") or os.environ.get("PIER_PEERS_ROOT")
    return given if given and os.path.exists(f"{given}/usr/bin/podman") else None


class EnginesRoom:
    """The room, as long as its first process lives."""

    def __init__(self, root: str, cgroup: str = "/libpod_parent") -> None:
        """`cgroup` is where the room's engine makes those of its containers."""
        self.work = tempfile.mkdtemp(prefix="pier-engines-", dir=place())
        self.runtime = os.path.join(os.path.dirname(sys.executable), "pier-runtime")
        # A system's own interpreter is in /usr, and there the root has its own of the same release.
        bound = [p for p in (REPOSITORY, sys.prefix, sys.base_prefix) if p not in ("/", "/usr")]
        self._cgroup = cgroup
        self._holder = subprocess.Popen(
            [
                *("unshare", "--mount", "--net", "--pid", "--fork", "--kill-child=KILL"),
                *("bash", "-ec", ENTER, "room", root, self.work, *dict.fromkeys(bound)),
            ],
            stdin=subprocess.DEVNULL,
        )
        self._wait_for(f"{self.work}/ready")
        (first,) = _children(self._holder.pid)
        self._enter = ["nsenter", "--mount", "--net", "--pid", "--target", str(first)]
        self._env = {
            "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            "HOME": "/root",
            "LANG": "C.UTF-8",
            "PODMAN_IGNORE_CGROUPSV1_WARNING": "1",
        }

    def command(self, *args: str) -> list[str]:
        """The argv that runs `args` in the room."""
        return [*self._enter, *args]

    def __call__(self, *args: str, ok: bool = True, stdin: str | None = None) -> Done:
        """Run a command to its end."""
        done = subprocess.run(
            self.command(*args), input=stdin or "", capture_output=True, text=True,
            timeout=PATIENCE_S, check=False, env=self._env,
        )  # fmt: skip
        if ok:
            assert done.returncode == 0, done
        return done

    def spawn(self, *args: str, log: IO[bytes]) -> "subprocess.Popen[bytes]":
        """Start a daemon in the room; it ends with it."""
        return subprocess.Popen(
            self.command(*args), stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=self._env
        )

    def close(self) -> None:
        self._holder.send_signal(signal.SIGKILL)
        self._holder.wait()
        if any(os.path.isdir(h.mount + self._cgroup) for h in detect().all):
            cgroup = Cgroup(detect(), self._cgroup)
            cgroup.kill()
            cgroup.remove()
        shutil.rmtree(self.work)

    def _wait_for(self, path: str) -> None:
        deadline = time.monotonic() + PATIENCE_S
        while not os.path.exists(path):
            assert time.monotonic() < deadline, f"no {path}"
            assert self._holder.poll() is None, "the room could not be made"
            time.sleep(0.01)


def _children(pid: int) -> list[int]:
    with open(f"/proc/{pid}/task/{pid}/children") as file:
        return [int(word) for word in file.read().split()]
