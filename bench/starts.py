"""Starting, stopping and entering containers."""

import os
import shutil
import statistics
import subprocess
import tarfile
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from io import BytesIO

from rows import PODMAN, Row, spread, take_turns
from sides import Bench, absent, clock, timed

from busybox_image import NAME, root_tar
from engine_process import Client, place

NONE = ("--network", "none")
MOST_OVER_PYTHON_MS = 25


def run_none(bench: Bench) -> Iterator[Row]:
    row = Row("`docker run --rm --network none IMAGE true`", goal=8)
    command = ("run", "--rm", *NONE, NAME, "true")
    yield take_turns(row, bench.runs, bench.command(*command, podman=True))


def by_api(bench: Bench) -> Iterator[Row]:
    """What the engines alone take, and what the command line alone: it is in all other rows."""
    yield take_turns(
        Row("`docker version`, the command line almost alone"), bench.runs, bench.command("version")
    )
    yield take_turns(
        Row("create, start, wait until removed, by the API alone"),
        bench.runs,
        {side: partial(api.run, "true") for side, api in bench.apis.items()},
    )
    bench.both("run", "-d", "--name", "target", *NONE, NAME, "sleep", "3600")
    try:
        yield take_turns(
            Row("an exec with its output, by the API alone"),
            bench.runs,
            {side: partial(api.execute, "target", "true") for side, api in bench.apis.items()},
        )
    finally:
        bench.both("rm", "-f", "target")


def run_bridge(bench: Bench) -> Iterator[Row]:
    row = Row("`docker run --rm IMAGE true`, default bridge", goal=8)
    yield take_turns(row, bench.runs, bench.command("run", "--rm", NAME, "true", podman=True))


def run_published(bench: Bench) -> Iterator[Row]:
    bench.both("network", "create", "bench", podman=True)
    row = Row("… on a network of one's own, with a published port", goal=6)
    command = ("run", "--rm", "--network", "bench", "-p", "8099:80", NAME, "true")
    try:
        yield take_turns(row, bench.runs, bench.command(*command, podman=True))
    finally:
        bench.both("network", "rm", "bench", podman=True)


def run_detached(bench: Bench) -> Iterator[Row]:
    """The removal is not part of it."""
    command = (
        "run",
        "-d",
        *NONE,
        "--stop-signal",
        "KILL",
        "--name",
        "detached",
        NAME,
        "sleep",
        "99",
    )
    plain = bench.command(*command, podman=True)

    def side(name: str) -> Callable[[], float]:
        def once() -> float:
            taken = plain[name]()
            if name == PODMAN:
                assert bench.podman is not None
                bench.podman("rm", "-f", "-t", "0", "detached")
            else:
                bench.clients[name]("rm", "-f", "detached")
            return taken

        return once

    row = Row("`docker run -d`", goal=6)
    yield take_turns(row, bench.runs, {name: side(name) for name in plain})


def execute(bench: Bench) -> Iterator[Row]:
    bench.both("run", "-d", "--name", "target", *NONE, NAME, "sleep", "3600", podman=True)
    try:
        row = Row("`docker exec C true`", goal=4)
        yield take_turns(row, bench.runs, bench.command("exec", "target", "true", podman=True))
    finally:
        bench.both("rm", "-f", "target")
        if bench.podman is not None:
            bench.podman("rm", "-f", "-t", "0", "target")


def start_stop(bench: Bench) -> Iterator[Row]:
    """Of a container that is there, and ends at once when it is asked to."""
    names = ("create", "--stop-signal", "KILL", "--name", "existing", *NONE, NAME, "sleep", "3600")
    bench.both(*names)
    start, stop = (
        Row("`docker start` of a stopped container"),
        Row("`docker stop` of a running one"),
    )
    try:
        for turn in range(bench.runs + 2):
            for side, client in bench.clients.items():
                taken = timed(client, "start", "existing"), timed(client, "stop", "existing")
                if turn >= 2:
                    start.add(side, taken[0])
                    stop.add(side, taken[1])
        yield from (start, stop)
    finally:
        bench.both("rm", "-f", "existing")


def parallel(bench: Bench) -> Iterator[Row]:
    """20 of `docker run --rm`, so many at a time."""
    for width in (1, 2, 4, 8):
        goal = 8 if width == 4 else 0
        row = Row(f"20 `docker run --rm --network none`, {width} at a time", goal=goal)
        sides = {side: _crowd(client, width) for side, client in bench.clients.items()}
        yield take_turns(row, bench.few, sides, warm_up=1)


def _crowd(client: Client, width: int) -> Callable[[], float]:
    def once() -> float:
        left = list(range(20))
        failures: list[BaseException] = []

        def work() -> None:
            try:
                while left:
                    left.pop()
                    timed(client, "run", "--rm", *NONE, NAME, "true")
            except IndexError:
                pass  # another one took the last
            except RuntimeError as exc:
                failures.append(exc)

        threads = [threading.Thread(target=work) for _ in range(width)]
        start = time.perf_counter()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if failures:
            raise failures[0]
        return (time.perf_counter() - start) * 1000

    return once


def commit(bench: Bench) -> Iterator[Row]:
    bench.both(
        "run", "-d", "--name", "changed", *NONE, NAME, "sh", "-c", "echo 1 >/new; sleep 3600"
    )
    try:
        row = Row("`docker commit` of a small change")
        sides = {}
        for side, client in bench.clients.items():

            def once(client: Client = client) -> float:
                taken = timed(client, "commit", "-p=false", "changed", "bench/committed")
                client("rmi", "bench/committed")
                return taken

            sides[side] = once
        yield take_turns(row, bench.runs, sides)
    finally:
        bench.both("rm", "-f", "changed")


def floor(bench: Bench) -> Iterator[str]:
    """Yield lines about the least that namespaces cost: `unshare` and bubblewrap, no engine."""
    with tempfile.TemporaryDirectory(prefix="pier-bench-", dir=place()) as directory:
        with tarfile.open(fileobj=BytesIO(root_tar())) as tar:
            tar.extractall(directory, filter="fully_trusted")
        namespaces = ["--mount", "--uts", "--ipc", "--net", "--pid", "--cgroup", "--fork"]
        commands = {
            "unshare": ["unshare", *namespaces, "chroot", directory, "/bin/true"],
            "bwrap": ["bwrap", "--unshare-all", "--bind", directory, "/", "/bin/true"],
        }
        for name, command in commands.items():
            if shutil.which(name) is None:
                absent(f"{name} is not installed")
                continue
            try:
                values = [clock(command) for _ in range(bench.runs + 2)][2:]
            except RuntimeError as exc:
                absent(str(exc))
                continue
            version = subprocess.run(
                [name, "--version"], capture_output=True, text=True, check=False
            )
            yield f"- the floor, {version.stdout.strip()}, `true` in new namespaces: {spread(values)} ms"


def own_client(bench: Bench) -> Iterator[str]:
    """Yield lines about Pier's own client, beside docker's, both asking pierd."""
    pier, docker = bench.engine.pier, bench.pier
    python = os.path.join(os.path.dirname(bench.engine.command), "python")
    commands: list[Callable[[], float]] = [
        lambda: clock([python, "-c", "pass"]),
        lambda: timed(pier, "version"),
        lambda: timed(docker, "version"),
        lambda: timed(pier, "ps"),
        lambda: timed(docker, "ps"),
        lambda: timed(pier, "run", "--rm", *NONE, NAME, "true"),
    ]
    values = [[command() for command in commands] for _ in range(bench.runs + 2)][2:]
    bare, version, theirs, ps, their_ps, run = map(spread, map(list, zip(*values, strict=True)))
    over = statistics.median(turn[1] for turn in values) - statistics.median(t[0] for t in values)
    holds = "yes" if over <= MOST_OVER_PYTHON_MS else "**no**"
    yield f"- `python -c pass`: {bare} ms"
    yield (
        f"- `pier version`: {version} ms, {over:.1f} ms more (goal: ≤ {MOST_OVER_PYTHON_MS} ms, holds:"
        f" {holds}); `docker version`: {theirs} ms"
    )
    yield f"- `pier ps`: {ps} ms; `docker ps`: {their_ps} ms"
    yield f"- `pier run --rm --network none IMAGE true`: {run} ms"
