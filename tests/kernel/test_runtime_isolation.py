"""What a container's program sees and may do: mounts, devices, descriptors, rights, limits."""

import json
import os
import resource

import bundles
import pytest
from bundles import CAPABILITIES, MOUNTS, Room

from pier.errors import StartFailed
from pier.kernel import capabilities, seccomp
from pier.kernel.cgroups import detect


def mountinfo(room: Room, **options: object) -> dict[str, tuple[set[str], str]]:
    """Mount point → (its options, type and superblock options)."""
    found = {}
    for line in room.sh("cat /proc/self/mountinfo", **options).splitlines():
        before, _, after = line.partition(" - ")
        fields = before.split()
        found[fields[4]] = (set(fields[5].split(",")), after)
    return found


def test_mounts_and_their_options(room: Room):
    mounts = mountinfo(room)
    assert mounts["/"][1].startswith("overlay overlay ")
    assert {"nosuid", "nodev", "noexec"} <= mounts["/proc"][0]
    assert {"ro", "nosuid", "nodev", "noexec"} <= mounts["/sys"][0]
    assert "nosuid" in mounts["/dev"][0]
    assert "size=65536k" in mounts["/dev"][1]
    assert "gid=5,mode=620,ptmxmode=666" in mounts["/dev/pts"][1]
    assert "size=65536k" in mounts["/dev/shm"][1]
    assert "/dev/mqueue" in mounts
    assert "ro" in mounts["/proc/sys"][0]
    # Nothing of the host's is left over.
    assert not [path for path in mounts if "pier-room" in path]


def test_the_cgroup_mounts_show_the_container_as_root(room: Room):
    assert set(room.sh("cut -d: -f3 /proc/self/cgroup").split()) <= {"/"}
    out = room.run(["sh", "-c", "mkdir /sys/fs/cgroup/x /sys/fs/cgroup/*/x; true"])
    assert "Read-only file system" in out.stderr


def test_bind_mounts(room: Room, tmp_path):
    (tmp_path / "file").write_text("content")
    (tmp_path / "sub").mkdir()
    entries = (
        {"destination": "/made/for/it", "type": "bind", "source": str(tmp_path),
         "options": ["rbind", "ro", "rprivate"]},
        {"destination": "/etc/one-file", "type": "bind", "source": str(tmp_path / "file"),
         "options": ["bind"]},
    )  # fmt: skip
    out = room.sh(
        "cat /made/for/it/file /etc/one-file; touch /made/for/it/new 2>&1; echo >>/etc/one-file x",
        more_mounts=entries,
    )
    assert out == "contentcontenttouch: /made/for/it/new: Read-only file system\n"
    assert (tmp_path / "file").read_text() == "contentx\n"


def test_a_link_that_leads_nowhere_is_a_mount_point(room: Room, tmp_path):
    """/etc/resolv.conf of many an image is a link to what systemd would have made."""
    (tmp_path / "resolv").write_text("nameserver 1.2.3.4\n")
    top = room.add_layer("links")
    os.makedirs(f"{top}/etc")
    os.symlink("../run/systemd/resolve/stub.conf", f"{top}/etc/resolv.conf")
    os.symlink("/var/deep/er", f"{top}/made")
    os.symlink("loop", f"{top}/loop")
    entries = tuple(
        {"destination": where, "type": "bind", "source": source, "options": ["bind"]}
        for where, source in (
            ("/etc/resolv.conf", f"{tmp_path}/resolv"),
            ("/made/dir", str(tmp_path)),
        )
    )
    out = room.sh(
        "cat /etc/resolv.conf /var/deep/er/dir/resolv; ls /run/systemd/resolve",
        more_mounts=entries, layers=["links", "base"],
    )  # fmt: skip
    assert out == "nameserver 1.2.3.4\n" * 2 + "stub.conf\n"
    loop = {"destination": "/loop", "type": "bind", "source": str(tmp_path), "options": ["bind"]}
    with pytest.raises(StartFailed, match=r"(?i)too many levels"):
        room.started(["true"], more_mounts=(loop,), layers=["links", "base"])


def test_masked_and_readonly_paths(room: Room):
    out = room.sh("cat /proc/kcore /proc/keys | wc -c; ls -A /sys/firmware | wc -l")
    assert out.split() == ["0", "0"]
    result = room.run(["sh", "-c", "echo x >/proc/sys/kernel/hostname; echo 0 >/proc/1/comm"],
                      linux={"readonlyPaths": ["/proc/sys", "/proc/1"]})  # fmt: skip
    assert result.stderr.count("Read-only file system") == 2


def test_masks_below_nothing_are_fine(room: Room):
    assert room.sh("echo on", linux={"maskedPaths": ["/not/there", "/etc/passwd/below"]}) == "on\n"


def test_devices(room: Room):
    out = room.sh(
        "cd /dev; stat -c '%n %F %a %t:%T' null zero full random urandom tty; readlink fd"
    )
    assert out.splitlines() == [
        "null character special file 666 1:3",
        "zero character special file 666 1:5",
        "full character special file 666 1:7",
        "random character special file 666 1:8",
        "urandom character special file 666 1:9",
        "tty character special file 666 5:0",
        "/proc/self/fd",
    ]
    extra = [{"type": "c", "path": "/dev/extra/fuse", "major": 10, "minor": 229, "fileMode": 0o640,
              "uid": 7, "gid": 8}]  # fmt: skip
    out = room.sh("stat -c '%a %u:%g %t:%T' /dev/extra/fuse", linux={"devices": extra})
    assert out == "640 7:8 a:e5\n"


def test_only_stdio_is_open(room: Room):
    # The fourth is the directory that ls itself reads.
    assert room.sh("ls /proc/self/fd").split() == ["0", "1", "2", "3"]
    assert room.sh("ls /proc/1/fd", init=True, user="0") == ""
    box = room.started(["sleep", "100"])
    assert box.exec("x", ["ls", "/proc/self/fd"]).streams()[0].split() == [b"0", b"1", b"2", b"3"]
    assert sorted(os.listdir(f"/proc/{box.pid}/fd")) == ["0", "1", "2"]


def test_the_environment_and_home(room: Room):
    assert set(room.sh("env").split()) >= {"PATH=/bin", "FOO=bar", "HOME=/root"}
    assert "HOME=/home/alice" in room.sh("env", user="alice").split()
    assert "HOME=/own" in room.sh("env", env=["PATH=/bin", "HOME=/own"]).split()


def status_of(text: str) -> dict[str, int]:
    fields = dict(line.split(":", 1) for line in text.splitlines() if ":" in line)
    return {k: int(v, 16) for k, v in fields.items() if k.startswith("Cap")}


def test_capabilities(room: Room):
    mask = capabilities.mask(CAPABILITIES) & capabilities.permitted()
    caps = status_of(room.sh("cat /proc/self/status"))
    assert caps["CapBnd"] == caps["CapEff"] == caps["CapPrm"] == mask
    assert caps["CapInh"] == caps["CapAmb"] == 0
    caps = status_of(room.sh("cat /proc/self/status", user="alice"))
    assert caps["CapBnd"] == mask
    assert caps["CapEff"] == caps["CapPrm"] == caps["CapInh"] == caps["CapAmb"] == 0


def test_no_word_of_capabilities_is_none(room: Room):
    caps = status_of(room.sh("cat /proc/self/status", capabilities={}))
    assert set(caps.values()) == {0}


def test_ambient_capabilities_reach_a_user(room: Room):
    names = ["CAP_NET_BIND_SERVICE"]
    sets = dict.fromkeys(("bounding", "effective", "permitted", "inheritable", "ambient"), names)
    caps = status_of(room.sh("cat /proc/self/status", user="alice", capabilities=sets))
    assert set(caps.values()) == {capabilities.mask(names)}


def test_no_new_privileges(room: Room):
    assert "NoNewPrivs:\t0" in room.sh("cat /proc/self/status")
    assert "NoNewPrivs:\t1" in room.sh("cat /proc/self/status", noNewPrivileges=True)


def test_seccomp(room: Room, tmp_path):
    profile = {
        "defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 95}],
    }
    path = tmp_path / "filter.bpf"
    path.write_bytes(seccomp.compile(profile))
    for user in ("", "alice"):
        result = room.run(["sh", "-c", "mkdir /tmp/x; grep Seccomp: /proc/self/status"], user=user,
                          seccomp_bpf=str(path))  # fmt: skip
        assert "not supported" in result.stderr
        assert result.stdout == "Seccomp:\t2\n"
    with pytest.raises(StartFailed) as info:
        room.started(["true"], seccomp_bpf=str(tmp_path / "missing"))
    assert info.value.step == "seccomp"


def test_limits(room: Room):
    hard = min(4096, resource.getrlimit(resource.RLIMIT_NOFILE)[1])
    limits = [{"type": "RLIMIT_NOFILE", "soft": 64, "hard": hard},
              {"type": "RLIMIT_CORE", "soft": 0, "hard": 0}]  # fmt: skip
    out = room.sh("ulimit -Sn; ulimit -Hn; ulimit -c", rlimits=limits)
    assert out.split() == ["64", str(hard), "0"]


@pytest.mark.parametrize("score", [0, 500])
def test_oom_score(room: Room, score: int):
    """Also 0, whatever the score of pierd: from which the keeper inherits."""
    assert room.sh("cat /proc/self/oom_score_adj", oomScoreAdj=score) == f"{score}\n"
    box = room.started(["sleep", "100"], oomScoreAdj=100)
    client = box.exec("x", ["cat", "/proc/self/oom_score_adj"], oomScoreAdj=score)
    assert client.streams()[0] == f"{score}\n".encode()


def test_umask_and_working_directory(room: Room):
    assert room.sh("umask; pwd") == "0022\n/\n"
    for readonly in (False, True):
        seen = room.sh("pwd; ls -ld . | cut -c1-10", cwd="/made/by/us", readonly=readonly)
        assert seen == "/made/by/us\ndrwxr-xr-x\n"


def test_users(room: Room):
    assert room.sh("id -u; id -G") == "0\n0\n"
    assert room.sh("id -u; id -G", user="alice") == "1000\n1000 10 50\n"
    assert room.sh("id -u; id -g", user="4321:99").split() == ["4321", "99"]
    assert room.sh("id -G", user="1:1", groups=("staff", "777")) == "1 50 777\n"


def test_stdio_belongs_to_the_user(room: Room):
    assert room.sh("echo yes >/dev/stderr; echo no >/proc/self/fd/1", user="alice") == "no\n"
    out = room.run(["sh", "-c", "stat -c %u /dev/pts/0; echo x >/dev/tty"], user="alice", tty=True)
    assert out.stdout.split() == ["1000", "x"]


def test_readonly_root(room: Room):
    result = room.run(["sh", "-c", "touch /x; touch /dev/shm/y && echo shm"], readonly=True)
    assert "Read-only file system" in result.stderr
    assert result.stdout == "shm\n"


def test_sysctls(room: Room):
    linux = {"sysctl": {"net.ipv4.ip_default_ttl": "77", "kernel.shm_rmid_forced": "1"}}
    out = room.sh("cat /proc/sys/net/ipv4/ip_default_ttl /proc/sys/kernel/shm_rmid_forced",
                  linux=linux)  # fmt: skip
    assert out.split() == ["77", "1"]
    with pytest.raises(StartFailed, match=r"net\.no\.such=1: No such file") as info:
        room.started(["true"], linux={"sysctl": {"net.no.such": "1"}})
    assert info.value.step == "sysctl"


def test_writes_go_to_the_upper_layer(room: Room):
    box = room.started(["sh", "-c", "echo new >/new; rm /etc/group; mv /etc/passwd /etc/moved"])
    assert box.wait().code == 0
    assert sorted(os.listdir(box.upper)) == ["etc", "new"]
    with open(f"{room.layer('base')}/etc/passwd") as file:
        assert "alice" in file.read()


def test_two_hundred_layers(room: Room):
    names = [f"many{number}" for number in range(200)]
    for number, name in enumerate(names):
        if not os.path.exists(room.layer(name)):
            with open(f"{room.add_layer(name)}/f{number}", "w") as file:
                file.write("x")
    assert room.sh("ls / | grep -c '^f[0-9]'", layers=[*names, "base"]) == "200\n"


@pytest.mark.skipif(not os.path.exists("/proc/keys"), reason="a kernel without keyrings")
def test_a_session_keyring_of_its_own(room: Room):
    box = room.started(["sleep", "100"], linux={"maskedPaths": []})
    # What shows in there are the keys that its processes possess: of another's, nothing.
    out = box.exec("x", ["cat", "/proc/keys"]).streams()[0].decode()
    assert f"_ses.{box.id}" in out


MAPPED = 100_000


def test_user_namespace(room: Room):
    mapping = [{"containerID": 0, "hostID": MAPPED, "size": 65536}]
    box = room.container(
        ["sleep", "100"],
        namespaces=[{"type": kind} for kind in (*bundles.NAMESPACES, "user")],
        linux={"uidMappings": mapping, "gidMappings": mapping, "readonlyPaths": []},
    )
    for path in (box.upper, os.path.dirname(box.upper) + "/work"):
        os.chown(path, MAPPED, MAPPED)
    # The container's root is nobody out here, and has to find its bundle.
    for path in (os.path.dirname(room.exec_root), os.path.dirname(box.bundle)):
        os.chmod(path, 0o711)
    box.start()
    assert os.stat(f"/proc/{box.pid}/status").st_uid == MAPPED
    assert os.readlink(f"/proc/{box.pid}/ns/user") != os.readlink("/proc/self/ns/user")
    script = "id -u; cat /etc/passwd | head -n1; echo x >/tmp/new && stat -c %u /tmp/new; echo x >/dev/null; cat /proc/self/uid_map"
    out = box.exec("x", ["sh", "-c", script]).streams()
    assert out[0].decode().split() == [
        "0", "root:x:0:0:root:/root:/bin/sh", "0", "0", str(MAPPED), "65536"
    ], out  # fmt: skip
    box.kill()
    assert box.wait().code == 137


def test_the_log_can_be_left_out(room: Room):
    log = {"path": ""}
    box = room.container(["echo", "hi"], log=log)
    client = box.attach()
    box.start()
    assert client.streams()[0] == b"hi\n"
    assert not os.path.exists(box.log_path)


def test_log_rotation(room: Room):
    box = room.container(["seq", "1", "5000"])
    with open(f"{box.bundle}/keeper.json") as file:
        config = json.load(file)
    config["log"] |= {"max_size": 20000, "max_file": 3}
    with open(f"{box.bundle}/keeper.json", "w") as file:
        json.dump(config, file)
    box.start()
    box.wait()
    assert os.path.exists(box.log_path)


def test_a_spec_needs_a_mount_namespace(room: Room):
    for namespaces in (
        [{"type": "pid"}],
        [{"type": "mount", "path": "/proc/self/ns/mnt"}, {"type": "pid"}],
    ):
        with pytest.raises(StartFailed, match="a mount namespace of its own"):
            room.started(["true"], namespaces=namespaces)


def test_unknown_namespaces_are_refused(room: Room):
    for kind in ("karma", "NEWPID"):
        with pytest.raises(StartFailed, match=f"unknown namespace type '{kind}'"):
            room.started(["true"], namespaces=[{"type": "mount"}, {"type": kind}])


def test_without_a_dev_mount_the_images_own_is_filled(room: Room):
    """config-linux.md, Default Devices and Dev symbolic links: they are there in any case."""
    mounts = [m for m in MOUNTS if not m["destination"].startswith("/dev")]
    names = [
        "fd",
        "full",
        "null",
        "ptmx",
        "random",
        "stderr",
        "stdin",
        "stdout",
        "tty",
        "urandom",
        "zero",
    ]
    assert room.sh("ls /dev", mounts=mounts).split() == names


@pytest.mark.skipif(detect().mode != "v2", reason="of cgroup v2 alone")
def test_exec_where_the_container_divided_its_cgroup(room: Room):
    """As systemd and dockerd do inside of a container: its own cgroup takes no process any more."""
    writable = {**bundles.CGROUP, "options": bundles.PLAIN}
    mounts = [writable if mount == bundles.CGROUP else mount for mount in bundles.MOUNTS]
    script = (
        "cd /sys/fs/cgroup && mkdir below && echo 1 > below/cgroup.procs"
        " && echo +pids > cgroup.subtree_control && echo divided && exec sleep 100"
    )
    box = room.container(["sh", "-c", script], mounts=mounts)
    client = box.attach()
    box.start()
    client.read_until(b"divided")
    assert box.exec("x", ["cat", "/proc/self/cgroup"]).streams()[0] == b"0::/below\n"
