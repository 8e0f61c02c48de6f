"""`docker inspect` gives back what `docker run` was told, where clients look for it."""

import json
from typing import Any

import pytest

from engine_process import Client

# flags; path below the document; value
TABLE: list[tuple[list[str], str, Any]] = [
    (["-e", "A=b"], "Config.Env", ["A=b", "PATH=/bin:/sbin:/usr/bin:/usr/sbin"]),
    (["-u", "alice"], "Config.User", "alice"),
    (["-w", "/usr"], "Config.WorkingDir", "/usr"),
    (["-h", "harbour"], "Config.Hostname", "harbour"),
    (["-i"], "Config.OpenStdin", True),
    (["-t"], "Config.Tty", True),
    (["--stop-signal", "USR1"], "Config.StopSignal", "USR1"),
    (["--stop-timeout", "7"], "Config.StopTimeout", 7),
    (["--stop-timeout", "0"], "Config.StopTimeout", 0),
    (["--entrypoint", "/bin/sh"], "Config.Entrypoint", ["/bin/sh"]),
    (["--entrypoint", "/bin/sh"], "Path", "/bin/sh"),
    (["-m", "64m"], "HostConfig.Memory", 64 << 20),
    (["-m", "64m"], "HostConfig.MemorySwap", 128 << 20),
    (["--cpus", "1.5"], "HostConfig.NanoCpus", 1_500_000_000),
    (["--pids-limit", "50"], "HostConfig.PidsLimit", 50),
    (["--read-only"], "HostConfig.ReadonlyRootfs", True),
    (["--privileged"], "HostConfig.Privileged", True),
    (["--init"], "HostConfig.Init", True),
    (["--cap-add", "CAP_NET_ADMIN"], "HostConfig.CapAdd", ["CAP_NET_ADMIN"]),
    (["--cap-drop", "ALL"], "HostConfig.CapDrop", ["ALL"]),
    (["--restart", "on-failure:3"], "HostConfig.RestartPolicy.MaximumRetryCount", 3),
    ([], "HostConfig.RestartPolicy.Name", "no"),
    (["--network", "none"], "HostConfig.NetworkMode", "none"),
    (["--tmpfs", "/t:size=1m"], "HostConfig.Tmpfs", {"/t": "size=1m"}),
    (["-v", "/tmp:/x:ro"], "HostConfig.Binds", ["/tmp:/x:ro"]),
    (["--shm-size", "1m"], "HostConfig.ShmSize", 1 << 20),
    ([], "HostConfig.ShmSize", 64 << 20),
    ([], "HostConfig.IpcMode", "private"),
    ([], "HostConfig.LogConfig.Type", "json-file"),
    (["--log-opt", "max-size=1m"], "HostConfig.LogConfig.Config", {"max-size": "1m"}),
    (["--ulimit", "nofile=1:2"], "HostConfig.Ulimits", [{"Name": "nofile", "Hard": 2, "Soft": 1}]),
    (["--sysctl", "kernel.msgmax=8192"], "HostConfig.Sysctls", {"kernel.msgmax": "8192"}),
    (["--oom-score-adj", "10"], "HostConfig.OomScoreAdj", 10),
    ([], "Args", ["1", "2"]),
    ([], "Path", "echo"),
    ([], "Name", "/it"),
    ([], "Driver", "overlay2"),
    ([], "Platform", "linux"),
    ([], "RestartCount", 0),
    ([], "State.Status", "created"),
    ([], "State.StartedAt", "0001-01-01T00:00:00Z"),
    ([], "ExecIDs", None),
    ([], "GraphDriver.Name", "overlay2"),
    ([], "Config.Image", "pier-test/busybox:latest"),
]


@pytest.mark.parametrize(("flags", "path", "expected"), TABLE)
def test_field(docker: Client, image: str, flags: list[str], path: str, expected: object) -> None:
    docker("create", "--name", "it", *flags, image, "echo", "1", "2")
    (found,) = json.loads(docker("container", "inspect", "it").stdout)
    for name in path.split("."):
        found = found[name]
    assert found == expected


def test_mounts(docker: Client, image: str) -> None:
    docker("create", "--name", "it", "-v", "/tmp:/x:ro", "--tmpfs", "/t", image)
    mounts = json.loads(docker("inspect", "-f", "{{json .Mounts}}", "it").stdout)
    assert mounts == [
        {
            "Type": "bind",
            "Source": "/tmp",
            "Destination": "/x",
            "Mode": "ro",
            "RW": False,
            "Propagation": "rprivate",
        }
    ]


def test_size_when_asked(docker: Client, image: str) -> None:
    docker("run", "--name", "it", image, "sh", "-c", "head -c 5000 /dev/zero >/five")
    (found,) = json.loads(docker("inspect", "-s", "it").stdout)
    assert found["SizeRw"] >= 5000
    assert found["SizeRootFs"] > 1_000_000
    assert "SizeRw" not in json.loads(docker("inspect", "it").stdout)[0]
