"""Records made into config.json, keeper.json and execs."""

import json
import os

import pytest

from pier.engine import defaults, etc_files, oci
from pier.engine.environment import replace_or_append
from pier.engine.log_values import parse_size
from pier.engine.oci import Sandbox
from pier.engine.user_mounts import parse_all
from pier.errors import Internal, InvalidParameter
from pier.model.api_execs import ExecCreateRequest
from pier.model.container import (
    ContainerConfig,
    ContainerRecord,
    DeviceMapping,
    HostConfig,
    LogConfig,
    Mount,
    ThrottleDevice,
    TmpfsOptions,
    Ulimit,
)

NOTHING_JOINED = Sandbox()
ID = "0123456789ab" + "c" * 52


class Filters:
    """Answers with what it was asked for, in place of a compiled filter."""

    def path_for(self, profile, caps):
        return None if profile == "unconfined" else f"{profile}:{len(caps)}"


def record(config=None, host=None, **fields):
    return ContainerRecord(
        Id=ID,
        Name="name",
        Created="",
        Image="sha256:1",
        Config=config or ContainerConfig(),
        HostConfig=host or HostConfig(),
        Path=fields.get("path", "sh"),
        Args=fields.get("args", ["-c", "true"]),
        layers=["sha256:aa", "sha256:bb"],
        mounts=parse_all(host or HostConfig()),
    )


def build(config=None, host=None, sandbox=NOTHING_JOINED, **fields):
    return oci.build_spec(
        record(config, host, **fields),
        exec_root="/run/pier",
        data_root="/data",
        filters=Filters(),
        sandbox=sandbox,
    )


def by_destination(spec):
    return {mount["destination"]: mount for mount in spec["mounts"]}


def test_default():
    spec, keeper = build()
    process = spec["process"]
    assert process["args"] == ["sh", "-c", "true"]
    assert process["cwd"] == "/"
    assert process["env"] == [f"PATH={defaults.DEFAULT_PATH}", "HOSTNAME=0123456789ab"]
    assert process["capabilities"]["bounding"] == list(defaults.CAPABILITIES)
    assert "inheritable" not in process["capabilities"]
    assert spec["hostname"] == "0123456789ab"
    assert [n["type"] for n in spec["linux"]["namespaces"]] == [
        "mount",
        "network",
        "pid",
        "ipc",
        "uts",
        "cgroup",
    ]
    assert "/proc/kcore" in spec["linux"]["maskedPaths"]
    assert spec["linux"]["readonlyPaths"] == list(defaults.READONLY_PATHS)
    assert list(by_destination(spec)) == [
        "/proc",
        "/dev",
        "/dev/pts",
        "/sys",
        "/sys/fs/cgroup",
        "/dev/mqueue",
        "/dev/shm",
        "/etc/hosts",
        "/etc/hostname",
        "/etc/resolv.conf",
    ]
    assert spec["linux"]["resources"] == {"devices": list(defaults.DEVICE_RULES)}
    assert keeper == {
        "id": ID,
        "overlay": {
            "base": "/data",
            "lower": ["layers/bb/diff", "layers/aa/diff"],
            "upper": f"containers/{ID}/upper",
            "work": f"containers/{ID}/work",
            "volatile": False,
        },
        "cgroup": f"/pier/{ID}",
        "user": "0",
        "groups": [],
        "stdin_open": False,
        "stdin_once": False,
        "log": {
            "path": f"/data/containers/{ID}/{ID}-json.log",
            "max_size": 100_000_000,
            "max_file": 10,
            "compress": False,
            "attributes": {},
            "remote": None,
        },
        "seccomp_bpf": ":14",
        "init": False,
    }
    json.dumps([spec, keeper])


def test_building_changes_no_constant():
    before = json.dumps([defaults.PROC, defaults.DEVICE_RULES, defaults.SYS, defaults.CGROUP])
    build(host=HostConfig(Privileged=True, ReadonlyRootfs=True, Tmpfs={"/run": "size=1m"}))
    build(host=HostConfig(DeviceCgroupRules=["c 1:* r"]))
    after = json.dumps([defaults.PROC, defaults.DEVICE_RULES, defaults.SYS, defaults.CGROUP])
    assert before == after


def test_privileged():
    spec, keeper = build(host=HostConfig(Privileged=True))
    assert spec["linux"]["maskedPaths"] == spec["linux"]["readonlyPaths"] == []
    assert "ro" not in by_destination(spec)["/sys"]["options"]
    assert "ro" not in by_destination(spec)["/sys/fs/cgroup"]["options"]
    assert spec["linux"]["resources"]["devices"] == [{"allow": True, "access": "rwm"}]
    assert keeper["seccomp_bpf"] is None
    paths = {node["path"] for node in spec["linux"]["devices"]}
    assert not paths & defaults.DEFAULT_DEVICE_PATHS


def test_terminal_and_environment():
    config = ContainerConfig(Tty=True, Env=["PATH=/bin", "HOSTNAME", "A=1"], Hostname="h")
    spec, _ = build(config, HostConfig(ConsoleSize=(24, 80)))
    assert spec["process"]["env"] == ["PATH=/bin", "TERM=xterm", "A=1"]
    assert spec["process"]["consoleSize"] == {"height": 24, "width": 80}


@pytest.mark.parametrize(
    ("base", "changes", "expected"),
    [
        (["A=1"], ["A=2", "B=3"], ["A=2", "B=3"]),
        (["A=1", "B=2"], ["A"], ["B=2"]),
        (["A=1"], ["A="], ["A="]),
        ([], ["A=b=c"], ["A=b=c"]),
    ],
)
def test_replace_or_append(base, changes, expected):
    assert replace_or_append(base, changes) == expected


def test_limits(tmp_path):
    host = HostConfig(
        Memory=1 << 30,
        MemorySwap=-1,
        NanoCpus=1_500_000_000,
        CpusetCpus="0",
        PidsLimit=0,
        OomScoreAdj=100,
        BlkioDeviceReadBps=[ThrottleDevice("/dev/null", 5)],
        Ulimits=[Ulimit("nofile", Hard=-1, Soft=1024)],
    )
    spec, _ = build(host=host)
    limits = spec["linux"]["resources"]
    assert limits["memory"] == {"limit": 1 << 30, "swap": -1}
    assert limits["cpu"] == {"period": 100_000, "quota": 150_000, "cpus": "0"}
    assert limits["pids"] == {"limit": -1}
    assert limits["blockIO"] == {"throttleReadBpsDevice": [{"major": 1, "minor": 3, "rate": 5}]}
    assert spec["process"]["oomScoreAdj"] == 100
    assert spec["process"]["rlimits"] == [
        {"type": "RLIMIT_NOFILE", "hard": 2**64 - 1, "soft": 1024}
    ]


@pytest.mark.parametrize(
    ("parent", "expected"),
    [
        ("", f"/pier/{ID}"),
        ("/a/b", f"/a/b/{ID}"),
        ("a", f"/a/{ID}"),
        ("../../etc", f"/etc/{ID}"),
        ("//x/", f"/x/{ID}"),
    ],
)
def test_cgroup_path(parent, expected):
    assert oci.cgroup_path(parent, ID) == expected


def test_namespaces_of_the_host():
    host = HostConfig(
        NetworkMode="host", PidMode="host", IpcMode="host", UTSMode="host", CgroupnsMode="host",
        Init=True,
    )  # fmt: skip
    spec, keeper = build(host=host)
    assert spec["linux"]["namespaces"] == [{"type": "mount"}]
    assert "hostname" not in spec
    assert spec["linux"]["sysctl"] == {}
    assert by_destination(spec)["/dev/shm"]["source"] == "/dev/shm"
    assert keeper["init"] is False


def test_joined_namespaces():
    other = "f" * 64
    host = HostConfig(NetworkMode=f"container:{other}", PidMode=f"container:{other}")
    sandbox = Sandbox(pid="/proc/9/ns/pid", network="/proc/9/ns/net", hostname="theirs")
    spec, _ = build(host=host, sandbox=sandbox)
    assert {"type": "network", "path": "/proc/9/ns/net"} in spec["linux"]["namespaces"]
    assert {"type": "pid", "path": "/proc/9/ns/pid"} in spec["linux"]["namespaces"]
    assert by_destination(spec)["/etc/hosts"]["source"] == f"/data/containers/{other}/hosts"
    assert spec["hostname"] == "theirs"


def test_shm():
    spec, _ = build(host=HostConfig(ShmSize=4096))
    assert "size=4096" in by_destination(spec)["/dev/shm"]["options"]
    spec, _ = build(host=HostConfig(IpcMode="none"))
    assert "/dev/shm" not in by_destination(spec)


def test_user_mounts(tmp_path):
    made = tmp_path / "made" / "here"
    host = HostConfig(
        Binds=[f"{made}:/data:ro", f"{tmp_path}:/etc"],
        Mounts=[
            Mount(Type="tmpfs", Target="/m", TmpfsOptions=TmpfsOptions(SizeBytes=9, Mode=0o700)),
            Mount(Type="bind", Source=str(tmp_path), Target="/etc/hosts"),
        ],
        Tmpfs={"/dev": "exec,size=1m,size=2m"},
    )
    spec, _ = build(host=host)
    mounts = by_destination(spec)
    assert made.is_dir()
    assert mounts["/data"]["options"] == ["rbind", "rro", "rprivate"]
    assert mounts["/etc/hosts"]["source"] == str(tmp_path)
    assert mounts["/dev"]["options"] == ["nosuid", "nodev", "rprivate", "exec", "size=2m"]
    assert mounts["/m"]["options"][-2:] == ["mode=700", "size=9"]
    assert "/dev/pts" not in mounts
    order = list(mounts)
    assert order.index("/etc") < order.index("/etc/hostname")


def test_a_source_that_went_missing(tmp_path):
    host = HostConfig(Mounts=[Mount(Type="bind", Source=str(tmp_path / "no"), Target="/x")])
    with pytest.raises(InvalidParameter, match="bind source path does not exist"):
        build(host=host)


def test_devices(tmp_path):
    mapping = DeviceMapping("/dev/null", "/dev/mine", "r")
    spec, _ = build(host=HostConfig(Devices=[mapping], DeviceCgroupRules=["c 13:* rw"]))
    node = spec["linux"]["devices"][0]
    assert (node["path"], node["type"], node["major"], node["minor"]) == ("/dev/mine", "c", 1, 3)
    assert spec["linux"]["resources"]["devices"][-2:] == [
        {"allow": True, "type": "c", "major": 1, "minor": 3, "access": "r"},
        {"allow": True, "type": "c", "major": 13, "access": "rw"},
    ]
    for path, reason in ((tmp_path, "not a device node"), (tmp_path / "no", "no such file")):
        with pytest.raises(Internal, match=f'custom device "{path}": {reason}'):
            build(host=HostConfig(Devices=[DeviceMapping(str(path), "/dev/x", "rwm")]))


def test_security_options():
    options = ["no-new-privileges", "seccomp=unconfined", "label:disable", "writable-cgroups"]
    spec, keeper = build(host=HostConfig(SecurityOpt=options))
    assert spec["process"]["noNewPrivileges"] is True
    assert keeper["seccomp_bpf"] is None
    assert "ro" not in by_destination(spec)["/sys/fs/cgroup"]["options"]


def test_exec():
    config = ContainerConfig(User="app", Env=["A=1"], WorkingDir="/w", Tty=True)
    request = ExecCreateRequest(
        Cmd=["ls"], Env=["A=2"], Tty=True, ConsoleSize=(5, 6), AttachStdin=True
    )
    found = oci.build_exec(record(config), request, filters=Filters())
    process = found["process"]
    assert (process["args"], process["cwd"]) == (["ls"], "/w")
    assert process["env"][-2:] == ["TERM=xterm", "A=2"] or process["env"][-1] == "A=2"
    assert process["consoleSize"] == {"height": 5, "width": 6}
    assert (found["user"], found["stdin_open"], found["seccomp_bpf"]) == ("app", True, ":14")
    assert process["capabilities"]["bounding"] == list(defaults.CAPABILITIES)


def test_privileged_exec_keeps_the_filter():
    request = ExecCreateRequest(Cmd=["ls"], Privileged=True, User="root", WorkingDir="/tmp")
    found = oci.build_exec(record(ContainerConfig(User="app")), request, filters=Filters())
    assert "CAP_SYS_ADMIN" in found["process"]["capabilities"]["bounding"] or os.geteuid()
    assert (found["user"], found["seccomp_bpf"]) == ("root", ":14")
    assert found["process"]["cwd"] == "/tmp"


@pytest.mark.parametrize(
    ("text", "size"),
    [("", 0), ("-1", 0), ("10m", 10_000_000), ("1k", 1000), ("1.5G", 1_500_000_000), ("7", 7)],
)
def test_log_size(text, size):
    assert parse_size(text) == size


@pytest.mark.parametrize(
    ("log", "error", "message"),
    [
        (LogConfig("nope"), InvalidParameter, "logger: no log driver named 'nope' is registered"),
        (LogConfig("awslogs"), InvalidParameter, "no log driver named 'awslogs' is registered"),
        (LogConfig("", {"x": "1"}), InvalidParameter, "unknown log opt 'x' for json-file"),
        (LogConfig("", {"max-size": "x"}), InvalidParameter, "invalid size: 'x'"),
        (LogConfig("", {"max-file": "0"}), InvalidParameter, "max-file cannot be less than 1"),
        (
            LogConfig("", {"compress": "true"}),
            InvalidParameter,
            "compress cannot be true when max-",
        ),
        (LogConfig("", {"mode": "fast"}), InvalidParameter, "logging mode not supported: fast"),
        (LogConfig("", {"max-buffer-size": "1m"}), InvalidParameter, "only supported with"),
    ],
)
def test_bad_log_options(log, error, message):
    with pytest.raises(error, match=message):
        build(host=HostConfig(LogConfig=log))


def test_hosts():
    text = etc_files.hosts("me", "example.com", ["db:10.0.0.1", "six:[::1]"])
    assert text.startswith("127.0.0.1\tlocalhost\n")
    assert text.endswith("10.0.0.1\tdb\n::1\tsix\n127.0.0.1\tme.example.com me\n")
    assert etc_files.host_hosts("1.1.1.1 a", ["db:10.0.0.1"]) == "1.1.1.1 a\n10.0.0.1\tdb\n"


@pytest.mark.parametrize(
    ("host_text", "given", "expected"),
    [
        ("nameserver 127.0.0.53\nsearch a b\n", {}, "nameserver 8.8.8.8\nnameserver 8.8.4.4\nsearch a b\n"),
        ("nameserver 127.0.0.53\n", {"private": False}, "nameserver 127.0.0.53\n"),
        ("nameserver 9.9.9.9\nnameserver ::1\n# x\noptions ndots:1\n", {}, "nameserver 9.9.9.9\noptions ndots:1\n"),
        ("nameserver 9.9.9.9\nsearch a\n", {"search": ["."], "servers": ["1.1.1.1"], "options": ["rotate"]},
         "nameserver 1.1.1.1\noptions rotate\n"),
        ("", {"private": False}, ""),
    ],
)  # fmt: skip
def test_resolv_conf(host_text, given, expected):
    assert etc_files.resolv_conf(host_text, **given) == "# Generated by Pier.\n" + expected


def test_write_all(tmp_path):
    etc_files.write_all(record(ContainerConfig(Hostname="me", Domainname="d")), str(tmp_path))
    assert (tmp_path / "hostname").read_text() == "me.d\n"
    assert sorted(os.listdir(tmp_path)) == ["hostname", "hosts", "resolv.conf"]


def test_own_cgroup_files():
    host = HostConfig(Annotations={"pier.cgroup.memory.high": "1G", "other": "x"})
    built, _ = build(host=host)
    assert built["linux"]["resources"]["unified"] == {"memory.high": "1G"}
    assert "unified" not in build(host=HostConfig())[0]["linux"]["resources"]


def test_embedded_resolv_conf():
    text = etc_files.embedded_resolv_conf("nameserver 9.9.9.9\nsearch a\n", None, ["rotate"])
    assert text.splitlines()[1:] == [
        "nameserver 127.0.0.11",
        "search a",
        "options rotate ndots:0",
    ]
    text = etc_files.embedded_resolv_conf("", None, ["ndots:2"])
    assert text.splitlines()[1:] == ["nameserver 127.0.0.11", "options ndots:2"]


def test_amended_files_keep_what_users_wrote(tmp_path):
    path = tmp_path / "hosts"
    path.write_text("a\nb\n")
    etc_files.amend(str(path), "a\nb\n", "a\nc\n")
    assert path.read_text() == "a\nc\n"
    path.write_text("a\nmine\nc\n")
    etc_files.amend(str(path), "a\nc\n", "a\nd\n")
    assert path.read_text() == "a\nmine\nd\n"


def test_host_gateway():
    given = record(ContainerConfig(), HostConfig(ExtraHosts=["h:host-gateway", "x:192.0.2.1"]))
    around = etc_files.Surroundings(gateways=["172.17.0.1", "fd00::1"])
    hosts = etc_files.texts(given, around)["hosts"]
    assert "172.17.0.1\th\nfd00::1\th\n192.0.2.1\tx\n" in hosts
    with pytest.raises(InvalidParameter, match="unable to derive the IP value for host-gateway"):
        etc_files.texts(given)
