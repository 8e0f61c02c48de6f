"""Debian sid's dockerd, run beside Pier in a root file system of its own.

The root is made once by mmdebstrap below `.cache/peers`, or taken from where PIER_PEERS_ROOT
says. dockerd runs in its own mount and network namespace, with `root` as its root and everything
it writes below one directory that is thrown away: the machine's own Docker, mounts, links and
firewall are never touched.
"""

import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable
from types import TracebackType
from typing import Self

from engine_process import place

# crun is for runtime.py, podman and its network tools are for sides.py, buildx for builds.py.
PACKAGES = (
    "ca-certificates,docker.io,docker-cli,docker-buildx,containerd,runc,crun,iptables,iproute2,"
    "procps,libseccomp2,podman,netavark,aardvark-dns,nftables"
)
NEEDED = ("usr/sbin/dockerd", "usr/bin/crun", "usr/bin/podman")

# Runs inside the new mount namespace: the root's own /run is fresh, its /tmp is the machine's (so
# that bind mounts can be compared), `shared` appears as /mnt. It stays, and holds the namespaces:
# dockerd, started in them, may end and be started again beside its containers.
ENTER = """
root=$1 shared=$2
mount --bind "$root" "$root"
for m in proc sys dev; do mount --rbind "/$m" "$root/$m"; done
mkdir -p "$root/.old"
mount --bind "$shared" "$root/mnt"
mount -t tmpfs tmpfs "$root/run"
mount --bind /tmp "$root/tmp"
cd "$root"
pivot_root . .old
umount -l /.old
ip link set lo up || true
: > /mnt/ready
exec sleep infinity
"""


def find_root(cache: str) -> str:
    """Return the root with the peers in it, making it below `cache` when it is not there yet."""
    given = os.environ.get("PIER_PEERS_ROOT")
    if given:
        return os.path.realpath(given)
    root = os.path.join(cache, "peers", "root")
    if not all(os.path.exists(os.path.join(root, f)) for f in NEEDED):
        staging = root + ".new"
        shutil.rmtree(staging, ignore_errors=True)
        os.makedirs(staging)
        subprocess.run(
            [
                "mmdebstrap",
                "--variant=minbase",
                '--aptopt=Acquire::Check-Valid-Until "false"',
                f"--include={PACKAGES}",
                "sid",
                staging,
                _mirror(),
            ],
            check=True,
        )
        shutil.rmtree(root, ignore_errors=True)
        os.rename(staging, root)
    return root


def _mirror() -> str:
    """Return the archive that this machine's own Debian sources name, whatever the release."""
    for directory, _, names in os.walk("/etc/apt"):
        for name in sorted(names):
            if not name.endswith((".list", ".sources")):
                continue
            with open(os.path.join(directory, name)) as file:
                for word in file.read().split():
                    if word.startswith(("http://", "https://")) and word.rstrip("/").endswith(
                        "/debian"
                    ):
                        return word
    raise RuntimeError("no Debian archive in /etc/apt; set PIER_PEERS_ROOT")


class Dockerd:
    """A dockerd of our own, a context manager. `host` is its DOCKER_HOST, `pid` a process in its
    namespaces for as long as they live, `daemon` dockerd itself.
    """

    def __init__(self, root: str, *flags: str) -> None:
        self.root = root
        self.shared = tempfile.mkdtemp(prefix="pier-dockerd-", dir=place())
        self.host = f"unix://{self.shared}/docker.sock"
        self.log = os.path.join(self.shared, "dockerd.log")
        # It leaves the empty parent of its containers' cgroups, which __exit__ removes.
        self._cgroups = _docker_cgroups()
        self._flags = flags
        self._process: subprocess.Popen[bytes] | None = None
        self._holder = subprocess.Popen(
            [
                *("unshare", "--mount", "--net", "--propagation", "private"),
                *("bash", "-ec", ENTER, "peers", root, self.shared),
            ],
            stdin=subprocess.DEVNULL,
            start_new_session=True,
        )
        self.pid = self._holder.pid

    @property
    def data_root(self) -> str:
        return f"{self.shared}/data"

    @property
    def daemon(self) -> int:
        assert self._process is not None
        return self._process.pid

    def __enter__(self) -> Self:
        self._wait_for(lambda: os.path.exists(f"{self.shared}/ready"), self._holder)
        self.start()
        return self

    def start(self) -> None:
        """Start dockerd and wait until it answers. Raises RuntimeError with its log."""
        with open(self.log, "ab") as log:
            self._process = subprocess.Popen(
                [
                    *("nsenter", "--mount", "--net", "--target", str(self.pid)),
                    *("dockerd", "-H", "unix:///mnt/docker.sock", "-p", "/mnt/docker.pid"),
                    *("--data-root", "/mnt/data", "--exec-root", "/run/docker", *self._flags),
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self._wait_for(self._answers, self._process)

    def _wait_for(self, condition: Callable[[], bool], process: "subprocess.Popen[bytes]") -> None:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline and process.poll() is None:
            if condition():
                return
            time.sleep(0.02)
        tail = ""
        if os.path.exists(self.log):
            with open(self.log) as file:
                tail = file.read()[-4000:]
        self.__exit__(None, None, None)
        raise RuntimeError(f"dockerd did not start:\n{tail}")

    def stop(self) -> None:
        """End dockerd; with --live-restore its containers go on."""
        if self._process is None:
            return
        self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(60)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process = None

    def _answers(self) -> bool:
        environment = {**os.environ, "DOCKER_HOST": self.host}
        found = subprocess.run(
            ["docker", "version"], env=environment, capture_output=True, check=False
        )
        return found.returncode == 0

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._process is not None and "--live-restore" in self._flags:
            environment = {**os.environ, "DOCKER_HOST": self.host}
            script = 'ids=$(docker ps -aq); [ -z "$ids" ] || docker rm -f $ids'
            subprocess.run(
                ["sh", "-c", script], env=environment, stdout=subprocess.DEVNULL, check=False
            )
        self.stop()
        self._holder.kill()
        self._holder.wait()
        for path in sorted(_docker_cgroups() - self._cgroups, reverse=True):
            os.rmdir(path)
        shutil.rmtree(self.shared)


def _docker_cgroups() -> set[str]:
    found: set[str] = set()
    for directory, names, _ in os.walk("/sys/fs/cgroup"):
        found.update(os.path.join(directory, name) for name in names if name == "docker")
    return found
