"""Building one small Dockerfile: cold, cached, with one change; classic, and through buildx."""

import itertools
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator

from rows import Row, take_turns
from sides import Bench, absent, timed

from busybox_image import NAME
from engine_process import Client, place

STEPS = "".join(f"RUN echo {number} > /made-{number}\n" for number in range(4))


class Context:
    """A directory with the Dockerfile, and a file that can change."""

    def __init__(self, directory: str) -> None:
        self.directory = directory
        self._count = itertools.count()
        with open(os.path.join(directory, "Dockerfile"), "w") as file:
            file.write(f"FROM {NAME}\n{STEPS}COPY file /file\n")
        self.change()

    def change(self) -> None:
        with open(os.path.join(self.directory, "file"), "w") as file:
            file.write(f"content {next(self._count)}\n")


def classic(bench: Bench) -> Iterator[Row]:
    yield from _builds(bench, "classic", {"DOCKER_BUILDKIT": "0"}, (4, 1, 0))


def buildx(bench: Bench) -> Iterator[Row]:
    plugin = os.path.join(bench.root, "usr/libexec/docker/cli-plugins/docker-buildx")
    if not os.path.exists(plugin):
        absent("docker-buildx is not in the peers' root")
        return
    with tempfile.TemporaryDirectory(prefix="pier-bench-", dir=place()) as config:
        os.mkdir(f"{config}/cli-plugins")
        shutil.copy(plugin, f"{config}/cli-plugins/docker-buildx")
        environment = {"DOCKER_BUILDKIT": "1", "DOCKER_CONFIG": config}
        yield from _builds(bench, "buildx", environment, (2, 1.2, 0))


def _builds(
    bench: Bench, how: str, environment: "dict[str, str]", goals: "tuple[float, ...]"
) -> Iterator[Row]:
    with tempfile.TemporaryDirectory(prefix="pier-bench-", dir=place()) as directory:
        context = Context(directory)
        clients = {
            side: Client(client.command, {**client.env, **environment})
            for side, client in bench.clients.items()
        }

        def sides(*flags: str, change: bool = False) -> "dict[str, Callable[[], float]]":
            def of(client: Client) -> Callable[[], float]:
                def once() -> float:
                    if change:
                        context.change()
                    words = ("build", "--network", "none", "-t", "bench/built", *flags)
                    return timed(client, *words, directory)

                return once

            return {side: of(client) for side, client in clients.items()}

        half = max(2, bench.runs * 2 // 3)
        row = Row(f"`docker build`, {how}: FROM, 4 RUN, COPY; nothing cached", goal=goals[0])
        yield take_turns(row, half, sides("--no-cache"), warm_up=2)
        row = Row("… the same, all cached", goal=goals[1])
        yield take_turns(row, bench.runs, sides())
        row = Row("… the same, one file changed", goal=goals[2])
        yield take_turns(row, bench.runs, sides(change=True))
        bench.both("rmi", "-f", "bench/built")
