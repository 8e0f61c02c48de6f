"""pierd's settings at work: TCP with TLS, defaults for containers, SIGHUP, metrics."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest

from busybox_image import NAME, docker_archive, root_tar
from engine_process import Client, EngineProcess, wait_until

PORT = 2376


@pytest.fixture
def own() -> Iterator[EngineProcess]:
    """A pierd that is not started yet and that nobody else uses."""
    running = EngineProcess()
    with contextlib.closing(running):
        yield running


@pytest.fixture
def certificates(own: EngineProcess) -> str:
    """A directory as DOCKER_CERT_PATH wants one; one certificate is all three."""
    if not shutil.which("openssl"):
        pytest.skip("no openssl to make a certificate with")
    directory = make_certificate(own, "certs")
    shutil.copy(f"{directory}/cert.pem", f"{directory}/ca.pem")
    return directory


def make_certificate(own: EngineProcess, name: str) -> str:
    directory = os.path.join(own.directory, name)
    os.mkdir(directory)
    words = "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=pier -keyout key.pem"
    subprocess.run(
        [*words.split(), "-addext", "subjectAltName=IP:127.0.0.1", "-out", "cert.pem"],
        cwd=directory,
        check=True,
        capture_output=True,
    )
    return directory


def load_image(own: EngineProcess) -> str:
    own.docker.raw("load", stdin=docker_archive(NAME, [root_tar()]))
    return NAME


def over_tcp(own: EngineProcess, name: str, **more: str) -> Client:
    """A client in pierd's network, which reaches it by TCP alone."""
    env = {**own.env, "DOCKER_HOST": f"tcp://127.0.0.1:{PORT}", **more}
    command = own.pier.command if name == "pier" else shutil.which(name)
    assert command
    script = os.path.join(own.directory, f"{name}-tcp")
    with open(script, "w") as file:
        file.write("#!/bin/sh\nexec " + " ".join([*own.in_network, command]) + ' "$@"\n')
    os.chmod(script, 0o755)
    return Client(script, env)


def test_tls(own: EngineProcess, certificates: str) -> None:
    files = [f"--tls{kind}={certificates}/{name}.pem" for kind, name in
             (("cacert", "ca"), ("cert", "cert"), ("key", "key"))]  # fmt: skip
    own.start("-H", f"tcp://127.0.0.1:{PORT}", "--tlsverify", *files)
    image = load_image(own)
    docker = over_tcp(own, "docker", DOCKER_TLS_VERIFY="1", DOCKER_CERT_PATH=certificates)
    assert docker("info", "--format", "{{.ServerVersion}}").stdout.startswith("29.")
    # Its end of stdin ends one direction only: the answer comes after it.
    data = os.urandom(3_000_000)
    done = docker.raw("run", "--rm", "-i", image, "sh", "-c", "cat; echo over >&2", stdin=data)
    assert done.stdout == data
    assert done.stderr == b"over\n"
    docker("run", "-d", "--name", "it", image, "sh", "-c", "echo up; sleep 60")
    assert docker("exec", "it", "echo", "x").stdout == "x\n"
    with_terminal = docker.terminal("exec", "-it", "it", "sh", "-c", "read x; echo got $x")
    with_terminal.sendline("this")
    with_terminal.expect("got this")
    with_terminal.close()
    assert docker("logs", "it").stdout == "up\n"
    other = make_certificate(own, "other")
    shutil.copy(f"{certificates}/ca.pem", f"{other}/ca.pem")
    stranger = over_tcp(own, "docker", DOCKER_TLS_VERIFY="1", DOCKER_CERT_PATH=other)
    refused = stranger("version", check=False)
    assert refused.returncode == 1
    assert "tls: " in refused.stderr
    docker("rm", "-f", "it")


def test_tcp_without_tls_when_asked_for(own: EngineProcess) -> None:
    own.start("-H", f"tcp://127.0.0.1:{PORT}", "--tls=false")
    image = load_image(own)
    docker = over_tcp(own, "docker")
    assert docker.raw("run", "--rm", "-i", image, "cat", stdin=b"x").stdout == b"x"
    warnings = docker("info", "--format", "{{.Warnings}}").stdout
    assert f"API is accessible on tcp://127.0.0.1:{PORT} without encryption" in warnings


def test_defaults_of_containers(own: EngineProcess) -> None:
    own.start(
        *("--default-ulimit", "nofile=1000:2000", "--default-shm-size", "8m", "--init"),
        *("--no-new-privileges", "--cgroup-parent", "/pier-default", "--log-driver", "local"),
        *("--seccomp-profile", "unconfined", "--default-ipc-mode", "shareable"),
    )
    image = load_image(own)
    script = "ulimit -n; ulimit -Hn; grep -E 'NoNewPrivs|^Seccomp:' /proc/self/status; echo $$"
    found = own.docker("run", "--rm", image, "sh", "-c", script).stdout.split()
    assert found == ["1000", "2000", "NoNewPrivs:", "1", "Seccomp:", "0", found[-1]]
    assert found[-1] != "1"
    limited = own.docker("run", "--rm", "--ulimit", "nofile=5:5", image, "sh", "-c", "ulimit -n")
    assert limited.stdout == "5\n"
    own.docker("create", "--name", "it", image)
    shown = json.loads(own.docker("inspect", "-f", "{{json .HostConfig}}", "it").stdout)
    assert (shown["ShmSize"], shown["IpcMode"]) == (8 << 20, "shareable")
    assert shown["LogConfig"] == {"Type": "local", "Config": {}}
    options = own.docker("info", "--format", "{{.SecurityOptions}}").stdout
    assert "name=seccomp,profile=unconfined" in options
    assert "name=no-new-privileges" in options


def test_reload(own: EngineProcess) -> None:
    path = os.path.join(own.directory, "daemon.json")

    def write(settings: dict[str, object]) -> None:
        with open(path, "w") as file:
            json.dump(settings, file)

    def info(field: str) -> str:
        return own.docker("info", "--format", "{{json ." + field + "}}").stdout.strip()

    write({"labels": ["a=1"]})
    own.start("--config-file", path)
    assert info("Labels") == '["a=1"]'
    events = own.docker.popen("events", "--filter", "type=daemon", "--format", "{{json .}}")
    try:
        wait_until(lambda: info("NEventsListener") == "1", "the client listens")
        write({"labels": ["a=2"], "debug": True, "insecure-registries": ["10.0.0.0/8", "r:5000"]})
        os.kill(own.pid, signal.SIGHUP)
        assert events.stdout
        event = json.loads(events.stdout.readline())
    finally:
        events.kill()
        events.communicate()
    assert (event["Type"], event["Action"]) == ("daemon", "reload")
    assert event["Actor"]["Attributes"]["labels"] == '["a=2"]'
    assert event["Actor"]["Attributes"]["debug"] == "true"
    assert (info("Labels"), info("Debug")) == ('["a=2"]', "true")
    config = json.loads(info("RegistryConfig"))
    assert "10.0.0.0/8" in config["InsecureRegistryCIDRs"]
    assert config["IndexConfigs"]["r:5000"]["Secure"] is False
    write({"nonsense": 1})
    os.kill(own.pid, signal.SIGHUP)
    wait_until(lambda: "Error reconfiguring the daemon" in own.log_tail(), "the log says so")
    assert info("Labels") == '["a=2"]'


def test_metrics(own: EngineProcess) -> None:
    own.start("--metrics-addr", "127.0.0.1:9323")
    image = load_image(own)
    own.docker("run", "-d", "--name", "it", image, "sleep", "60")
    code = (
        "import urllib.request as r, sys;"
        "sys.stdout.write(r.urlopen('http://127.0.0.1:9323/metrics').read().decode())"
    )
    done = subprocess.run(
        [*own.in_network, sys.executable, "-c", code], check=True, capture_output=True, text=True
    )
    assert 'engine_daemon_container_states_containers{state="running"} 1\n' in done.stdout
    assert "# TYPE process_cpu_seconds_total counter\n" in done.stdout


def test_pier_over_tls(own: EngineProcess, certificates: str) -> None:
    files = [
        *("--tlscacert", f"{certificates}/ca.pem", "--tlscert", f"{certificates}/cert.pem"),
        *("--tlskey", f"{certificates}/key.pem"),
    ]
    own.start("-H", f"tcp://127.0.0.1:{PORT}", "--tlsverify", *files)
    image = load_image(own)
    plain = over_tcp(own, "pier")
    pier = Client(plain.command, {**plain.env, "DOCKER_TLS_VERIFY": "1"})
    flags = ("--tlsverify", *files)
    assert pier(*flags, "version", "--format", "{{.Server.Version}}").stdout.startswith("29.")
    data = os.urandom(5_000_000)
    assert pier.raw(*flags, "run", "--rm", "-i", image, "cat", stdin=data).stdout == data
    refused = pier("version", check=False)
    assert refused.returncode == 1
    assert "error during connect: tls: " in refused.stderr
    endpoint = f"host=tcp://127.0.0.1:{PORT}" + "".join(
        f",{kind}={certificates}/{kind}.pem" for kind in ("ca", "cert", "key")
    )
    # One is made by pier and used by docker, the other the other way round.
    docker = over_tcp(own, "docker")
    for client in (pier, docker):
        client.env.pop("DOCKER_HOST")
        client.env.pop("DOCKER_TLS_VERIFY", None)
    pier("context", "create", "ours", "--docker", endpoint)
    assert docker("--context", "ours", "info", "--format", "{{.Name}}").stdout
    docker("context", "create", "theirs", "--docker", endpoint)
    assert pier("-c", "theirs", "run", "--rm", image, "echo", "x").stdout == "x\n"
    docker("context", "use", "theirs")
    assert pier("context", "show").stdout == "theirs\n"
    assert pier("run", "--rm", image, "echo", "y").stdout == "y\n"


def test_features_proxies_and_defaults(own: EngineProcess) -> None:
    config = os.path.join(own.directory, "daemon.json")
    settings = {
        "features": {"buildkit": False, "cdi": False},
        "proxies": {"http-proxy": "http://me:secret@127.0.0.1:9", "no-proxy": "a,b"},
        "default-network-opts": {"bridge": {"com.docker.network.driver.mtu": "1400"}},
        "default-stop-timeout": 0,
        "exec-opts": ["native.cgroupdriver=cgroupfs"],
    }
    with open(config, "w") as file:
        json.dump(settings, file)
    own.start("--config-file", config)
    docker, image = own.docker, load_image(own)
    info = json.loads(docker("info", "--format", "{{json .}}").stdout)
    assert (info["HttpProxy"], info["NoProxy"]) == ("http://xxxxx:xxxxx@127.0.0.1:9", "a,b")
    assert info["CDISpecDirs"] == []
    docker("network", "create", "small")
    options = docker("network", "inspect", "small", "--format", "{{json .Options}}").stdout
    assert json.loads(options) == {"com.docker.network.driver.mtu": "1400"}
    # It ignores SIGTERM, and has no time at all.
    docker(
        "run", "-d", "--name", "it", image, "sh", "-c", "trap '' TERM; while :; do sleep 1; done"
    )
    docker("stop", "it")
    assert docker("wait", "it").stdout == "137\n"
    refused = docker("pull", "localhost.invalid/x", check=False)
    assert refused.returncode != 0


def test_layers_cannot_be_limited_without_quotas(own: EngineProcess) -> None:
    with pytest.raises(AssertionError, match="does not support Project Quota"):
        own.start("--storage-opt", "overlay2.size=1G")
