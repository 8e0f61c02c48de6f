"""Requests to create a container: refused in dockerd's words, or completed with the defaults."""

import pytest

from pier.engine.host_limits import HostLimits
from pier.engine.settings import Settings
from pier.engine.validate import validate_create
from pier.engine.validate_resources import parse_list
from pier.errors import InvalidParameter, Unsupported
from pier.model.container import (
    CreateRequest,
    DeviceMapping,
    EndpointSettings,
    HealthConfig,
    HostConfig,
    LogConfig,
    Mount,
    NetworkingConfig,
    PortBinding,
    RestartPolicy,
    Ulimit,
    VolumeOptions,
)

LIMITS = HostLimits(cpu_count=2, cpus="0-1", mems="0")
NOTHING = HostLimits(*[False] * 13, 2, "", "")
MIB = 1 << 20


def validate(request, *, limits=LIMITS):
    return validate_create(request, Settings(), limits=limits)


def test_defaults():
    request = CreateRequest()
    assert validate(request) == []
    host = request.HostConfig
    assert host.ShmSize == 64 * MIB
    assert (host.LogConfig.Type, host.IpcMode, host.CgroupnsMode) == (
        "json-file",
        "private",
        "private",
    )
    assert (host.NetworkMode, host.Runtime, host.RestartPolicy.Name) == ("bridge", "runc", "no")
    assert host.MaskedPaths is not None
    assert "/proc/kcore" in host.MaskedPaths
    assert host.ReadonlyPaths is not None
    assert host.OomKillDisable is False
    again = CreateRequest(HostConfig=host)
    assert validate(again) == []


def test_privileged_defaults():
    request = CreateRequest(HostConfig=HostConfig(Privileged=True))
    validate(request)
    assert request.HostConfig.MaskedPaths is None
    assert request.HostConfig.CgroupnsMode == "host"
    request = CreateRequest(HostConfig=HostConfig(Privileged=True))
    validate(request, limits=LIMITS._replace(cgroup_v2=True))
    assert request.HostConfig.CgroupnsMode == "private"


def test_memory_gets_as_much_swap():
    request = CreateRequest(HostConfig=HostConfig(Memory=6 * MIB), WorkingDir="/a//b/../c")
    validate(request)
    assert request.HostConfig.MemorySwap == 12 * MIB
    assert request.WorkingDir == "/a/c"


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"WorkingDir": "x"}, "the working directory 'x' is invalid, it needs to be an absolute path"),
        ({"StopSignal": "SIGFOO"}, "invalid signal: SIGFOO"),
        ({"Env": ["=x"]}, "invalid environment variable: =x"),
        ({"Env": [""]}, "invalid environment variable: "),
        ({"Hostname": "a b"}, "invalid hostname: 'a b'"),
        ({"Hostname": "x" * 65}, "invalid hostname: "),
        ({"Cmd": ["a\0b"]}, "null byte"),
        ({"Healthcheck": HealthConfig(Interval=5)}, "Interval in Healthcheck cannot be less than 1ms"),
        ({"MacAddress": "02:42:ac:11:00:02", "HostConfig": HostConfig(NetworkMode="host")},
         "conflicting options: mac-address and the network mode"),
        ({"Hostname": "h", "HostConfig": HostConfig(NetworkMode="container:x")},
         "conflicting options: hostname and the network mode"),
        ({"Hostname": "h", "HostConfig": HostConfig(UTSMode="host")},
         "conflicting options: hostname and the UTS mode"),
    ],
)  # fmt: skip
def test_bad_config(fields, message):
    with pytest.raises(InvalidParameter) as caught:
        validate(CreateRequest(**fields))
    assert message in caught.value.message


@pytest.mark.parametrize(
    ("host", "message"),
    [
        ({"Memory": MIB}, "Minimum memory limit allowed is 6MB"),
        ({"Memory": 8 * MIB, "MemorySwap": 7 * MIB}, "Minimum memoryswap limit should be larger than memory limit, see usage"),
        ({"MemorySwap": 7 * MIB}, "You should always set the Memory limit when using Memoryswap limit, see usage"),
        ({"MemorySwappiness": 101}, "Invalid value: 101, valid memory swappiness range is 0-100"),
        ({"MemoryReservation": MIB}, "Minimum memory reservation allowed is 6MB"),
        ({"Memory": 8 * MIB, "MemoryReservation": 9 * MIB}, "Minimum memory limit can not be less than memory reservation limit, see usage"),
        ({"NanoCpus": 1, "CpuPeriod": 1000}, "Conflicting options: Nano CPUs and CPU Period cannot both be set"),
        ({"NanoCpus": 1, "CpuQuota": 1000}, "Conflicting options: Nano CPUs and CPU Quota cannot both be set"),
        ({"NanoCpus": 3 * 10**9}, "range of CPUs is from 0.01 to 2.00, as there are only 2 CPUs available"),
        ({"NanoCpus": -1}, "range of CPUs is from 0.01 to 2.00, as there are only 2 CPUs available"),
        ({"CpuPeriod": 1}, "CPU cfs period can not be less than 1ms (i.e. 1000) or larger than 1s (i.e. 1000000)"),
        ({"CpuQuota": 1}, "CPU cfs quota can not be less than 1ms (i.e. 1000)"),
        ({"CpuShares": -1}, "invalid CPU shares (-1): value must be a positive integer"),
        ({"CpusetCpus": "5"}, "Requested CPUs are not available - requested 5, available: 0-1"),
        ({"CpusetCpus": "x"}, "Invalid value x for cpuset cpus: invalid format: x"),
        ({"CpusetMems": "1"}, "Requested memory nodes are not available - requested 1, available: 0"),
        ({"BlkioWeight": 5}, "Range of blkio weight is from 10 to 1000"),
        ({"IOMaximumIOps": 5}, "invalid option: QoS maximum IOPs configuration is not supported on linux"),
        ({"ShmSize": -1}, "SHM size can not be less than 0"),
        ({"OomScoreAdj": 1001}, "Invalid value 1001, range for oom score adj is [-1000, 1000]"),
        ({"Ulimits": [Ulimit("foo", 1, 1)]}, "invalid ulimit type: foo"),
        ({"Ulimits": [Ulimit("nofile", Hard=3, Soft=5)]}, "ulimit soft limit must be less than or equal to hard limit: 5 > 3"),
        ({"RestartPolicy": RestartPolicy("x")},
         "invalid restart policy: unknown policy 'x'; use one of 'no', 'always', 'on-failure', or 'unless-stopped'"),
        ({"RestartPolicy": RestartPolicy("always", 2)}, "invalid restart policy: maximum retry count can only be used with 'on-failure'"),
        ({"RestartPolicy": RestartPolicy("on-failure", -1)}, "invalid restart policy: maximum retry count cannot be negative"),
        ({"AutoRemove": True, "RestartPolicy": RestartPolicy("always")}, "can't create 'AutoRemove' container with restart policy"),
        ({"CapAdd": ["FOO"]}, 'invalid CapAdd: unknown capability: "CAP_FOO"'),
        ({"CapDrop": ["CAP_foo"]}, 'invalid CapDrop: unknown capability: "CAP_FOO"'),
        ({"SecurityOpt": ["x"]}, 'invalid --security-opt 1: "x"'),
        ({"SecurityOpt": ["x=y"]}, 'invalid --security-opt 2: "x=y"'),
        ({"SecurityOpt": ["no-new-privileges=maybe"]}, 'invalid --security-opt 2: "no-new-privileges=maybe"'),
        ({"SecurityOpt": ["seccomp={"]}, "decoding seccomp profile failed"),
        ({"IpcMode": "x"}, "invalid IPC mode: x"),
        ({"PidMode": "container:"}, "invalid PID mode: container:"),
        ({"UTSMode": "x"}, "invalid UTS mode: x"),
        ({"CgroupnsMode": "x"}, "invalid cgroup namespace mode: x"),
        ({"Isolation": "hyperv"}, "invalid isolation (hyperv): linux only supports 'default'"),
        ({"Runtime": "x"}, "unknown or invalid runtime name: x"),
        ({"NetworkMode": "container:"}, "invalid network mode: invalid container format container:<name|id>"),
        ({"NetworkMode": "container:x", "Dns": ["1.1.1.1"]}, "conflicting options: dns and the network mode"),
        ({"NetworkMode": "container:x", "PublishAllPorts": True}, "conflicting options: port publishing and the container type network mode"),
        ({"ExtraHosts": ["x"]}, 'bad format for add-host: "x"'),
        ({"ExtraHosts": ["x:y"]}, 'invalid IP address in add-host: "y"'),
        ({"Dns": ["x"]}, "x is not an ip address"),
        ({"DnsSearch": ["a\nnameserver 1.1.1.1"]}, "is not a valid domain or option"),
        ({"PortBindings": {"99999": []}}, 'invalid port specification: "99999"'),
        ({"StorageOpt": {"sise": "1G"}}, "Unknown option sise"),
        ({"StorageOpt": {"foo": "1G"}}, "Unknown option foo"),
        ({"DeviceCgroupRules": ["x"]}, "invalid device cgroup rule format: 'x'"),
        ({"Devices": [DeviceMapping("/dev/null", "/dev/null", "x")]}, "invalid device mode: x"),
        ({"Annotations": {"": "x"}}, "invalid Annotations: the empty string is not permitted as an annotation key"),
        ({"LogConfig": LogConfig("json-file", {"x": "y"})}, "unknown log opt 'x' for json-file log driver"),
        ({"Sysctls": {"kernel.core_pattern": "x"}}, 'sysctl "kernel.core_pattern" is not in a separate kernel namespace'),
        ({"Sysctls": {"kernel.hostname": "x"}}, 'sysctl "kernel.hostname" is not allowed as it conflicts with the OCI "hostname" field'),
        ({"Sysctls": {"net.ipv4.ip_forward": "1"}, "NetworkMode": "host"}, 'sysctl "net.ipv4.ip_forward" not allowed in host network namespace'),
        ({"Sysctls": {"kernel.sem": "1"}, "IpcMode": "host"}, 'sysctl "kernel.sem" is not allowed in the hosts ipc namespace'),
        ({"Sysctls": {"net.x/../../kernel/core_pattern": "x"}}, "is not a valid name"),
        ({"Sysctls": {"net/../kernel/core_pattern": "x"}}, "is not a valid name"),
        ({"Sysctls": {"net....kernel": "x"}}, "is not a valid name"),
    ],
)  # fmt: skip
def test_bad_host_config(host, message):
    with pytest.raises(InvalidParameter) as caught:
        validate(CreateRequest(HostConfig=HostConfig(**host)))
    assert message in caught.value.message


@pytest.mark.parametrize(
    ("host", "message"),
    [
        ({"Binds": ["/a:/b:/c:/d"]}, "invalid volume specification: '/a:/b:/c:/d'"),
        ({"Binds": ["/a:rw"]}, "invalid volume specification: '/a:rw'"),
        ({"Binds": ["/a:/b:xx"]}, "invalid mode: xx"),
        ({"Binds": ["/a:/b:ro,rw"]}, "invalid mode: ro,rw"),
        ({"Binds": ["/a:/"]}, "invalid volume specification: '/a:/': invalid mount config for type \"bind\": invalid specification: destination can't be '/'"),
        ({"Binds": ["/a:b"]}, "invalid volume specification: '/a:b': invalid mount config for type \"bind\": invalid mount path: 'b' mount path must be absolute"),
        ({"Binds": ["/a:/b", "/c:/b/"]}, "Duplicate mount point: /b"),
        ({"Binds": ["/a:/b"], "Tmpfs": {"/b": ""}}, "Duplicate mount point: /b"),
        ({"Tmpfs": {"/b": "what"}}, 'invalid tmpfs option "what"'),
        ({"Tmpfs": {"/": ""}}, "invalid specification: destination can't be '/'"),
        ({"Mounts": [Mount(Type="bind", Source="/no/such", Target="/b")]},
         'invalid mount config for type "bind": bind source path does not exist: /no/such'),
        ({"Mounts": [Mount(Type="bind", Target="/b")]}, 'invalid mount config for type "bind": field Source must not be empty'),
        ({"Mounts": [Mount(Type="tmpfs")]}, 'invalid mount config for type "tmpfs": field Target must not be empty'),
        ({"Mounts": [Mount(Type="tmpfs", Source="/x", Target="/b")]}, "field Source must not be specified"),
        ({"Mounts": [Mount(Type="odd", Target="/b")]}, 'invalid mount config for type "odd": mount type unknown'),
        ({"Mounts": [Mount(Type="cluster", Source="c", Target="/b")]}, 'invalid mount config for type "cluster": mount type unknown'),
        ({"Mounts": [Mount(Type="image", Target="/b")]}, 'invalid mount config for type "image": field Source must not be empty'),
        ({"Mounts": [Mount(Type="volume", Target="/b", ReadOnly=True)]}, "must not set ReadOnly mode when using anonymous volumes"),
        ({"Mounts": [Mount(Type="volume", Source="v", Target="/b", VolumeOptions=VolumeOptions(Subpath="../x"))]},
         'invalid mount config for type "volume": subpath must be a relative path within the volume'),
        ({"Binds": ["v:/b:rshared"]}, "invalid volume specification: 'v:/b:rshared': invalid mount config for type \"volume\": field BindOptions must not be specified"),
        ({"Binds": ["v:/b:nocopy,nocopy"]}, "invalid mode: nocopy,nocopy"),
    ],
)  # fmt: skip
def test_bad_mounts(host, message):
    with pytest.raises(InvalidParameter) as caught:
        validate(CreateRequest(HostConfig=HostConfig(**host)))
    assert message in caught.value.message


@pytest.mark.parametrize(
    "host",
    [
        {"Cgroup": "container:x"},
    ],
)
def test_not_offered_is_said(host):
    with pytest.raises(Unsupported):
        validate(CreateRequest(HostConfig=HostConfig(**host)))


def test_networks():
    # A network that is not there is told at the start: the client reads a 404 as "no image".
    validate(CreateRequest(HostConfig=HostConfig(NetworkMode="mine")))
    request = CreateRequest(
        HostConfig=HostConfig(NetworkMode="default"),
        NetworkingConfig=NetworkingConfig({"default": EndpointSettings()}),
    )
    validate(request)
    assert request.HostConfig.NetworkMode == "bridge"
    host = HostConfig(NetworkMode="host", PortBindings={"80/tcp": [PortBinding()]})
    assert validate(CreateRequest(HostConfig=host)) == [
        "Published ports are discarded when using host network mode"
    ]


def test_what_the_kernel_lacks_is_discarded():
    host = HostConfig(
        Memory=8 * MIB,
        MemoryReservation=8 * MIB,
        MemorySwappiness=5,
        OomKillDisable=True,
        PidsLimit=5,
        CpuShares=5,
        CpuQuota=5000,
        CpusetCpus="0",
        BlkioWeight=50,
    )
    warnings = validate(CreateRequest(HostConfig=host), limits=NOTHING)
    assert len(warnings) == 9
    assert warnings[0] == (
        "Your kernel does not support memory limit capabilities or the cgroup is not mounted."
        " Limitation discarded."
    )
    assert (host.Memory, host.PidsLimit, host.CpuQuota, host.CpusetCpus) == (0, None, 0, "")


def test_swap_limit():
    host = HostConfig(Memory=8 * MIB)
    warnings = validate(CreateRequest(HostConfig=host), limits=LIMITS._replace(swap=False))
    assert warnings == [
        (
            "Your kernel does not support swap limit capabilities or the cgroup is not mounted."
            " Memory limited without swap."
        )
    ]
    assert host.MemorySwap == -1


def test_sysctls_are_named_with_dots():
    request = CreateRequest(HostConfig=HostConfig(Sysctls={"net/ipv4/ip_forward": "1"}))
    validate(request)
    assert request.HostConfig.Sysctls == {"net.ipv4.ip_forward": "1"}


@pytest.mark.parametrize(
    ("text", "numbers"),
    [("0-2,4", {0, 1, 2, 4}), ("3", {3}), ("2-1", None), ("", None), ("0-99999999", None)],
)
def test_parse_list(text, numbers):
    assert parse_list(text) == numbers
