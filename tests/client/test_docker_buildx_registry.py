"""docker-buildx and registries: pushes, passwords of the client's, caches, imagetools, agents."""

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from registry_servers import docker_registry

from docker_plugins import configure, find_plugins
from engine_process import Client, EngineProcess

OPEN, CLOSED = 5091, 5092


@pytest.fixture
def buildx(docker: Client, engine: EngineProcess, tmp_path: Path) -> Iterator[Client]:
    """In the engine's network, where the registries are: imagetools speaks to them itself."""
    plugins = find_plugins()
    if plugins is None:
        pytest.skip("no docker-buildx: PIER_DOCKER_PLUGINS names no directory with it")
    config = tmp_path / "config"
    config.mkdir()
    configure(config, plugins)
    environment = {k: v for k, v in docker.env.items() if k != "DOCKER_BUILDKIT"}
    environment["DOCKER_CONFIG"] = str(config)
    inside = tmp_path / "inside"
    inside.write_text(f'#!/bin/sh\nexec {" ".join(engine.in_network)} {docker.command} "$@"\n')
    inside.chmod(0o755)
    before = engine.calls.image_ids()
    yield Client(str(inside), environment)
    engine.calls.remove_images_but(before)


def build(buildx: Client, directory: Path, text: str, *flags: str, check: bool = True) -> str:
    context = directory / "context"
    context.mkdir(exist_ok=True)
    (context / "Dockerfile").write_text(text)
    return buildx("build", "--progress=plain", *flags, str(context), check=check).stderr


def test_push_and_what_imagetools_says(
    engine: EngineProcess, buildx: Client, image: str, tmp_path: Path
) -> None:
    with docker_registry(engine, OPEN) as registry:
        name = f"{registry}/pushed:1"
        build(buildx, tmp_path, f"FROM {image}\nRUN echo it > /it\n", "-t", name, "--push")
        shown = buildx("buildx", "imagetools", "inspect", name).stdout
        assert name in shown
        buildx("buildx", "imagetools", "create", "-t", f"{registry}/pushed:2", name)
        raw = buildx("buildx", "imagetools", "inspect", "--raw", f"{registry}/pushed:2").stdout
        assert json.loads(raw)["schemaVersion"] == 2
        buildx("rmi", name)
        assert buildx("run", "--rm", "--network", "none", name, "cat", "/it").stdout == "it\n"


def test_passwords_are_the_clients(
    engine: EngineProcess, buildx: Client, image: str, tmp_path: Path
) -> None:
    with docker_registry(engine, CLOSED, users=True) as registry:
        name = f"{registry}/private/base:1"
        buildx("login", "-u", "alice", "--password-stdin", registry, stdin="secret")
        build(buildx, tmp_path, f"FROM {image}\nRUN echo base > /it\n", "-t", name, "--push")
        buildx("rmi", "-f", name)
        buildx("builder", "prune", "-af")
        more = f"{registry}/private/more:1"
        build(buildx, tmp_path, f"FROM {name}\nRUN cat /it\n", "-t", more, "--pull", "--push")
        buildx("logout", registry)
        refused = build(buildx, tmp_path, f"FROM {name}\n", "--pull", check=False)
        assert "ERROR: failed to build: failed to solve:" in refused
        assert "no basic auth credentials" in refused


def test_a_cache_in_a_registry(
    engine: EngineProcess, buildx: Client, image: str, tmp_path: Path
) -> None:
    with docker_registry(engine, OPEN) as registry:
        where = f"type=registry,ref={registry}/cache:1"
        text = f"FROM {image}\nRUN echo long > /work; echo done it\n"
        first = build(buildx, tmp_path, text, "--cache-to", where)
        assert "exporting cache to registry" in first
        buildx("builder", "prune", "-af")
        again = build(buildx, tmp_path, text, "--cache-from", where)
        assert "importing cache manifest" in again
        assert "CACHED" in again.partition("[2/2]")[2]
        assert "done it\n" not in again.partition("[2/2]")[2].partition("\n")[2]


def test_agents(buildx: Client, image: str, tmp_path: Path) -> None:
    if not shutil.which("ssh-agent"):
        pytest.skip("there is no ssh-agent")
    path = str(tmp_path / "agent")
    agent = subprocess.Popen(["ssh-agent", "-D", "-a", path], stdout=subprocess.DEVNULL)
    try:
        key = tmp_path / "key"
        subprocess.run(["ssh-keygen", "-qt", "ed25519", "-N", "", "-f", key], check=True)
        while not os.path.exists(path):
            assert agent.poll() is None
        environment = {**os.environ, "SSH_AUTH_SOCK": path}
        subprocess.run(["ssh-add", "-q", key], env=environment, check=True)
        text = (
            f"FROM {image}\n"
            # SSH_AGENTC_REQUEST_IDENTITIES, and how long its answer is.
            "RUN --mount=type=ssh printf '\\000\\000\\000\\001\\013' |"
            ' nc -w 5 "local:$SSH_AUTH_SOCK" | wc -c > /answer || test -S "$SSH_AUTH_SOCK"\n'
        )
        build(buildx, tmp_path, text, "--ssh", f"default={path}")
        refused = build(
            buildx,
            tmp_path,
            f"FROM {image}\nRUN --mount=type=ssh,required=true true\n",
            check=False,
        )
        assert "ERROR: failed to build: failed to solve:" in refused
    finally:
        agent.terminate()
        agent.wait()
