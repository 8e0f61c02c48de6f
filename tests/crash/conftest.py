"""An engine for each test of this ring, since each test breaks it; root, and real containers."""

import os
import shutil
from collections.abc import Iterator

import pytest

from busybox_image import NAME, docker_archive, root_tar
from engine_process import EngineProcess


@pytest.fixture
def engine() -> Iterator[EngineProcess]:
    """A pierd with one image. What it leaves behind fails the test."""
    if os.geteuid() != 0:
        pytest.skip("containers need root")
    if not shutil.which("docker"):
        pytest.skip("no docker command on PATH: run `make client`, which fetches one")
    running = EngineProcess()
    try:
        running.start()
        archive = docker_archive(NAME, [root_tar()], {"Env": ["PATH=/bin"], "Cmd": ["sh"]})
        running.docker.raw("load", "--quiet", stdin=archive)
        yield running
    finally:
        running.close()
