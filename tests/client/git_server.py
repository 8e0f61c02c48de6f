"""A git repository served by HTTP, in an engine's network: `main`, the tag v1, and sub/deep/f."""

import contextlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest


@contextlib.contextmanager
def serve_repository(in_network: Sequence[str], directory: Path) -> Iterator[str]:
    """Yield the repository's URL; `work` below the directory is a clone that it came from."""
    if not shutil.which("git"):
        pytest.skip("no git command")
    work, place = directory / "work", directory / "served"
    _make(work, place)
    command = [*in_network, sys.executable, "-u", "-m", "http.server", "0", "-b", "127.0.0.1"]
    server = subprocess.Popen(
        command, cwd=place, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    try:
        assert server.stdout is not None
        port = server.stdout.readline().split(" port ")[1].split()[0]
        yield f"http://127.0.0.1:{port}/repo.git"
    finally:
        server.kill()
        server.communicate()


def _make(work: Path, place: Path) -> None:
    (work / "sub" / "deep").mkdir(parents=True)
    (work / "sub" / "deep" / "f").write_text("one\n")
    (work / "Dockerfile").write_text("FROM scratch\nCOPY sub /sub\n")
    git(work, "init", "-q", "-b", "main")
    git(work, "add", ".")
    git(work, "commit", "-qm", "one")
    git(work, "tag", "v1")
    (work / "sub" / "deep" / "f").write_text("two\n")
    git(work, "commit", "-qam", "two")
    place.mkdir()
    git(place, "clone", "-q", "--bare", str(work), "repo.git")
    git(place / "repo.git", "update-server-info")


def git(where: Path, *words: str) -> str:
    """Run a git command without anybody's configuration."""
    environment = {**os.environ, "GIT_CONFIG_GLOBAL": "/dev/null", "GIT_CONFIG_NOSYSTEM": "1"}
    command = ("git", "-c", "user.name=x", "-c", "user.email=x@x", *words)
    done = subprocess.run(
        command, cwd=where, env=environment, check=True, capture_output=True, text=True
    )
    return done.stdout.strip()
