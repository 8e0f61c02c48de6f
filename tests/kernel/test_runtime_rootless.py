"""pier-runtime for a user who is not root, and user namespaces that were made by others."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import bundles
import pytest
from bundles import Room

from pier.errors import StartFailed
from pier.runtime.cli.template import template

UID = GID = 1000
SRC = Path(__file__).parents[2] / "src"
AS_USER = ["setpriv", f"--reuid={UID}", f"--regid={GID}", "--clear-groups", "--inh-caps=-all",
           "--bounding-set=-all"]  # fmt: skip
KINDS = ("pid", "ipc", "uts", "mount", "network", "user")
PLAIN = ["nosuid", "noexec", "nodev"]


def a_python() -> str | None:
    """An interpreter that the user may execute; that of the tests may be root's alone."""
    for path in (os.path.realpath(sys.executable), "/usr/bin/python3"):
        code = (
            f"import sys; sys.path.insert(0, {str(SRC)!r}); import pier.runtime.cli;"
            "open(sys.executable); assert sys.version_info >= (3, 11)"
        )
        done = subprocess.run([*AS_USER, path, "-c", code], check=False, capture_output=True)
        if done.returncode == 0:
            return path
    return None


class UsersRuntime:
    """A bundle of the user's, and the command as the user."""

    def __init__(self, directory: Path, python: str) -> None:
        self.bundle = directory
        self.python = python
        self.spec: Any = json.loads(json.dumps(template()))
        self.spec["process"].update(terminal=False, env=["PATH=/bin"])
        self.spec["process"].pop("rlimits", None)
        self.spec["root"] = {"path": "rootfs", "readonly": False}
        linux = self.spec["linux"]
        linux["namespaces"] = [{"type": kind} for kind in KINDS]
        linux.pop("resources", None)
        linux["uidMappings"] = [{"containerID": 0, "hostID": UID, "size": 1}]
        linux["gidMappings"] = [{"containerID": 0, "hostID": GID, "size": 1}]
        self.spec["mounts"] = [
            {"destination": "/proc", "type": "proc", "source": "proc", "options": PLAIN},
            bundles.DEV,
            {**bundles.PTS, "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666"]},
            {"destination": "/sys", "type": "sysfs", "source": "sysfs", "options": [*PLAIN, "ro"]},
        ]

    def __call__(self, *args: str, ok: bool = True) -> subprocess.CompletedProcess[str]:
        (self.bundle / "config.json").write_text(json.dumps(self.spec))
        code = f"import sys; sys.path.insert(0, {str(SRC)!r}); from pier.runtime.cli import main; main()"
        with open(self.bundle / "out", "w+") as out:
            done = subprocess.run(
                [*AS_USER, self.python, "-c", code, "--root", str(self.bundle / "state"), *args],
                check=False, stdout=out, stderr=out, text=True, cwd=self.bundle,
                stdin=subprocess.DEVNULL, timeout=bundles.PATIENCE_S,
            )  # fmt: skip
            out.seek(0)
            done.stdout = out.read()
        if ok:
            assert done.returncode == 0, done.stdout
        return done

    def run(self, script: str, *, ok: bool = True) -> subprocess.CompletedProcess[str]:
        self.spec["process"]["args"] = ["sh", "-c", script]
        return self("run", "one", ok=ok)


@pytest.fixture
def users(room: Room) -> Iterator[UsersRuntime]:
    python = a_python()
    if python is None:
        pytest.skip("no interpreter that a user may execute")
    directory = Path(room.data).parent / "of-the-user"
    os.chmod(directory.parent, 0o711)
    (directory / "state").mkdir(parents=True)
    shutil.copytree(room.layer("base"), directory / "rootfs", symlinks=True)
    subprocess.check_call(["chown", "-hR", f"{UID}:{GID}", str(directory)])
    runtime = UsersRuntime(directory, python)
    try:
        yield runtime
    finally:
        runtime("delete", "--force", "one", ok=False)
        shutil.rmtree(directory)


def test_run(users: UsersRuntime):
    out = users.run("id -u; cat /proc/self/uid_map; echo x > /made; ls -ln /made; echo > /dev/null;"
                    "cat /proc/self/setgroups; hostname").stdout  # fmt: skip
    lines = out.splitlines()
    assert lines[0] == "0"
    assert lines[1].split() == ["0", str(UID), "1"]
    assert lines[2].split()[2:4] == ["0", "0"]
    assert lines[3] == "deny"
    assert (users.bundle / "rootfs/made").stat().st_uid == UID


def test_create_start_exec_kill_delete(users: UsersRuntime):
    users.spec["process"]["args"] = ["sleep", "100"]
    users("create", "one")
    users("start", "one")
    state = json.loads(users("state", "one").stdout)
    assert state["status"] == "running"
    assert os.stat(f"/proc/{state['pid']}").st_uid in (UID, 0)
    with open(f"/proc/{state['pid']}/status") as file:
        assert f"Uid:\t{UID}\t{UID}" in file.read()
    names = ("user", "mnt", "pid", "net")
    script = "id -u; " + "".join(f"readlink /proc/self/ns/{name};" for name in names)
    out = users("exec", "one", "sh", "-c", script).stdout.split()
    assert out == ["0", *(os.readlink(f"/proc/{state['pid']}/ns/{name}") for name in names)]
    # What a process of a user's that joins a container may not write itself is set before.
    users.spec["process"].update(oomScoreAdj=600, args=["cat", "/proc/self/oom_score_adj"])
    process = users.bundle / "process.json"
    process.write_text(json.dumps(users.spec["process"]))
    assert users("exec", "--process", str(process), "one").stdout == "600\n"
    users("kill", "one", "KILL")
    users("delete", "--force", "one")


def test_oom_score_and_masked_paths(users: UsersRuntime):
    users.spec["process"]["oomScoreAdj"] = 500
    out = users.run("cat /proc/self/oom_score_adj; cat /proc/keys | wc -c").stdout.split()
    assert out == ["500", "0"]


def test_groups_are_refused(users: UsersRuntime):
    users.spec["process"]["user"] = {"uid": 0, "gid": 0, "additionalGids": [4]}
    done = users.run("true", ok=False)
    assert done.returncode != 0
    assert "cannot set any additional groups in a rootless container" in done.stdout


def test_limits_need_a_cgroup(users: UsersRuntime):
    users.spec["linux"]["resources"] = {"pids": {"limit": 10}}
    done = users.run("true", ok=False)
    assert done.returncode != 0
    assert "ermission denied" in done.stdout


def test_ranges_of_others_need_newuidmap(users: UsersRuntime):
    users.spec["linux"]["uidMappings"].append({"containerID": 1, "hostID": 100000, "size": 10})
    done = users.run("true", ok=False)
    assert done.returncode != 0
    assert "newuidmap" in done.stdout


# In a mount namespace of its own, where the user has a name and a range of numbers.
WITH_A_RANGE = """
set -e
mount --bind "$1/passwd" /etc/passwd
mount --bind "$1/subid" /etc/subuid
mount --bind "$1/subid" /etc/subgid
shift
exec "$@"
"""


def test_a_range_of_the_users_own(users: UsersRuntime, monkeypatch: pytest.MonkeyPatch) -> None:
    """newuidmap and newgidmap map what /etc/subuid and /etc/subgid grant, and nothing more."""
    if not shutil.which("newuidmap"):
        pytest.skip("no newuidmap (Debian's package uidmap)")
    etc = users.bundle / "etc"
    etc.mkdir()
    (etc / "passwd").write_text(f"root:x:0:0::/:/bin/sh\nranger:x:{UID}:{GID}::/:/bin/sh\n")
    (etc / "subid").write_text("ranger:200000:65536\n")
    # Without the loss of the bounding set, or a set-user-ID program would gain nothing.
    entered = ["unshare", "-m", "sh", "-c", WITH_A_RANGE, "sh", str(etc), *AS_USER[:-1]]
    monkeypatch.setattr(sys.modules[__name__], "AS_USER", entered)
    linux = users.spec["linux"]
    for kind, own in (("uidMappings", UID), ("gidMappings", GID)):
        linux[kind] = [
            {"containerID": 0, "hostID": own, "size": 1},
            {"containerID": 1, "hostID": 200000, "size": 65536},
        ]
    users.spec["process"]["user"] = {"uid": 33, "gid": 44, "additionalGids": [55]}
    out = users.run("id -u; id -g; id -G; cat /proc/self/uid_map; : > /tmp/made").stdout.split()
    assert out[:4] == ["33", "44", "44", "55"]
    assert out[4:] == ["0", str(UID), "1", "1", "200000", "65536"]
    users("delete", "--force", "one", ok=False)
    linux["uidMappings"][1]["hostID"] = 100000
    done = users.run("true", ok=False)
    assert done.returncode != 0
    assert "newuidmap" in done.stdout


def test_idmap_is_refused(users: UsersRuntime):
    users.spec["mounts"].append({"destination": "/m", "type": "bind", "source": "/usr",
                                 "options": ["bind", "idmap"]})  # fmt: skip
    done = users.run("true", ok=False)
    assert "idmap mounts need the rights of the host's root" in done.stdout


# Root's, of a user namespace that another container made


MAPPING = [{"containerID": 0, "hostID": 100_000, "size": 65536}]


def test_joining_a_user_namespace(room: Room):
    kinds = [{"type": kind} for kind in (*bundles.NAMESPACES, "user")]
    mapped = {"uidMappings": MAPPING, "gidMappings": MAPPING}
    first = room.container(["sleep", "100"], namespaces=kinds, linux=mapped)
    give(first)
    first.start()
    path = f"/proc/{first.pid}/ns/user"
    kinds[-1] = {"type": "user", "path": path}
    second = room.container(["sleep", "100"], namespaces=kinds)
    give(second)
    second.start()
    assert os.readlink(f"/proc/{second.pid}/ns/user") == os.readlink(path)
    # What was made is made in there: else its root could not have mounted /proc, /sys, mqueue.
    assert os.readlink(f"/proc/{second.pid}/ns/net") != os.readlink(f"/proc/{first.pid}/ns/net")
    out = second.exec("x", ["sh", "-c", "id -u; cat /proc/self/uid_map"]).streams()[0].split()
    assert out == [b"0", b"0", b"100000", b"65536"]
    with open(f"/proc/{second.pid}/status") as file:
        assert "Uid:\t100000" in file.read()


def test_a_user_namespace_without_root(room: Room):
    kinds = [{"type": kind} for kind in (*bundles.NAMESPACES, "user")]
    mapping = [{"containerID": 1000, "hostID": 100_000, "size": 1}]
    process = {**bundles.process(["sh", "-c", "id -u; id -g; cat /proc/self/uid_map"]),
               "user": {"uid": 1000, "gid": 1000}}  # fmt: skip
    mounts = [m for m in bundles.MOUNTS if m["type"] != "devpts"]
    box = room.container(["true"], namespaces=kinds, mounts=mounts, top={"process": process},
                         linux={"uidMappings": mapping, "gidMappings": mapping})  # fmt: skip
    give(box)
    client = box.attach()
    try:
        box.start()
    except StartFailed as exc:
        # Who may not make what the root lacks has to have it there already.
        pytest.fail(str(exc))
    assert client.streams()[0].split() == [b"1000", b"1000", b"1000", b"100000", b"1"]


def give(box: bundles.Box) -> None:
    for path in (box.upper, os.path.dirname(box.upper) + "/work"):
        os.chown(path, 100_000, 100_000)
