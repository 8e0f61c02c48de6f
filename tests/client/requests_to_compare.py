"""Requests that dockerd and pierd are asked alike: test_like_dockerd compares what they answer.

`{image}`, and names of what the test makes before: containers `made`, `runs` (with an exec `{exec}`),
`over` (ended with 3), `held` (paused); networks `net1`, `net2`; volumes `vol1` (held by `made`), `vol2`.
"""

from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

Request = tuple[str, str, Any]


def _filters(**values: Any) -> str:
    text = ",".join(
        f'"{key.replace("_", "-")}":[{",".join(chr(34) + v + chr(34) for v in value)}]'
        for key, value in values.items()
    )
    return "filters=" + quote("{" + text + "}")


def requests() -> Iterator[Request]:
    yield from _system()
    yield from _containers()
    yield from _creates()
    yield from _updates()
    yield from _execs()
    yield from _images()
    yield from _networks()
    yield from _volumes()


def _system() -> Iterator[Request]:
    for path in ("/_ping", "/version", "/info", "/system/df", "/system/df?type=image&type=volume"):
        yield "GET", path, None
    yield "HEAD", "/_ping", None
    yield "GET", "/system/df?type=nothing", None
    for path in (
        "/nothing",
        "/containers",
        "/containers/",
        "/images",
        "/",
        "/containers/made/nothing",
    ):
        yield "GET", path, None
    yield "POST", "/containers/json", None
    yield "PUT", "/containers/made/json", None
    yield "GET", "/events?since=10&until=5", None
    yield "GET", "/events?since=x&until=5", None
    yield "GET", "/events?until=1&filters=x", None
    yield "GET", "/events?until=1&filters=" + quote('{"nothing":["x"]}'), None
    yield "GET", "/events?since=0&until=1&" + _filters(type=["container"]), None
    yield "POST", "/auth", {"username": "a"}
    for noun in ("swarm", "nodes", "services", "tasks", "secrets", "configs"):
        yield "GET", f"/{noun}", None
    yield "POST", "/swarm/leave", None
    yield "GET", "/plugins", None
    yield "GET", "/plugins/nothing/json", None
    yield "POST", "/plugins/nothing/enable?timeout=0", None
    yield "GET", "/containers/made/checkpoints", None
    yield "POST", "/containers/made/checkpoints", {"CheckpointID": "x"}
    yield "POST", "/session", None


def _containers() -> Iterator[Request]:
    for query in (
        "",
        "all=1",
        "all=1&size=1",
        "limit=2",
        "limit=x",
        "limit=-1",
        "all=1&" + _filters(name=["mad"]),
        "all=1&" + _filters(name=["["]),
        "all=1&" + _filters(status=["exited"]),
        "all=1&" + _filters(status=["nothing"]),
        "all=1&" + _filters(exited=["3"]),
        "all=1&" + _filters(exited=["x"]),
        "all=1&" + _filters(health=["none"]),
        "all=1&" + _filters(health=["x"]),
        "all=1&" + _filters(nothing=["x"]),
        "all=1&" + _filters(before=["over"]),
        "all=1&" + _filters(since=["made"]),
        "all=1&" + _filters(before=["nothing"]),
        "all=1&" + _filters(ancestor=["{image}"]),
        "all=1&" + _filters(ancestor=["nothing"]),
        "all=1&" + _filters(label=["a"]),
        "all=1&" + _filters(label=["a=b"]),
        "all=1&" + _filters(network=["bridge"]),
        "all=1&" + _filters(network=["nothing"]),
        "all=1&" + _filters(volume=["vol1"]),
        "all=1&" + _filters(publish=["80"]),
        "all=1&" + _filters(publish=["x"]),
        "all=1&" + _filters(expose=["90-80"]),
        "all=1&" + _filters(is_task=["true"]),
        "all=1&" + _filters(is_task=["x"]),
        "all=1&filters=x",
        "all=1&filters=" + quote('{"status":"running"}'),
        "all=1&filters=" + quote('{"status":{"running":true}}'),
    ):
        yield "GET", f"/containers/json?{query}", None
    for name in ("made", "runs", "over", "held", "nothing", "MADE", "-", "a b"):
        yield "GET", f"/containers/{quote(name)}/json", None
    yield "GET", "/containers/runs/json?size=1", None
    yield "GET", "/containers/runs/top", None
    yield "GET", "/containers/runs/top?ps_args=aux", None
    yield "GET", "/containers/runs/top?ps_args=-o%20pid,comm", None
    yield "GET", "/containers/runs/top?ps_args=-o%20comm", None
    yield "GET", "/containers/runs/top?ps_args=--nothing", None
    for name in ("made", "over", "held", "nothing"):
        yield "GET", f"/containers/{name}/top", None
        yield "GET", f"/containers/{name}/changes", None
        yield "GET", f"/containers/{name}/stats?stream=0&one-shot=1", None
        yield "POST", f"/containers/{name}/kill?signal=NOTHING", None
        yield "POST", f"/containers/{name}/kill?signal=SIGWINCH", None
        yield "POST", f"/containers/{name}/resize?h=10&w=10", None
    yield "GET", "/containers/runs/stats?stream=1&one-shot=1", None
    yield "GET", "/containers/runs/stats?stream=0&one-shot=1", None
    for query in ("", "stdout=1&tail=1", "stdout=1&since=x", "stdout=1&tail=x", "stdout=1&until=0"):
        yield "GET", f"/containers/over/logs?{query}", None
    yield "GET", "/containers/nothing/logs?stdout=1", None
    yield "GET", "/containers/made/logs?stdout=1", None
    yield from _lives()


def _lives() -> Iterator[Request]:
    yield "POST", "/containers/runs/start", None
    yield "POST", "/containers/held/start", None
    yield "POST", "/containers/nothing/start", None
    yield "POST", "/containers/made/start", {"HostConfig": {"Memory": 1}}
    yield "POST", "/containers/made/stop", None
    yield "POST", "/containers/over/stop", None
    yield "POST", "/containers/nothing/stop", None
    yield "POST", "/containers/runs/stop?t=x", None
    yield "POST", "/containers/runs/stop?signal=NOTHING", None
    yield "POST", "/containers/runs/restart?t=x", None
    yield "POST", "/containers/runs/restart?signal=NOTHING", None
    yield "POST", "/containers/nothing/restart", None
    for signal in ("0", "-1", "99", "SIGRTMIN+1", "x", "65"):
        yield "POST", f"/containers/runs/kill?signal={quote(signal)}", None
    for name in ("made", "over", "held", "nothing"):
        yield "POST", f"/containers/{name}/pause", None
    for name in ("made", "over", "runs", "nothing"):
        yield "POST", f"/containers/{name}/unpause", None
    for query in ("", "name=", "name=over", "name=a/b", "name=made", "name=%2Fover", "name=_x"):
        yield "POST", f"/containers/made/rename?{query}", None
    yield "POST", "/containers/nothing/rename?name=x", None
    for query in ("", "h=x&w=1", "h=1&w=x", "h=-1&w=1", "h=99999999999&w=1", "h=70000&w=1"):
        yield "POST", f"/containers/runs/resize?{query}", None
    yield "POST", "/containers/nothing/wait", None
    yield "POST", "/containers/over/wait", None
    yield "POST", "/containers/over/wait?condition=not-running", None
    yield "POST", "/containers/over/wait?condition=nothing", None
    yield "POST", "/containers/nothing/attach", None
    yield "POST", "/containers/held/attach?stream=1&stdout=1", None
    yield "POST", "/containers/over/attach?stream=1&stdout=1&detachKeys=nothing", None
    yield "DELETE", "/containers/runs", None
    yield "DELETE", "/containers/held", None
    yield "DELETE", "/containers/nothing", None
    yield "DELETE", "/containers/nothing?force=1", None
    yield "DELETE", "/containers/made?link=1", None
    yield "GET", "/containers/made/archive?path=/nothing", None
    yield "GET", "/containers/made/archive", None
    yield "GET", "/containers/nothing/archive?path=/", None
    yield "PUT", "/containers/made/archive?path=/nothing", {}
    yield "PUT", "/containers/made/archive", {}
    yield "GET", "/containers/nothing/export", None
    yield "POST", "/containers/prune?" + _filters(nothing=["x"]), None
    yield "POST", "/containers/prune?" + _filters(until=["x"]), None
    yield "POST", "/containers/prune?" + _filters(label=["no=thing"]), None
    yield "POST", "/commit", {}
    yield "POST", "/commit?container=nothing", {}
    yield "POST", "/commit?container=made&repo=A", {}
    yield "POST", "/commit?container=made&changes=NOTHING%20x", {}


def _create(host: Any = None, networking: Any = None, **config: Any) -> Request:
    body: dict[str, Any] = {"Image": "{image}", "Cmd": ["true"], **config}
    if host is not None:
        body["HostConfig"] = host
    if networking is not None:
        body["NetworkingConfig"] = networking
    return "POST", "/containers/create?name=new", body


def _mount(**fields: Any) -> Request:
    return _create({"Mounts": [fields]})


def _creates() -> Iterator[Request]:
    yield "POST", "/containers/create", None
    yield "POST", "/containers/create", {}
    yield "POST", "/containers/create", {"HostConfig": {}}
    yield "POST", "/containers/create?name=a/b", {"Image": "{image}"}
    yield "POST", "/containers/create?name=made", {"Image": "{image}"}
    yield "POST", "/containers/create?name=x", {"Image": "{image}"}
    yield "POST", "/containers/create?platform=nothing/x/y/z", {"Image": "{image}"}
    yield "POST", "/containers/create?platform=linux/riscv64", {"Image": "{image}"}
    yield _create(Image="nothing")
    yield _create(Image="")
    yield _create(Image="A:b")
    yield _create(Image=5)
    yield _create(Cmd="one word")
    yield _create(Cmd=5)
    yield _create(Cmd=[5])
    yield _create(Env="x")
    yield _create(Env=["A", "=b", ""])
    yield _create(Entrypoint=[""])
    yield _create(Cmd=[], Entrypoint=[])
    yield _create(Hostname="a_b")
    yield _create(Hostname="x" * 70)
    yield _create(Hostname="-x")
    yield _create(Domainname="a b")
    yield _create(User="nobody9")
    yield _create(User="1:2:3")
    yield _create(WorkingDir="relative")
    yield _create(StopSignal="NOTHING")
    yield _create(StopSignal="99")
    yield _create(StopTimeout=-5)
    yield _create(ExposedPorts={"x": {}})
    yield _create(ExposedPorts={"80/nothing": {}})
    yield _create(ExposedPorts={"99999/tcp": {}})
    yield _create(ExposedPorts={"80": {}})
    yield _create(Volumes={"relative": {}})
    yield _create(Volumes={"/": {}})
    yield _create(Labels={"": "x"})
    yield _create(MacAddress="nothing")
    yield _create(MacAddress="02:42:ac:11:00:77")
    yield _create({"NetworkMode": "host"}, MacAddress="02:42:ac:11:00:77")
    yield from _hosts()
    yield from _mounts()
    yield from _endpoints()


def _hosts() -> Iterator[Request]:
    for check in (
        {"Interval": 5},
        {"Timeout": -1},
        {"Retries": -1},
        {"StartPeriod": 5},
        {"StartInterval": -1},
        {"Test": ["NOTHING"]},
        {"Test": []},
        {"Test": ["NONE", "x"]},
        {"Test": ["CMD"]},
    ):
        yield _create(Healthcheck=check)
    for name, value in (
        ("Memory", 1),
        ("Memory", -1),
        ("Memory", "x"),
        ("MemoryReservation", 1),
        ("MemorySwap", 1 << 30),
        ("MemorySwappiness", 101),
        ("MemorySwappiness", -2),
        ("CpuShares", -1),
        ("CpuPeriod", 5),
        ("CpuPeriod", 2000000),
        ("CpuQuota", 5),
        ("NanoCpus", -1),
        ("NanoCpus", 10**15),
        ("CpusetCpus", "x"),
        ("CpusetCpus", "99"),
        ("CpusetMems", "99"),
        ("CpusetMems", "x"),
        ("CpuRealtimePeriod", 5),
        ("PidsLimit", -5),
        ("PidsLimit", 0),
        ("BlkioWeight", 5),
        ("BlkioWeight", 70000),
        ("BlkioWeightDevice", [{"Path": "/nothing", "Weight": 5}]),
        ("BlkioWeightDevice", [{"Path": "/nothing", "Weight": 100}]),
        ("BlkioDeviceReadBps", [{"Path": "/nothing", "Rate": 5}]),
        ("BlkioDeviceReadBps", [{"Path": "/dev/null", "Rate": -5}]),
        ("OomScoreAdj", 5000),
        ("OomScoreAdj", -5000),
        ("OomKillDisable", True),
        ("ShmSize", -1),
        ("ShmSize", 0),
        ("Ulimits", [{"Name": "nothing", "Hard": 1, "Soft": 1}]),
        ("Ulimits", [{"Name": "nofile", "Hard": 1, "Soft": 2}]),
        ("Ulimits", [{"Name": "", "Hard": 1, "Soft": 2}]),
        ("Sysctls", {"kernel.nothing": "1"}),
        ("Sysctls", {"kernel.pid_max": "1"}),
        ("Sysctls", {"net.ipv4.ip_forward": "1"}),
        ("Sysctls", {"kernel.msgmax": "8192"}),
        ("NetworkMode", "nothing"),
        ("NetworkMode", "container:nothing"),
        ("NetworkMode", "container:"),
        ("NetworkMode", "container"),
        ("PidMode", "nothing"),
        ("PidMode", "container:nothing"),
        ("PidMode", "container:over"),
        ("PidMode", "container:"),
        ("IpcMode", "nothing"),
        ("IpcMode", "container:nothing"),
        ("IpcMode", "container:made"),
        ("UTSMode", "nothing"),
        ("UTSMode", "private"),
        ("UsernsMode", "nothing"),
        ("UsernsMode", "host"),
        ("CgroupnsMode", "nothing"),
        ("CgroupParent", "relative/x"),
        ("CgroupParent", "/abs"),
        ("CapAdd", ["NOTHING"]),
        ("CapDrop", ["CAP_NOTHING"]),
        ("CapAdd", ["ALL"]),
        ("CapAdd", ["net_admin"]),
        ("SecurityOpt", ["nothing"]),
        ("SecurityOpt", ["nothing=x"]),
        ("SecurityOpt", ["seccomp=x"]),
        ("SecurityOpt", ["no-new-privileges=x"]),
        ("SecurityOpt", ["no-new-privileges"]),
        ("SecurityOpt", ["label=x"]),
        ("SecurityOpt", ["label=disable"]),
        ("SecurityOpt", ["apparmor=unconfined"]),
        ("SecurityOpt", ["systempaths=x"]),
        ("SecurityOpt", ["writable-cgroups=x"]),
        ("GroupAdd", ["nobody9"]),
        ("Devices", [{"PathOnHost": "/dev/nothing9"}]),
        (
            "Devices",
            [{"PathOnHost": "/dev/null", "PathInContainer": "/dev/null", "CgroupPermissions": "x"}],
        ),
        (
            "Devices",
            [
                {
                    "PathOnHost": "/dev/null",
                    "PathInContainer": "/dev/null",
                    "CgroupPermissions": "rwm",
                }
            ],
        ),
        ("DeviceCgroupRules", ["nothing"]),
        ("DeviceCgroupRules", ["c 1:3 rwm"]),
        ("DeviceCgroupRules", ["c 1:3 x"]),
        ("DeviceRequests", [{"Driver": "nothing", "Count": 1}]),
        ("DeviceRequests", [{"Count": 1, "Capabilities": [["gpu"]]}]),
        ("DeviceRequests", [{"Count": 1, "DeviceIDs": ["a"], "Capabilities": [["gpu"]]}]),
        ("DeviceRequests", [{"Driver": "cdi", "DeviceIDs": ["nothing"]}]),
        ("Dns", ["x"]),
        ("Dns", ["8.8.8.8"]),
        ("DnsSearch", ["a b"]),
        ("ExtraHosts", ["x"]),
        ("ExtraHosts", ["x:y"]),
        ("ExtraHosts", ["x:1.2.3.4"]),
        ("ExtraHosts", ["x:host-gateway"]),
        ("Links", ["nothing"]),
        ("Links", ["nothing:x"]),
        ("Links", ["a:b:c"]),
        ("Links", ["runs:x"]),
        ("VolumesFrom", ["nothing"]),
        ("VolumesFrom", ["made:x"]),
        ("VolumesFrom", ["made:ro"]),
        ("VolumesFrom", [""]),
        ("LogConfig", {"Type": "nothing"}),
        ("LogConfig", {"Type": "json-file", "Config": {"nothing": "x"}}),
        ("LogConfig", {"Type": "json-file", "Config": {"max-size": "x"}}),
        ("LogConfig", {"Type": "json-file", "Config": {"max-file": "0"}}),
        ("LogConfig", {"Type": "json-file", "Config": {"max-file": "3"}}),
        ("LogConfig", {"Type": "json-file", "Config": {"compress": "x"}}),
        ("LogConfig", {"Type": "json-file", "Config": {"mode": "x"}}),
        ("LogConfig", {"Type": "json-file", "Config": {"max-buffer-size": "1m"}}),
        ("LogConfig", {"Type": "local", "Config": {"max-size": "-1"}}),
        ("LogConfig", {"Type": "none", "Config": {"x": "y"}}),
        ("LogConfig", {"Type": "syslog", "Config": {"syslog-address": "x"}}),
        ("LogConfig", {"Type": "syslog", "Config": {"syslog-facility": "x"}}),
        ("LogConfig", {"Type": "gelf", "Config": {}}),
        ("LogConfig", {"Type": "gelf", "Config": {"gelf-address": "http://x"}}),
        ("LogConfig", {"Type": "fluentd", "Config": {"fluentd-address": "x://y"}}),
        ("LogConfig", {"Type": "awslogs", "Config": {}}),
        ("LogConfig", {"Type": "splunk", "Config": {}}),
        ("RestartPolicy", {"Name": "nothing"}),
        ("RestartPolicy", {"Name": "always", "MaximumRetryCount": 1}),
        ("RestartPolicy", {"Name": "on-failure", "MaximumRetryCount": -1}),
        ("RestartPolicy", {"Name": "on-failure", "MaximumRetryCount": 3}),
        ("RestartPolicy", {"Name": "", "MaximumRetryCount": 3}),
        ("Runtime", "nothing"),
        ("Isolation", "nothing"),
        ("Isolation", "default"),
        ("StorageOpt", {"nothing": "1"}),
        ("Tmpfs", {"relative": ""}),
        ("Tmpfs", {"/x": "nothing"}),
        ("Tmpfs", {"/x": "size=1m,exec"}),
        ("VolumeDriver", "nothing"),
        ("MaskedPaths", ["relative"]),
        ("Binds", ["x"]),
        ("Binds", ["/:/:x"]),
        ("Binds", ["/nothing:/x:nothing"]),
        ("Binds", ["/nothing:relative"]),
        ("Binds", ["/tmp:/"]),
        ("Binds", ["a b:/x"]),
        ("Binds", ["/tmp:/x:ro,rw"]),
        ("Binds", ["/tmp:/x:z,Z"]),
        ("Binds", ["/tmp:/x:nocopy"]),
        ("Binds", ["vol2:/x:rshared"]),
        ("Binds", ["/tmp:/x", "/tmp:/x"]),
        ("Binds", ["a:b:c:d"]),
        ("PortBindings", {"80/tcp": [{"HostPort": "x"}]}),
        ("PortBindings", {"80/tcp": [{"HostPort": "99999"}]}),
        ("PortBindings", {"80/tcp": [{"HostIp": "x"}]}),
        ("PortBindings", {"x": [{"HostPort": "1"}]}),
        ("PortBindings", {"80/nothing": [{"HostPort": "1"}]}),
        ("PortBindings", {"80/tcp": [{"HostPort": "80-81"}]}),
        ("PortBindings", {"80/tcp": None}),
        ("Annotations", {"": "x"}),
        ("Annotations", {"a": "b"}),
        ("ConsoleSize", [1, 2, 3]),
        ("AutoRemove", "x"),
        ("Privileged", 5),
        ("Nothing", 5),
    ):
        yield _create({name: value})
    for host in (
        {"Memory": 8 << 20, "MemorySwap": 6 << 20},
        {"Memory": 8 << 20, "MemoryReservation": 9 << 20},
        {"Memory": 8 << 20, "MemorySwap": -1},
        {"NanoCpus": 10**9, "CpuQuota": 5000},
        {"NanoCpus": 10**9, "CpuPeriod": 5000},
        {"AutoRemove": True, "RestartPolicy": {"Name": "always"}},
        {"NetworkMode": "host", "PortBindings": {"80/tcp": [{"HostPort": "80"}]}},
        {"NetworkMode": "host", "Links": ["runs:x"]},
        {"NetworkMode": "container:runs", "PortBindings": {"80/tcp": [{}]}},
        {"NetworkMode": "container:runs", "Dns": ["8.8.8.8"]},
        {"NetworkMode": "container:runs", "ExtraHosts": ["x:1.2.3.4"]},
        {"NetworkMode": "container:runs", "Links": ["runs:x"]},
        {"NetworkMode": "host", "Sysctls": {"net.ipv4.ip_forward": "1"}},
        {"IpcMode": "host", "Sysctls": {"kernel.msgmax": "1"}},
        {"Privileged": True, "SecurityOpt": ["seccomp=x"]},
        {"Privileged": True, "CgroupnsMode": "host"},
        {"CapAdd": ["ALL"], "CapDrop": ["ALL"]},
        {"UTSMode": "host"},
        {"Tmpfs": {"/x": ""}, "Binds": ["/tmp:/x"]},
        {"VolumeDriver": "local", "Mounts": [{"Type": "volume", "Source": "vol2", "Target": "/x"}]},
    ):
        yield _create(host)
    yield _create({"UTSMode": "host"}, Hostname="x")
    yield _create({"NetworkMode": "container:runs"}, Hostname="x")
    yield _create({"NetworkMode": "container:runs"}, ExposedPorts={"80/tcp": {}})
    yield _create({"Tmpfs": {"/x": ""}}, Volumes={"/x": {}})


def _endpoints() -> Iterator[Request]:
    for endpoints in (
        {"nothing": {}},
        {"bridge": {"IPAMConfig": {"IPv4Address": "172.17.0.99"}}},
        {"bridge": {"Aliases": ["x"]}},
        {"bridge": {"MacAddress": "nothing"}},
        {"net1": {"IPAMConfig": {"IPv4Address": "x"}}},
        {"bridge": {}, "net1": {}},
        {"host": {}, "bridge": {}},
        {"none": {}, "bridge": {}},
    ):
        name = next(iter(endpoints))
        yield _create({"NetworkMode": name}, {"EndpointsConfig": endpoints})
    yield _create({"NetworkMode": "bridge"}, {"EndpointsConfig": {"net1": {}}})
    yield _create({"NetworkMode": "bridge"}, {"EndpointsConfig": 5})


def _mounts() -> Iterator[Request]:
    yield _mount(Type="nothing", Target="/x")
    yield _mount(Target="/x")
    yield _mount(Type="bind", Source="/tmp")
    yield _mount(Type="bind", Target="/x")
    yield _mount(Type="bind", Source="relative", Target="/x")
    yield _mount(Type="bind", Source="/tmp", Target="relative")
    yield _mount(Type="bind", Source="/nothing9", Target="/x")
    yield _mount(Type="bind", Source="/tmp", Target="/")
    yield _mount(Type="bind", Source="/tmp", Target="/x", VolumeOptions={})
    yield _mount(Type="bind", Source="/tmp", Target="/x", TmpfsOptions={})
    yield _mount(Type="bind", Source="/tmp", Target="/x", BindOptions={"Propagation": "x"})
    yield _mount(
        Type="bind", Source="/tmp", Target="/x", BindOptions={"ReadOnlyForceRecursive": True}
    )
    yield _mount(Type="volume", Source="a b", Target="/x")
    yield _mount(Type="volume", Source="/abs", Target="/x")
    yield _mount(Type="volume", Source="vol2", Target="/x", BindOptions={})
    yield _mount(Type="volume", Source="vol2", Target="/x", VolumeOptions={"Subpath": "/abs"})
    yield _mount(Type="volume", Source="vol2", Target="/x", VolumeOptions={"Subpath": "../x"})
    yield _mount(Type="volume", Target="/x", VolumeOptions={"Subpath": "x"})
    yield _mount(
        Type="volume", Source="v9", Target="/x", VolumeOptions={"DriverConfig": {"Name": "nothing"}}
    )
    yield _mount(Type="volume", Source="", Target="/x", ReadOnly=True)
    yield _mount(Type="tmpfs", Source="x", Target="/x")
    yield _mount(Type="tmpfs", Target="/x", TmpfsOptions={"SizeBytes": -1})
    yield _mount(Type="tmpfs", Target="/x", TmpfsOptions={"Options": [["nothing"]]})
    yield _mount(Type="tmpfs", Target="/x", TmpfsOptions={"Options": [["exec"]]})
    yield _mount(Type="image", Source="nothing", Target="/x")
    yield _mount(Type="image", Source="", Target="/x")
    yield _mount(Type="npipe", Source="x", Target="/x")
    yield _mount(Type="cluster", Source="x", Target="/x")
    same = {"Type": "tmpfs", "Target": "/x"}
    yield _create({"Mounts": [same, same]})
    yield _create({"Mounts": [same], "Binds": ["/tmp:/x"]})


def _updates() -> Iterator[Request]:
    for body in (
        {},
        {"Memory": 1},
        {"Memory": 1 << 40},
        {"NanoCpus": 10**15},
        {"CpusetCpus": "99"},
        {"CpuShares": 512},
        {"PidsLimit": 100},
        {"RestartPolicy": {"Name": "nothing"}},
        {"RestartPolicy": {"Name": "on-failure", "MaximumRetryCount": -1}},
        {"RestartPolicy": {"Name": "no"}},
        {"BlkioWeight": 5},
        {"CpuShares": "x"},
        {"KernelMemory": 1},
    ):
        yield "POST", "/containers/made/update", body
    yield "POST", "/containers/nothing/update", {}
    yield "POST", "/containers/made/update", None


def _execs() -> Iterator[Request]:
    yield "POST", "/containers/runs/exec", {}
    yield "POST", "/containers/runs/exec", {"Cmd": []}
    yield "POST", "/containers/runs/exec", {"Cmd": ["true"], "Env": ["="]}
    yield "POST", "/containers/runs/exec", {"Cmd": "true"}
    yield "POST", "/containers/runs/exec", {"Cmd": ["true"], "DetachKeys": "nothing"}
    for name in ("made", "over", "held", "nothing"):
        yield "POST", f"/containers/{name}/exec", {"Cmd": ["true"]}
    yield "GET", "/exec/{exec}/json", None
    yield "GET", "/exec/nothing/json", None
    yield "POST", "/exec/nothing/start", {}
    yield "POST", "/exec/nothing/start", {"Detach": True}
    yield "POST", "/exec/nothing/resize?h=1&w=1", None
    yield "POST", "/exec/{exec}/resize?h=x&w=1", None
    yield "POST", "/exec/{exec}/resize?h=1&w=1", None
    yield "POST", "/exec/{exec}/start", {"Detach": True, "Tty": True}


def _images() -> Iterator[Request]:
    for query in (
        "",
        "all=1",
        "shared-size=1",
        "digests=1",
        _filters(dangling=["true"]),
        _filters(dangling=["x"]),
        _filters(nothing=["x"]),
        _filters(reference=["{image}"]),
        _filters(reference=["["]),
        _filters(label=["no=thing"]),
        _filters(before=["nothing"]),
        _filters(since=["nothing"]),
        _filters(until=["x"]),
        _filters(until=["1h"]),
        "filters=x",
    ):
        yield "GET", f"/images/json?{query}", None
    for name in ("{image}", "nothing", "A", "a:b:c", "x@sha256:1", "sha256:1", "localhost:5000/x"):
        quoted = name if name == "{image}" else quote(name)
        yield "GET", f"/images/{quoted}/json", None
        yield "GET", f"/images/{quoted}/history", None
    yield "GET", "/images/{image}/json?platform=x", None
    yield "GET", "/images/{image}/history?platform=x", None
    yield "DELETE", "/images/nothing", None
    yield "DELETE", "/images/{image}", None
    yield "DELETE", "/images/%20", None
    for query in (
        "",
        "repo=A",
        "repo=x&tag=a/b",
        "repo=sha256",
        "repo=x:y&tag=z",
        "repo=made/x&tag=y",
    ):
        yield "POST", f"/images/{{image}}/tag?{query}", None
    yield "POST", "/images/nothing/tag?repo=x", None
    yield "DELETE", "/images/made/x:y", None
    yield "GET", "/images/nothing/get", None
    yield "GET", "/images/get?names=nothing", None
    yield "POST", "/images/create", None
    yield "POST", "/images/create?fromImage=A", None
    yield "POST", "/images/create?fromImage=scratch", None
    yield "POST", "/images/create?fromImage=x&tag=a/b", None
    yield "POST", "/images/create?fromImage=x&platform=a/b/c/d", None
    yield "POST", "/images/nothing/push", None
    yield "POST", "/images/A/push", None
    yield "GET", "/images/search?term=x&limit=x", None
    yield "GET", "/images/search?term=x&limit=-1", None
    yield "POST", "/images/prune?" + _filters(nothing=["x"]), None
    yield "POST", "/images/prune?" + _filters(dangling=["x"]), None
    yield "POST", "/images/prune", None
    yield "POST", "/build/prune?" + _filters(nothing=["x"]), None
    yield "POST", "/build?dockerfile=../x", None
    yield "POST", "/build?t=A", None
    yield "POST", "/build?buildargs=x", None
    yield "POST", "/build?version=9", None


def _networks() -> Iterator[Request]:
    for query in (
        "",
        _filters(driver=["bridge"]),
        _filters(type=["custom"]),
        _filters(type=["x"]),
        _filters(nothing=["x"]),
        _filters(dangling=["x"]),
        _filters(dangling=["true"]),
        _filters(scope=["local"]),
        _filters(name=["net1"]),
        "filters=x",
    ):
        yield "GET", f"/networks?{query}", None
    for name in ("bridge", "host", "none", "net1", "nothing"):
        yield "GET", f"/networks/{name}", None
    yield "GET", "/networks/net1?verbose=x", None
    yield "GET", "/networks/net1?scope=swarm", None
    for body in (
        None,
        {},
        {"Name": ""},
        {"Name": "a/b"},
        {"Name": "net1"},
        {"Name": "bridge"},
        {"Name": "new9", "Driver": "nothing"},
        {"Name": "new9", "Driver": "host"},
        {"Name": "new9", "Scope": "swarm"},
        {"Name": "new9", "Scope": "nothing"},
        {"Name": "new9", "Ingress": True},
        {"Name": "new9", "Driver": "overlay"},
        {"Name": "new9", "IPAM": {"Driver": "nothing"}},
        {"Name": "new9", "IPAM": {"Config": [{"Subnet": "x"}]}},
        {"Name": "new9", "IPAM": {"Config": [{"Subnet": "10.1.2.3/24"}]}},
        {"Name": "new9", "IPAM": {"Config": [{"Subnet": "10.1.2.0/24", "Gateway": "10.9.0.1"}]}},
        {"Name": "new9", "IPAM": {"Config": [{"Subnet": "10.1.2.0/24", "IPRange": "10.9.0.0/25"}]}},
        {"Name": "new9", "IPAM": {"Config": [{"Subnet": "10.1.2.0/24", "IPRange": "x"}]}},
        {"Name": "new9", "IPAM": {"Config": [{"Gateway": "10.1.2.1"}]}},
        {
            "Name": "new9",
            "IPAM": {"Config": [{"Subnet": "10.1.2.0/24"}, {"Subnet": "10.1.2.0/24"}]},
        },
        {"Name": "new9", "ConfigFrom": {"Network": "nothing"}},
        {"Name": "new9", "ConfigOnly": True, "ConfigFrom": {"Network": "net1"}},
        {"Name": "new9", "Options": {"com.docker.network.driver.mtu": "x"}},
        {"Name": "new9", "Options": {"com.docker.network.bridge.enable_icc": "x"}},
        {"Name": "new9", "EnableIPv6": "x"},
    ):
        yield "POST", "/networks/create", body
    for name in ("bridge", "host", "none", "nothing"):
        yield "DELETE", f"/networks/{name}", None
    yield "POST", "/networks/net1/connect", None
    yield "POST", "/networks/net1/connect", {}
    yield "POST", "/networks/net1/connect", {"Container": "nothing"}
    yield "POST", "/networks/nothing/connect", {"Container": "made"}
    yield "POST", "/networks/host/connect", {"Container": "runs"}
    yield "POST", "/networks/none/connect", {"Container": "runs"}
    yield "POST", "/networks/bridge/connect", {"Container": "runs"}
    yield (
        "POST",
        "/networks/net1/connect",
        {"Container": "made", "EndpointConfig": {"IPAMConfig": {"IPv4Address": "x"}}},
    )
    yield "POST", "/networks/net1/disconnect", {"Container": "runs"}
    yield "POST", "/networks/net1/disconnect", {"Container": "nothing"}
    yield "POST", "/networks/nothing/disconnect", {"Container": "runs"}
    yield "POST", "/networks/net1/disconnect", {}
    yield "POST", "/networks/prune?" + _filters(nothing=["x"]), None
    yield "POST", "/networks/prune?" + _filters(until=["x"]), None
    yield "POST", "/networks/prune?" + _filters(label=["no=thing"]), None


def _volumes() -> Iterator[Request]:
    for query in (
        "",
        _filters(dangling=["true"]),
        _filters(dangling=["x"]),
        _filters(driver=["local"]),
        _filters(name=["vol"]),
        _filters(label=["a"]),
        _filters(nothing=["x"]),
        "filters=x",
    ):
        yield "GET", f"/volumes?{query}", None
    for name in ("vol1", "nothing", "a%20b"):
        yield "GET", f"/volumes/{name}", None
    for body in (
        None,
        {"Name": "a b"},
        {"Name": "x"},
        {"Name": "vol1"},
        {"Name": "vol1", "Driver": "nothing"},
        {"Name": "new9", "Driver": "nothing"},
        {"Name": "new9", "DriverOpts": {"nothing": "x"}},
        {"Name": "new9", "DriverOpts": {"type": "tmpfs"}},
        {"Name": "new9", "DriverOpts": {"device": "x", "o": "size=1m"}},
        {"Name": "new9", "DriverOpts": {"type": "tmpfs", "device": "tmpfs", "o": "size=1m"}},
        {"Name": 5},
        {"Labels": "x"},
    ):
        yield "POST", "/volumes/create", body
    yield "DELETE", "/volumes/nothing", None
    yield "DELETE", "/volumes/nothing?force=1", None
    yield "DELETE", "/volumes/vol1", None
    yield "DELETE", "/volumes/vol1?force=1", None
    yield "DELETE", "/volumes/a%20b", None
    yield "DELETE", "/volumes/new9", None
    yield "DELETE", "/volumes/x", None
    yield "POST", "/volumes/prune?" + _filters(nothing=["x"]), None
    yield "POST", "/volumes/prune?" + _filters(label=["no=thing"]), None
    yield "PUT", "/volumes/vol1?version=1", {}
