"""How each cost grows: with running and stopped containers, layers, images and networks.

Yields `Curve`s, which plots.py draws, and rows at the points that other issues name.
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from processes import children, cpu_percent, parent, pss_mb, resident_mb
from rows import DOCKERD, PIER, Row
from sides import Api, Bench, timed

from busybox_image import NAME, docker_archive, layer_tar, root_tar
from engine_process import Client, wait_until

RUNNING, STOPPED = (10, 100, 500), (10, 100, 500, 1000)
ATTACHED = (1, 50, 100, 200)
LAYERS, IMAGES, NETWORKS = (5, 25, 50, 100), (10, 100, 300), (1, 10, 25)
SAMPLES = 5
IDLE_S = 8  # pierd gives memory back after 5 quiet seconds
RUN = ("run", "--rm", "--network", "none", NAME, "true")


@dataclass
class Curve:
    """`points` by side: (how many of `along`, median of what was measured in `unit`)."""

    name: str
    along: str
    unit: str = "ms"
    points: "dict[str, list[tuple[int, float]]]" = field(default_factory=dict)

    def add(self, side: str, count: int, value: float) -> None:
        self.points.setdefault(side, []).append((count, value))


def fresh(bench: Bench) -> Iterator[Row]:
    """The memory of an engine that has one image; without the zygote, and without containerd."""
    time.sleep(IDLE_S)
    row = Row("memory of an idle pierd, dockerd, resident", unit="MB", most=60)
    row.add(PIER, resident_mb(bench.engine.pid))
    row.add(DOCKERD, resident_mb(bench.peer.daemon))
    yield row


def running(bench: Bench, points: "tuple[int, ...]" = RUNNING) -> Iterator["Curve | Row"]:
    """Memory, `ps`, `stats`, a start and the engine's idle CPU beside containers that sleep."""
    each = Curve("PSS for each running container", "running containers", "MB")
    engine = Curve("PSS of the engine", "running containers", "MB")
    ps = Curve("`docker ps`", "running containers")
    start = Curve("`docker run --rm --network none`", "running containers")
    idle = Curve("CPU of the idle engine", "running containers", "%")
    rows = [
        Row("PSS of a keeper, a containerd-shim, of 10", unit="MB", most=2),
        Row("`docker stats --no-stream` of 50 at the least", goal=2),
        Row("the engine starts again beside 100 running containers"),
    ]
    names: list[str] = []
    for count in points:
        new = [f"run{n}" for n in range(len(names), count)]
        names += new
        for side, client in bench.clients.items():
            bench.apis[side].make(new, start=True)
            helpers = _helpers(client, names)
            each.add(side, count, pss_mb(helpers) / count)
            if count == points[0]:
                rows[0].add(side, pss_mb(helpers) / count)
            engine.add(side, count, pss_mb(_engine(bench, side)))
            time.sleep(2)
            idle.add(side, count, cpu_percent(_engine(bench, side), 5))
            if count == 100:
                for _ in range(SAMPLES):
                    rows[1].add(side, timed(client, "stats", "--no-stream"))
                    rows[2].add(side, _again(bench, side))
        _sample(bench, ps, count, "ps")
        _sample(bench, start, count, *RUN)
    for api in bench.apis.values():
        api.remove(names)
    yield from (each, engine, idle, ps, start)
    yield from rows


def stopped(bench: Bench) -> Iterator["Curve | Row"]:
    """`ps -a` with so many containers; at 500, 50 of them running, also as a row with a goal."""
    curve = Curve("`docker ps -a`", "containers")
    row = Row("`docker ps` with 500 containers, 50 running", goal=1)
    names: list[str] = []
    lively = [f"alive{n}" for n in range(50)]
    for count in STOPPED:
        new = [f"made{n}" for n in range(len(names), count)]
        names += new
        for api in bench.apis.values():
            api.make(new, start=False)
        _sample(bench, curve, count, "ps", "-a", "-q")
        if count == 500:
            for side, client in bench.clients.items():
                bench.apis[side].make(lively, start=True)
                for _ in range(SAMPLES + 1):
                    row.add(side, timed(client, "ps"))
                del row.values[side][0]
                bench.apis[side].remove(lively)
    for api in bench.apis.values():
        api.remove(names)
    yield curve
    yield row


def layers(bench: Bench) -> Iterator[Curve]:
    curve = Curve("`docker run --rm --network none`", "layers")
    for count in LAYERS:
        name = f"bench/layers:{count}"
        more = [layer_tar({f"made/file{n}": b"%d" % n}) for n in range(count - 1)]
        archive = docker_archive(name, [root_tar(), *more])
        for client in bench.clients.values():
            client.raw("load", stdin=archive)
        _sample(bench, curve, count, *RUN[:-2], name, "true")
        bench.both("rmi", "-f", name)
    yield curve


def images(bench: Bench) -> Iterator[Curve]:
    curve = Curve("`docker images`", "images")
    made = 0
    for count in IMAGES:
        for number in range(made, count):
            config = {"Env": [f"NUMBER={number}"]}
            archive = docker_archive(f"bench/many:{number}", [SMALL], config)
            for client in bench.clients.values():
                client.raw("load", stdin=archive)
        made = count
        _sample(bench, curve, count, "images", "-q")
    for first in range(0, made, 100):
        bench.both("rmi", *(f"bench/many:{n}" for n in range(first, min(made, first + 100))))
    yield curve


SMALL = layer_tar({"file": b"content"})


def networks(bench: Bench) -> Iterator[Curve]:
    curve = Curve("`docker run --rm`, default bridge", "networks")
    made: list[str] = []
    for count in NETWORKS:
        new = [f"bench{n}" for n in range(len(made), count)]
        for name in new:
            bench.both("network", "create", name)
        made += new
        _sample(bench, curve, count, "run", "--rm", NAME, "true")
    bench.both("network", "rm", *made)
    yield curve


def attached(bench: Bench) -> Iterator["Curve | Row"]:
    """A start on a bridge that many are on, and how much longer it takes beside 200 than beside one."""
    curve = Curve("`docker run --rm`, default bridge", "containers on the bridge")
    row = Row("a start on a bridge with 200 containers, in times of one with 1", unit="x", most=1.3)
    names: list[str] = []
    for count in ATTACHED:
        new = [f"port{n}" for n in range(len(names), count)]
        names += new
        for api in bench.apis.values():
            api.make(new, start=True, network="bridge")
        _sample(bench, curve, count, "run", "--rm", NAME, "true")
    for side, points in curve.points.items():
        row.add(side, points[-1][1] / points[0][1])
    for api in bench.apis.values():
        api.remove(names)
    yield curve
    yield row


def _sample(bench: Bench, curve: Curve, count: int, *words: str) -> None:
    """Measure a command line on both, turn by turn."""
    values: dict[str, list[float]] = {}
    for _ in range(SAMPLES + 1):
        for side, measure in bench.command(*words).items():
            values.setdefault(side, []).append(measure())
    for side, taken in values.items():
        middle = sorted(taken[1:])[SAMPLES // 2]
        curve.add(side, count, middle)


def _helpers(client: Client, names: "list[str]") -> "list[int]":
    """Return the processes that stay beside containers: the keepers, the shims."""
    pids: list[int] = []
    for first in range(0, len(names), 100):
        done = client("inspect", "-f", "{{.State.Pid}}", *names[first : first + 100])
        pids += [parent(int(word)) for word in done.stdout.split()]
    return pids


def _engine(bench: Bench, side: str) -> "list[int]":
    """Return pierd with its zygote, or dockerd with its containerd."""
    if side == DOCKERD:
        return [bench.peer.daemon, *children(bench.peer.daemon)]
    return [bench.engine.pid, *children(bench.engine.pid)]


def _again(bench: Bench, side: str) -> float:
    """Stop an engine, start it, and wait until it lists its containers; the stop is not timed."""
    api = Api(bench.engine.host if side == PIER else bench.peer.host)
    launch: Callable[[], None]
    if side == PIER:
        bench.engine.stop()
        launch = bench.engine.start
    else:
        bench.peer.stop()
        launch = bench.peer.start
    begun = time.perf_counter()
    launch()
    wait_until(lambda: len(api("GET", "/containers/json")) >= 100, "all are listed", seconds=60)
    return (time.perf_counter() - begun) * 1000
