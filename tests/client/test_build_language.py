"""The Dockerfile language beyond the classic builder: mounts, links, repositories, contexts, checks."""

import contextlib
import io
import os
import subprocess
import tarfile
import urllib.parse
from collections.abc import Iterator
from pathlib import Path

import pytest
from classic_build import Build
from git_server import serve_repository

from busybox_image import NAME, docker_archive, root_tar
from engine_process import EngineProcess, wait_until


def test_mounts_that_are_written_to(build: Build) -> None:
    build.file("d/f", "context\n")
    build.file("one", "1\n")
    text = (
        "FROM BASE AS other\nRUN mkdir /o && echo other > /o/o && chmod 700 /o\n"
        "FROM BASE\n"
        "RUN --mount=target=/d,source=d,rw --mount=target=/one,source=one,rw "
        "--mount=from=other,source=o,target=/o,rw "
        "echo more >> /d/f && echo 2 >> /one && echo x > /o/new && cat /d/f /one /o/* > /all\n"
        "RUN --mount=target=/d,source=d --mount=from=other,source=o,target=/o cat /d/f > /again; ls /o >> /again\n"
        "RUN --mount=type=cache,target=/c,id=pier-from,from=other,source=o "
        "echo x >> /c/o && stat -c %a /c > /mode && cp /c/o /cached\n"
    )
    build(text)
    assert build.run("cat", "/all") == "context\nmore\n1\n2\nx\nother\n"
    assert build.run("cat", "/again", "/cached", "/mode") == "context\no\nother\nx\n755\n"
    assert build.run("sh", "-c", "ls -d /d /one /o /c; true") == ""
    build(text.replace("cp /c/o", "cp -a /c/o"))
    assert build.run("cat", "/cached") == "other\nx\nx\n"


def test_scripts_in_heredocs(build: Build) -> None:
    build(
        "FROM BASE\nRUN <<EOF\n#!/bin/cat\nits own text\nEOF\n"
        "RUN <<-'END'\n\t#!/bin/sh -e\n\techo $0 > /name\n\tEND\n",
    )
    assert build.run("cat", "/name") == "/dev/pipes/END\n"
    assert (
        "its own text"
        in build("FROM BASE\nRUN <<EOF\n#!/bin/cat\nits own text\nEOF\n", "--no-cache").stdout
    )


def test_rights_of_a_step(build: Build) -> None:
    failed = build("FROM BASE\nRUN --security=insecure true\n", check=False)
    assert "security.insecure is not allowed" in failed.stderr
    failed = build("FROM BASE\nRUN --device=a.b/c=d true\n", check=False)
    assert "RUN --device: devices in a build are not supported" in failed.stderr
    failed = build("FROM BASE\nRUN --network=mine true\n", check=False)
    assert 'invalid network mode "mine"' in failed.stderr


def test_prune_between_two_steps(build: Build, pierd: EngineProcess) -> None:
    build.file(
        "Dockerfile",
        f"FROM {build.image}\nRUN echo 1 > /a\nRUN --mount=type=cache,id=gate,target=/g touch /g/here; while ! [ -e /g/go ]; do sleep 0.1; done\nRUN cat /a\n",
    )
    words = ("docker", "build", "--network", "none", "-t", "made/it", str(build.directory))
    running = subprocess.Popen(words, env=build.docker.env, stdout=subprocess.PIPE, text=True)
    try:
        gate = Path(pierd.data_root) / "build"
        wait_until(lambda: list(gate.glob("*/here")), "the step runs")
        build.docker("builder", "prune", "-af")
        build.docker("image", "prune", "-f")
        (next(iter(gate.glob("*/here"))).parent / "go").touch()
        told, _ = running.communicate(timeout=60)
    finally:
        running.kill()
    assert running.returncode == 0, told


def test_link(build: Build) -> None:
    build.file("d/f", "linked\n")
    text = "FROM BASE\nRUN echo V > /v && mkdir /real && ln -s real /to\nCOPY --link --chown=alice d /to/in/\nRUN ls -ln /to/in/f > /owner\n"
    build(text.replace("V", "1"))
    first = build.config()["RootFS"]["Layers"]
    assert (
        build.run("sh", "-c", "cat /to/in/f; [ -L /to ] || echo no link; ls /real")
        == "linked\nno link\n"
    )
    assert (
        build.run("cat", "/owner").split()[2:4]
        == build.run("id", "-u", "alice").split() + build.run("id", "-g", "alice").split()
    )
    told = build(text.replace("V", "2")).stdout
    assert "Using the layer of an earlier build" in told
    second = build.config()["RootFS"]["Layers"]
    assert first[-2] == second[-2]
    assert first[-3] != second[-3]
    build.file("d/f", "changed\n")
    told = build(text.replace("V", "3")).stdout
    assert "Using the layer" not in told
    assert build.run("cat", "/to/in/f") == "changed\n"


def test_symbolic_modes(build: Build) -> None:
    build.file("d/run", mode=0o700)
    build.file("d/text", mode=0o600)
    build("FROM BASE\nARG M=go=u-w,a+X\nCOPY --chmod=$M d /d\nADD --chmod=u+s,g-rwx d/run /s\n")
    assert build.run("stat", "-c", "%a", "/d/run", "/d/text", "/s").split() == [
        "755",
        "644",
        "4700",
    ]
    failed = build("FROM BASE\nCOPY --chmod=u+q d /d\n", check=False)
    assert "invalid chmod parameter: 'u+q'" in failed.stderr


@pytest.fixture
def git_server(pierd: EngineProcess, tmp_path: Path) -> Iterator[str]:
    """The URL of a repository that the engine can reach."""
    with serve_repository(pierd.in_network, tmp_path) as url:
        yield url


def test_add_of_a_repository(build: Build, git_server: str, tmp_path: Path) -> None:
    build(
        f"FROM BASE\nADD {git_server} /all\nADD --keep-git-dir {git_server}#v1 /kept/\n"
        f"ADD --chown=7:8 {git_server}#main:sub/deep /deep\n"
    )
    found = build.run("sh", "-c", "cat /all/sub/deep/f /kept/sub/deep/f /deep/f; ls -A /all /kept")
    assert found.split() == [
        *("two", "one", "two", "/all:", "Dockerfile", "sub", "/kept:", ".git", "Dockerfile", "sub"),
    ]
    assert build.run("stat", "-c", "%u:%g", "/deep/f") == "7:8\n"
    commit = subprocess.run(
        ("git", "-C", str(tmp_path / "work"), "rev-parse", "v1"),
        check=True,
        capture_output=True,
        text=True,
    ).stdout.strip()
    right = f"FROM BASE\nADD --checksum={commit} {git_server}#v1 /x\n"
    build(right)
    assert "Using cache" in build(right).stdout
    failed = build(f"FROM BASE\nADD --checksum={commit} {git_server} /x\n", check=False)
    assert f"expected checksum to match {commit}, got " in failed.stderr
    failed = build(f"FROM BASE\nADD {git_server}#none /x\n", check=False)
    assert "git fetch failed" in failed.stderr
    failed = build(f"FROM BASE\nCOPY {git_server} /x\n", check=False)
    assert "source can't be a git ref for COPY" in failed.stderr
    failed = build("FROM BASE\nADD --checksum=sha256:00 Dockerfile /x\n", check=False)
    assert "checksum requires HTTP(S) or git sources" in failed.stderr


def test_remote_contexts(build: Build, engine: EngineProcess, git_server: str) -> None:
    def ask(remote: str, **more: str) -> str:
        asked = {"remote": remote, "t": "made/it", "networkmode": "none", **more}
        query = urllib.parse.urlencode(asked)
        curl = ["curl", "-sS", "--unix-socket", engine.host.removeprefix("unix://")]
        url = f"http://localhost/v1.47/build?{query}"
        done = subprocess.run(
            [*curl, "-X", "POST", url], check=True, capture_output=True, text=True
        )
        return done.stdout

    assert "Successfully tagged made/it:latest" in ask(f"{git_server}#v1")
    assert build.config()["Config"]["Cmd"] is None
    assert "Cannot locate specified Dockerfile" in ask(f"{git_server}#main:sub")
    server = git_server.rpartition("/")[0]
    served = build.directory.parent / "served"
    (served / "plain").write_text(f"FROM {build.image}\nCMD plain\n")
    assert "Successfully tagged" in ask(f"{server}/plain")
    assert "Successfully tagged" in ask(f"{server}/plain", dockerfile="none")  # there is no other
    build.file("f", "packed\n")
    build.file("Dockerfile", f"FROM {build.image}\nCOPY f /f\n")
    with tarfile.open(served / "context.tar.gz", "w:gz") as tar:
        tar.add(build.directory, ".")
    assert "Successfully tagged" in ask(f"{server}/context.tar.gz")
    assert build.run("cat", "/f") == "packed\n"
    assert "with status 404" in ask(f"{server}/none.tar")
    assert "is neither a git repository nor a URL" in ask("here")


def test_checks_that_fail(build: Build) -> None:
    failed = build("# check=error=true\nFROM BASE\nCMD a\n", check=False)
    assert "lint violation found for rules: JSONArgsRecommended" in failed.stderr
    build("# check=skip=JSONArgsRecommended;error=true\nFROM BASE\nCMD a\n")
    failed = build("# check=what\nFROM BASE\n", check=False)
    assert 'invalid check option "what"' in failed.stderr


def test_empty_directories_are_copied(build: Build) -> None:
    for name in ("root/proc", "root/dev", "root/etc"):
        (build.directory / name).mkdir(parents=True)
    build.file("root/etc/hosts", "")
    build("FROM scratch\nCOPY root /\nCOPY --from=BASE / /\n")
    container = build.docker("create", "made/it", "x").stdout.strip()
    build.docker("rm", container)
    saved = build.docker.raw("save", "made/it").stdout
    names = set()
    with tarfile.open(fileobj=io.BytesIO(saved)) as outer:
        for member in outer:
            data = outer.extractfile(member) if member.isreg() else None
            if data is not None:
                with contextlib.suppress(tarfile.ReadError), tarfile.open(fileobj=data) as layer:
                    names.update(layer.getnames())
    assert {"proc", "dev", "etc/hosts"} <= names


def test_insecure_steps(tmp_path: Path) -> None:
    if os.environ.get("PIER_TEST_HOST"):
        pytest.skip("starts an engine of its own")
    config = tmp_path / "daemon.json"
    config.write_text('{"builder": {"entitlements": {"security-insecure": true}}}')
    engine = EngineProcess()
    try:
        engine.start("--config-file", str(config))
        engine.docker.raw("load", stdin=docker_archive(NAME, [root_tar()]))
        text = f"FROM {NAME}\nRUN --security=insecure grep CapEff /proc/self/status\n"
        words = ("build", "--network", "none", "--allow", "security.insecure", "-")
        told = engine.pier(*words, stdin=text).stderr
        assert int(told.partition("CapEff:")[2].split()[0], 16) & (1 << 21)  # CAP_SYS_ADMIN
        failed = engine.pier("build", "-", stdin=text, check=False)
        assert "security.insecure is not allowed" in failed.stderr
    finally:
        engine.close()
