"""Moving images: a large one loaded, saved, imported, pushed and pulled."""

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator

import archives
import pulls
from disk import used_mb
from rows import PIER, Row, spread, take_turns
from sides import Bench, absent, clock, timed

from engine_process import Client, place, wait_until


def load(bench: Bench) -> Iterator[Row]:
    with tempfile.TemporaryDirectory(prefix="pier-bench-", dir=place()) as directory:
        made = archives.Archives(directory)
        empty = {side: used_mb(data) for side, data in bench.data_roots.items()}
        sides = {s: _load(c, made) for s, c in bench.clients.items()}
        row = Row("`docker load` of 300 MB, 11,000 files", goal=3)
        yield take_turns(row, bench.few, sides, warm_up=1)
        bench.both("load", "-i", made.image)
        yield _disk(bench, empty)
        row = Row("`docker save` of the same", goal=2)
        yield take_turns(row, bench.few, bench.command("save", archives.NAME), warm_up=1)
        bench.both("rmi", "-f", archives.NAME)
        sides = {s: _import(c, made) for s, c in bench.clients.items()}
        row = Row("`docker import` of the same", goal=3)
        yield take_turns(row, bench.few, sides, warm_up=1)


def _disk(bench: Bench, empty: dict[str, float]) -> Row:
    """What the image takes; what was removed before it is gone in the background by then."""
    row = Row("disk taken by it, loaded", unit="MB")
    trash = os.path.join(bench.data_roots[PIER], "trash")
    wait_until(lambda: not os.listdir(trash), "the trash is empty", seconds=60)
    for side, data in bench.data_roots.items():
        row.add(side, used_mb(data) - empty[side])
    return row


def _remove(client: Client) -> Callable[[], object]:
    return lambda: client("rmi", "-f", archives.NAME, timeout=300)


def _load(client: Client, made: archives.Archives) -> Callable[[], float]:
    return archives.without(_remove(client), lambda: timed(client, "load", "-i", made.image))


def _import(client: Client, made: archives.Archives) -> Callable[[], float]:
    words = ("import", made.root, archives.NAME)
    return archives.without(_remove(client), lambda: timed(client, *words))


def registry(bench: Bench) -> Iterator[Row]:
    """Debian's docker-registry beside each engine."""
    beside = ["nsenter", "--net", "--target", str(bench.peer.pid)]
    with (
        tempfile.TemporaryDirectory(prefix="pier-bench-", dir=place()) as directory,
        pulls.registry(bench.engine.in_network, bench.pier),
        pulls.registry(beside, bench.dockerd),
    ):
        made = archives.Archives(directory)
        row = Row("the first `docker push` of 300 MB, 11,000 files", goal=3)
        sides = {s: pulls.push_side(c, timed, made) for s, c in bench.clients.items()}
        yield take_turns(row, bench.few, sides, warm_up=1)
        row = Row("… again, to a registry that has nothing of it")
        sides = {s: pulls.push_again_side(c, timed) for s, c in bench.clients.items()}
        yield take_turns(row, bench.few, sides, warm_up=1)
        row = Row("`docker pull` of the same", goal=3)
        yield take_turns(row, bench.few, _pulls(bench, made.image, archives.NAME), warm_up=1)
        _note_skopeo(bench, directory)
        bench.both("pull", pulls.NAME)
        row = Row("… again, nothing has changed", most=100)
        yield take_turns(row, bench.runs, bench.command("pull", pulls.NAME))
        layered = os.path.join(directory, "layered.tar")
        archives.layered_image(layered)
        row = Row(f"`docker pull` of as much in {archives.LAYERS} layers", goal=3)
        yield take_turns(row, bench.few, _pulls(bench, layered, archives.LAYERED), warm_up=1)


def _note_skopeo(bench: Bench, directory: str) -> None:
    """What skopeo takes to fetch the same into a directory, unpacked nowhere."""
    skopeo = shutil.which("skopeo")
    if skopeo is None:
        absent("skopeo is not installed")
        return
    target = os.path.join(directory, "skopeo")
    flags = ("--insecure-policy", "copy", "-q", "--src-tls-verify=false")
    values = []
    for _ in range(bench.few):
        shutil.rmtree(target, ignore_errors=True)
        os.mkdir(target)
        words = [
            *bench.engine.in_network,
            skopeo,
            *flags,
            f"docker://{pulls.NAME}",
            f"dir:{target}",
        ]
        values.append(clock(words))
    shutil.rmtree(target)
    bench.notes.append(f"- skopeo, the same into a directory, not unpacked: {spread(values)} ms")


def _pulls(bench: Bench, archive: str, name: str) -> dict[str, Callable[[], float]]:
    for client in bench.clients.values():
        pulls.remove(client)
    return {s: pulls.pull_side(c, timed, archive, name) for s, c in bench.clients.items()}
