"""One engine for the whole ring, with one small image; each test removes what it made.

PIER_TEST_HOST=unix://… runs the ring against another engine, dockerd for one: that is how its
expectations are checked against the original. Tests about pierd itself are skipped then.
"""

import contextlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from classic_build import Build

import openapi_schema
from busybox_image import NAME, docker_archive, root_tar
from engine_process import Client, EngineProcess

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
LOG_OFFSET = pytest.StashKey[int]()


class OtherEngine(EngineProcess):
    """An engine that somebody else started: nothing about its process is ours."""

    def __init__(self, host: str) -> None:
        super().__init__()
        self.host = host
        self.env["DOCKER_HOST"] = host

    @property
    def in_network(self) -> list[str]:
        return []

    def log_size(self) -> int:
        return 0

    def log_tail(self, lines: int = 60, offset: int = 0) -> str:
        return ""

    def close(self) -> None:
        self.remove_containers()
        shutil.rmtree(self.directory)


@pytest.fixture(scope="session")
def engine(request: pytest.FixtureRequest) -> Iterator[EngineProcess]:
    if not shutil.which("docker"):
        pytest.skip("no docker command on PATH: run `make client`, which fetches one")
    host = os.environ.get("PIER_TEST_HOST")
    running = OtherEngine(host) if host else EngineProcess()
    try:
        if not host:
            running.start()
        with _held_against_openapi(running):
            yield running
    finally:
        running.close()


@contextlib.contextmanager
def _held_against_openapi(engine: EngineProcess) -> Iterator[None]:
    """Let the clients talk through a proxy that checks every answer, where that is possible.

    What it found is told by the last test of the ring, test_zz_openapi.
    """
    if openapi_schema.why_not():
        yield
        return
    listen = os.path.join(engine.directory, "checked.sock")
    engine.openapi_report = os.path.join(engine.directory, "openapi-report")
    with open(engine.openapi_report, "w"):
        pass
    script = os.path.join(os.path.dirname(openapi_schema.__file__), "openapi_proxy.py")
    upstream = engine.host.removeprefix("unix://")
    proxy = subprocess.Popen(
        [sys.executable, script, listen, upstream, engine.openapi_report], stdout=subprocess.PIPE
    )
    try:
        assert proxy.stdout is not None
        assert proxy.stdout.readline() == b"ready\n"
        engine.env["DOCKER_HOST"] = f"unix://{listen}"
        yield
    finally:
        engine.env["DOCKER_HOST"] = engine.host
        proxy.kill()
        proxy.communicate()


@pytest.fixture
def pierd(engine: EngineProcess) -> EngineProcess:
    """The engine, for a test that touches its process."""
    if isinstance(engine, OtherEngine):
        pytest.skip("about pierd itself")
    return engine


@pytest.fixture(scope="session")
def image(engine: EngineProcess) -> str:
    """The name of a loaded busybox image; its Cmd is sh."""
    engine.docker.raw("load", stdin=docker_archive(NAME, [root_tar()]))
    return NAME


@pytest.fixture
def docker(engine: EngineProcess) -> Client:
    """The docker command line."""
    return engine.docker


@pytest.fixture(scope="session")
def debian_image(engine: EngineProcess) -> str:
    """The name of a minimal Debian, made by mmdebstrap once and kept below .cache."""
    tar = os.path.join(ROOT, ".cache", "debian.tar")
    if not os.path.exists(tar):
        if not shutil.which("mmdebstrap"):
            pytest.skip("mmdebstrap is not installed")
        os.makedirs(os.path.dirname(tar), exist_ok=True)
        made = subprocess.run(
            [os.path.join(ROOT, "tools", "debian_root.sh"), tar], capture_output=True, check=False
        )
        if made.returncode != 0:
            pytest.skip(f"mmdebstrap failed: {made.stderr.decode(errors='replace')[-500:]}")
    engine.docker("import", tar, "pier-test/debian:latest", timeout=180)
    return "pier-test/debian:latest"


@pytest.fixture(autouse=True)
def _leave_no_container(request: pytest.FixtureRequest) -> Iterator[None]:
    """Remove what the test created, so that the next one finds an empty engine."""
    if "engine" not in request.fixturenames:
        yield
        return
    engine: EngineProcess = request.getfixturevalue("engine")
    request.node.stash[LOG_OFFSET] = engine.log_size()
    yield
    engine.remove_containers()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[None]:
    """Show what pierd logged during a test that failed."""
    report: pytest.TestReport = yield  # type: ignore[assignment]
    engine = getattr(item, "funcargs", {}).get("engine")
    if (
        report.failed
        and isinstance(engine, EngineProcess)
        and LOG_OFFSET in item.stash
        and os.path.exists(engine.log)
    ):
        report.sections.append(("pierd's log", engine.log_tail(offset=item.stash[LOG_OFFSET])))
    return report  # type: ignore[return-value]


@pytest.fixture
def build(docker: Client, image: str, tmp_path: Path) -> Iterator[Build]:
    classic = Client(docker.command, {**docker.env, "DOCKER_BUILDKIT": "0"})
    builder = Build(classic, image, tmp_path)
    yield builder
    containers = docker("ps", "-aq").stdout.split()
    if containers:
        docker("rm", "-f", *containers)
    found = docker("images", "--format", "{{.Repository}}:{{.Tag}}").stdout.split()
    for name in found:
        if name.startswith("made/"):
            docker("rmi", "-f", name)
    docker("builder", "prune", "-af")
    left = docker("images", "-aq", "--filter", "dangling=true").stdout.split()
    if left:
        docker("rmi", "-f", *left, check=False)
