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
from typing import Any

import pytest
from classic_build import Build
from made_once import debian_tar
from openapi_findings import unexcused
from projects import Workshop, open_workshop

import openapi_schema
from busybox_image import NAME, docker_archive, root_tar
from engine_calls import Calls
from engine_process import Client, EngineProcess

PROBLEMS = pytest.StashKey[set[str]]()
LOG_OFFSET = pytest.StashKey[int]()
# Whole files go to the two workers, in the order of this list and then by name: what takes longest
# comes first, so that none of them works alone at the end.
LONGEST = (
    "test_pier_bootstrap",
    "test_network_matrix",
    "test_docker_networks",
    "test_pier_egress",
    "test_build_project_python",
    "test_docker_runtimes",
    "test_pier_beside_docker",
    "test_docker_buildx",
    "test_databases",
    "test_docker_cp",
    "test_registry_troubles",
    "test_registry_server",
    "test_registry_docker",
    "test_docker_parallel",
    "test_pier_cp",
    "test_docker_compose",
)


def pytest_configure(config: pytest.Config) -> None:
    config.stash[PROBLEMS] = set()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if hasattr(config, "workerinput"):
        place = {name: number for number, name in enumerate(LONGEST)}
        items.sort(key=lambda item: place.get(item.path.stem, len(place)))


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """Take over what a worker's engine was found to answer."""
    node.config.stash[PROBLEMS].update(getattr(node, "workeroutput", {}).get("problems", ()))


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    found = session.config.stash[PROBLEMS]
    problems = unexcused(found)
    if hasattr(session.config, "workeroutput"):
        session.config.workeroutput["problems"] = problems
    elif problems and session.exitstatus == pytest.ExitCode.OK:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    found = config.stash[PROBLEMS]
    if problems := unexcused(found):
        terminalreporter.section("answers that are not as the OpenAPI document says")
        for problem in problems:
            terminalreporter.write_line(problem)


class OtherEngine(EngineProcess):
    """An engine that somebody else started: nothing about its process is ours."""

    def __init__(self, host: str) -> None:
        super().__init__()
        self.host = host
        self.env["DOCKER_HOST"] = host
        self.calls = Calls(host.removeprefix("unix://"))

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
        with _held_against_openapi(running, request.config):
            yield running
    finally:
        running.close()


@contextlib.contextmanager
def _held_against_openapi(engine: EngineProcess, config: pytest.Config) -> Iterator[None]:
    """Let the clients talk through a proxy that checks every answer, where that is possible.

    What it found fails the run at its end, for it is of no one test.
    """
    if openapi_schema.why_not():
        yield
        return
    listen = os.path.join(engine.directory, "checked.sock")
    report = os.path.join(engine.directory, "openapi-report")
    with open(report, "w"):
        pass
    script = os.path.join(os.path.dirname(openapi_schema.__file__), "openapi_proxy.py")
    upstream = engine.host.removeprefix("unix://")
    proxy = subprocess.Popen(
        [sys.executable, script, listen, upstream, report], stdout=subprocess.PIPE
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
        with open(report) as file:
            config.stash[PROBLEMS].update(file.read().splitlines())


@pytest.fixture
def pierd(engine: EngineProcess) -> EngineProcess:
    """The engine, for a test that touches its process."""
    if isinstance(engine, OtherEngine):
        pytest.skip("about pierd itself")
    return engine


@pytest.fixture(scope="session")
def image(engine: EngineProcess) -> str:
    """The name of a loaded busybox image; its Cmd is sh."""
    load_image(engine)
    return NAME


def load_image(engine: EngineProcess) -> None:
    engine.docker.raw("load", stdin=docker_archive(NAME, [root_tar()]))


@pytest.fixture
def sole_image(engine: EngineProcess, image: str) -> str:
    """The same without any other name that a test has left: removing its only name is refused."""
    for name in engine.calls.names_of(image):
        if name != image:
            engine.calls.remove_image(name)
    return image


@pytest.fixture
def docker(engine: EngineProcess) -> Client:
    """The docker command line."""
    return engine.docker


@pytest.fixture(scope="session")
def debian_image(engine: EngineProcess) -> str:
    """The name of a minimal Debian, made by mmdebstrap once and kept below .cache."""
    tar = debian_tar("debian-apt")
    engine.docker("import", tar, "pier-test/debian:latest", timeout=180)
    return "pier-test/debian:latest"


@pytest.fixture(scope="session")
def workshop() -> Iterator[Workshop]:
    """An engine with a way out, for builds that fetch packages."""
    with open_workshop() as made:
        yield made


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
    if "image" in request.fixturenames and not engine.calls.has_image(NAME):
        load_image(engine)
        raise AssertionError(f"the image of all tests, {NAME}, went during this one")


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
def build(engine: EngineProcess, image: str, tmp_path: Path) -> Iterator[Build]:
    docker = engine.docker
    classic = Client(docker.command, {**docker.env, "DOCKER_BUILDKIT": "0"})
    yield Build(classic, image, tmp_path)
    engine.remove_containers()
    engine.calls.remove_built("made/")
