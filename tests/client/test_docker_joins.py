"""Other containers' namespaces, and devices by CDI."""

import json
import os
from collections.abc import Iterator

import pytest

from engine_process import Client, EngineProcess


def test_shared_ipc_has_the_same_shm(docker: Client, image: str) -> None:
    docker("run", "-d", "--name", "donor", "--ipc", "shareable", "--shm-size", "1m", image,
           "sh", "-c", "echo shared > /dev/shm/f; sleep 60")  # fmt: skip
    script = "readlink /proc/self/ns/ipc; cat /dev/shm/f; df -k /dev/shm | tail -n 1"
    inside = docker("run", "--rm", "--ipc", "container:donor", image, "sh", "-c", script).stdout
    namespace, content, shm = inside.splitlines()
    assert content == "shared"
    assert shm.split()[1] == "1024"
    assert docker("exec", "donor", "readlink", "/proc/self/ns/ipc").stdout.strip() == namespace


REFUSED = [
    (["--ipc", "private"], "--ipc", "non-shareable IPC (hint: use IpcMode:shareable for the donor"),
    (["--ipc", "none"], "--ipc", "non-shareable IPC (hint: use IpcMode:shareable for the donor"),
]


@pytest.mark.parametrize(("flags", "joins", "message"), REFUSED)
def test_what_is_not_shared(
    docker: Client, image: str, flags: list[str], joins: str, message: str
) -> None:
    docker("run", "-d", *flags, "--name", "donor", image, "sleep", "60")
    done = docker("run", "--rm", joins, "container:donor", image, "true", check=False)
    assert done.returncode == 125
    assert message in done.stderr


@pytest.mark.parametrize(("flag", "called"), [("--ipc", "IPC"), ("--pid", "PID")])
def test_who_does_not_run(docker: Client, image: str, flag: str, called: str) -> None:
    identity = docker("create", "--name", "donor", image).stdout.strip()
    done = docker("run", "--rm", flag, "container:donor", image, "true", check=False)
    assert f"failed to join {called} namespace: container {identity} is not running" in done.stderr
    done = docker("create", flag, "container:nobody", image, "true", check=False)
    assert "No such container: nobody" in done.stderr


def test_who_has_no_network_to_join(docker: Client, image: str) -> None:
    docker("create", "--name", "donor", image)
    docker("create", "--name", "it", "--network", "container:donor", image, "true")
    done = docker("start", "it", check=False)
    assert (
        "cannot join network namespace of a non running container: container donor is created"
        in done.stderr
    )
    docker("rm", "donor")
    mode = docker("inspect", "-f", "{{.HostConfig.NetworkMode}}", "it").stdout.strip()
    done = docker("start", "it", check=False)
    missing = mode.removeprefix("container:")
    message = f"joining network namespace of container: No such container: {missing}"
    assert message in done.stderr


def test_pid_namespace_of_another(docker: Client, image: str) -> None:
    docker("run", "-d", "--name", "donor", image, "sleep", "4242")
    seen = docker("run", "--rm", "--pid", "container:donor", image, "ps").stdout
    assert "sleep 4242" in seen


# Devices

DOCUMENT = {
    "cdiVersion": "0.6.0",
    "kind": "pier.test/thing",
    "devices": [
        {
            "name": "one",
            "containerEdits": {
                "deviceNodes": [{"path": "/dev/thing1", "hostPath": "/dev/zero"}],
                "env": ["THING=1"],
            },
        }
    ],
    "containerEdits": {
        "mounts": [{"hostPath": "/etc/hostname", "containerPath": "/thing", "options": ["ro"]}]
    },
}


@pytest.fixture
def cdi(pierd: EngineProcess) -> Iterator[EngineProcess]:
    """The engine, with a directory of CDI files."""
    directory = os.path.join(pierd.directory, "cdi")
    os.makedirs(directory, exist_ok=True)
    with open(os.path.join(directory, "thing.json"), "w") as file:
        json.dump(DOCUMENT, file)
    pierd.stop()
    pierd.start("--cdi-spec-dir", directory)
    yield pierd
    pierd.restart()


def test_cdi_device(cdi: EngineProcess, docker: Client, image: str) -> None:
    script = "head -c 4 /dev/thing1 | od -An -tx1; echo $THING; cmp /thing /thing && echo same"
    inside = docker("run", "--rm", "--device", "pier.test/thing=one", image, "sh", "-c", script)
    assert inside.stdout.split() == ["00", "00", "00", "00", "1", "same"]
    done = docker("run", "--device", "pier.test/thing=two", image, "true", check=False)
    assert done.returncode == 125
    assert (
        "CDI device injection failed: unresolvable CDI devices pier.test/thing=two" in done.stderr
    )


def test_no_gpus(docker: Client, image: str) -> None:
    done = docker("run", "--gpus", "all", image, "true", check=False)
    assert done.returncode == 125
    assert 'could not select device driver "" with capabilities: [[gpu]]' in done.stderr
