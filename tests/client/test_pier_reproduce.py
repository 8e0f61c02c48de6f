"""`pier inspect --as`: what it prints makes the same container again."""

import json
import os
import shlex
import subprocess
from typing import Any

import pytest

from engine_process import Client, EngineProcess

# What no two containers have in common.
OWN = {"Id", "Created", "Name", "State", "HostnamePath", "HostsPath", "LogPath", "ResolvConfPath"}
OWN |= {"GraphDriver", "Mounts", "NetworkSettings", "ExecIDs"}

CASES = {
    "nothing": [],
    "process": [
        *("-e", "A=b c", "-e", "D=$x", "-u", "1:2", "-w", "/tmp", "--hostname", "h", "-it"),
        *("--stop-signal", "SIGINT", "--stop-timeout", "3", "--init", "--entrypoint", "sleep"),
        *("-l", "a=b", "-l", "c=d e", "--annotation", "x=y", "--domainname", "d"),
    ],
    "limits": [
        *("-m", "64m", "--cpus", "1.5", "--pids-limit", "50", "--shm-size", "1m"),
        *("--ulimit", "nofile=10:20", "--oom-score-adj", "5", "--cpu-shares", "7"),
        *("--sysctl", "net.ipv4.ip_forward=1", "--restart", "on-failure:3"),
    ],
    "rights": [
        *("--cap-add", "NET_ADMIN", "--cap-drop", "CHOWN", "--security-opt", "no-new-privileges"),
        *("--device", "/dev/null:/dev/nought:r", "--device-cgroup-rule", "c 1:3 rwm"),
        *("--read-only", "--group-add", "7", "--ipc", "host", "--pid", "host"),
    ],
    "storage": [
        *("-v", "repro:/a:ro", "-v", "/tmp:/b", "--tmpfs", "/c:size=1m"),
        *("--mount", "type=volume,source=repro,target=/d,volume-nocopy"),
        *("--mount", "type=tmpfs,target=/e,tmpfs-size=4096,tmpfs-mode=1777"),
    ],
    "network": [
        *("--network", "name=repro,alias=x,ip=10.77.0.9", "-p", "127.0.0.1:0:80", "-p", "53/udp"),
        *("--add-host", "h:1.2.3.4", "--dns", "9.9.9.9", "--expose", "99"),
    ],
    "health": [
        *("--health-cmd", "true; false", "--health-interval", "5s", "--health-retries", "2"),
        *("--log-opt", "max-size=1m", "--log-opt", "max-file=2"),
    ],
    "health by http": ["--health-http", ":80/", "--health-timeout", "1500ms"],
}


@pytest.fixture(scope="module")
def pier(engine: EngineProcess) -> Client:
    return engine.pier


def shown(pier: Client, name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(pier("inspect", name).stdout)[0]
    networks = found["NetworkSettings"]["Networks"]
    asked = {n: (s["IPAMConfig"], s["Aliases"], s["DriverOpts"]) for n, s in networks.items()}
    kept = {key: value for key, value in found.items() if key not in OWN}
    if kept["Config"]["Hostname"] == found["Id"][:12]:
        del kept["Config"]["Hostname"]
    return kept | {"asked": asked, "targets": sorted(m["Destination"] for m in found["Mounts"])}


@pytest.mark.parametrize("case", CASES)
def test_run(pier: Client, image: str, case: str) -> None:
    pier("network", "create", "--subnet", "10.77.0.0/24", "repro")
    pier("volume", "create", "repro")
    try:
        words = CASES[case] if "--entrypoint" in CASES[case] else [*CASES[case]]
        pier("create", "--name", "first", *words, image, "sleep", "a b", "$c")
        told = pier("inspect", "--as", "run", "first").stdout
        command = shlex.split(told)
        assert command[:2] == ["pier", "run"]
        rest = [word for word in command[2:] if word != "-d"]
        rest[rest.index("--name") + 1] = "second"
        pier("create", *rest)
        assert shown(pier, "first") == shown(pier, "second"), told
    finally:
        pier("rm", "-f", "-v", "first", "second", check=False)
        pier("network", "rm", "repro")
        pier("volume", "rm", "repro")


@pytest.mark.parametrize("case", CASES)
def test_compose_is_a_file_of_compose(pier: Client, image: str, case: str) -> None:
    pier("network", "create", "--subnet", "10.77.0.0/24", "repro")
    pier("volume", "create", "repro")
    try:
        pier("create", "--name", "first", *CASES[case], image, "sleep", "$c")
        told = pier("container", "inspect", "--as", "compose", "first").stdout
        plugin = os.path.expanduser("~/.docker/cli-plugins/docker-compose")
        for command in (["docker", "compose"], [plugin]):
            found = subprocess.run(
                [*command, "version"], capture_output=True, check=False
            ) if os.path.isabs(command[0]) is False or os.path.exists(command[0]) else None  # fmt: skip
            if found is not None and found.returncode == 0:
                done = subprocess.run(
                    [*command, "-f", "-", "config", "-q"],
                    input=told, text=True, capture_output=True, check=False,
                )  # fmt: skip
                assert done.returncode == 0, (told, done.stderr)
        yaml = pytest.importorskip("yaml")
        service = yaml.safe_load(told)["services"]["first"]
        assert service["image"] == image
        assert service["command"][-1] == "$$c"
    finally:
        pier("rm", "-f", "-v", "first", check=False)
        pier("network", "rm", "repro")
        pier("volume", "rm", "repro")


def test_unknown_form(pier: Client) -> None:
    done = pier("inspect", "--as", "nothing", "x", check=False)
    assert 'unknown form: "nothing": must be one of "run", "compose"' in done.stderr
