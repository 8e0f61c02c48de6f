"""SIGKILL for pierd, or for the client, in the middle of a build through docker-buildx."""

import os
from pathlib import Path

import pytest

from busybox_image import NAME
from docker_plugins import configure, find_plugins
from engine_process import Client, EngineProcess, wait_until


@pytest.fixture
def buildx(engine: EngineProcess, tmp_path: Path) -> Client:
    plugins = find_plugins()
    if plugins is None:
        pytest.skip("no docker-buildx: PIER_DOCKER_PLUGINS names no directory with it")
    config = tmp_path / "config"
    config.mkdir()
    configure(config, plugins)
    environment = {**engine.docker.env, "DOCKER_CONFIG": str(config)}
    return Client(engine.docker.command, environment)


@pytest.mark.parametrize("moment", ["while it sends", "while a step runs"])
@pytest.mark.parametrize("whom", ["pierd", "client"])
def test_killed(
    engine: EngineProcess, buildx: Client, tmp_path: Path, moment: str, whom: str
) -> None:
    context = tmp_path / "context"
    context.mkdir()
    with (context / "big").open("wb") as file:
        file.truncate(300 << 20)
    dockerfile = context / "Dockerfile"
    begun = b"transferring context: " if moment == "while it sends" else b" begun"
    text = f"FROM {NAME}\nRUN echo kept > /kept\n"
    if moment == "while it sends":
        dockerfile.write_text(f"{text}COPY big /big\nRUN sleep 60\n")
    else:
        dockerfile.write_text(f"{text}RUN echo begun; sleep 60\n")
    words = ("build", "--progress=plain", "--network", "none", str(context))
    with buildx.popen(*words) as building:
        assert building.stderr is not None
        for line in building.stderr:
            if begun in line and b"RUN" not in line and b" 2B" not in line:
                break
        else:
            raise AssertionError("the build was over")
        if whom == "pierd":
            engine.kill()
        else:
            building.kill()
        building.communicate()
    if whom == "pierd":
        engine.start()
    wait_until(lambda: engine.docker("ps", "-aq").stdout == "", "the step's container is gone")
    staging = f"{engine.data_root}/staging"
    wait_until(
        lambda: not [n for n in os.listdir(staging) if os.path.exists(f"{staging}/{n}/context")],
        "the build's directory is gone",
    )
    dockerfile.write_text(f"{text}RUN true\n")
    again = buildx(*words)
    assert again.stderr.count("CACHED") >= 1
