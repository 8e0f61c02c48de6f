"""pier-runtime beside runc and crun, in one run: the same bundle, turn by turn.

    .venv/bin/python bench/runtime.py [--runs 15]

Two ways of Pier's: its command line from cold, `pier-runtime run`, and the warm path that pierd
takes, a bundle given to the zygote: created, started, finished and deleted, its files written and
removed included. runc and crun come out of Debian sid, see dockerd.find_root. All command lines are
started by the same shell in the same namespaces, without the v2 hierarchy of a hybrid host, which
crun refuses. Ratios are what counts.
"""

import argparse
import asyncio
import io
import json
import os
import platform
import statistics
import sys
import tarfile
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
for _room in ("tests", "tests/client"):
    sys.path.insert(0, os.path.join(ROOT, _room))

from dockerd import find_root  # noqa: E402
from engines_room import EnginesRoom  # noqa: E402 - found by the lines above

from busybox_image import root_tar  # noqa: E402
from pier.engine.keepers import ExitRecord, Keepers  # noqa: E402
from pier.kernel.cgroups import Cgroup, detect  # noqa: E402
from pier.runtime.cli.template import template  # noqa: E402

WARM_UP = 3
PATIENCE_S = 20.0
# Prints how many microseconds a command took; what it says is shown only when it fails.
TIMED = """
cd "$1"; shift
s=$EPOCHREALTIME
"$@" </dev/null >/tmp/said 2>&1 || { cat /tmp/said >&2; exit 1; }
e=$EPOCHREALTIME
echo $(( ${e/./} - ${s/./} ))
"""


class Ended:
    """Hears of one container's end."""

    def __init__(self) -> None:
        self.over = asyncio.Event()
        self.code = -1

    def exited(self, record: ExitRecord) -> None:
        self.code = record.code

    def exec_exited(self, exec_id: str, code: int) -> None: ...
    def oom(self) -> None: ...
    def detached(self, exec_id: str | None) -> None: ...
    def traced(self, packet: dict[str, Any]) -> None: ...

    def gone(self) -> None:
        self.over.set()


class Warm:
    """The zygote, as pierd drives it."""

    def __init__(self, directory: str, spec: dict[str, Any]) -> None:
        self.spec = json.dumps(spec)
        self.keepers = Keepers(directory)
        self.loop = asyncio.new_event_loop()
        self.count = 0
        self.loop.run_until_complete(self.keepers.open())

    def run(self) -> float:
        """One container from its files to nothing left; milliseconds."""
        self.count += 1
        return self.loop.run_until_complete(asyncio.wait_for(self._run(), PATIENCE_S))

    async def _run(self) -> float:
        name = f"warm{self.count}"
        cgroup = f"/pier-bench/{name}"
        config: dict[str, Any] = {
            "id": name, "overlay": None, "cgroup": cgroup, "user": "", "groups": [],
            "stdin_open": False, "stdin_once": False,
            "log": {
                "path": "",
                "max_size": 0,
                "max_file": 1,
                "compress": False,
                "attributes": {},
                "remote": None,
            },
            "seccomp_bpf": None, "init": False,
        }  # fmt: skip
        start = time.perf_counter()
        _write(self.keepers.bundle(name), {"config": self.spec, "keeper": json.dumps(config)})
        ended = Ended()
        keeper = await self.keepers.spawn(name, ended)
        await keeper.start()
        await ended.over.wait()
        if not self.keepers.clean_nowait(name, cgroup):
            self.keepers.clean(name, cgroup)
        taken = (time.perf_counter() - start) * 1000
        if ended.code != 0:
            raise RuntimeError(f"the program ended with {ended.code}")
        return taken

    def close(self) -> None:
        self.loop.run_until_complete(self.keepers.close())
        self.loop.close()
        Cgroup(detect(), "/pier-bench").remove()


def _write(directory: str, documents: dict[str, str]) -> None:
    os.mkdir(directory)
    for name, text in documents.items():
        with open(f"{directory}/{name}.json", "w") as file:
            file.write(text)


def bundle(directory: str) -> dict[str, Any]:
    """Write a bundle whose program is `true`; return its config.json."""
    with tarfile.open(fileobj=io.BytesIO(root_tar())) as tar:
        tar.extractall(f"{directory}/rootfs", filter="fully_trusted")
    spec = template()
    spec["process"].update(terminal=False, args=["true"], env=["PATH=/bin"])
    spec["root"]["path"] = f"{directory}/rootfs"
    with open(f"{directory}/config.json", "w") as file:
        json.dump(spec, file)
    return spec


def measure(runs: int) -> dict[str, list[float]]:
    """Return milliseconds by what was run."""
    with ExitStack() as stack:
        room = EnginesRoom(find_root(os.path.join(ROOT, ".cache")))
        stack.callback(room.close)
        room("umount", "/sys/fs/cgroup/unified", ok=False)
        spec = bundle(room.work)
        # In memory, as /run is on a machine with systemd, and in the room for the others.
        directory = tempfile.TemporaryDirectory(prefix="pier-bench-", dir="/dev/shm")
        warm = Warm(stack.enter_context(directory), spec)
        stack.callback(warm.close)
        binaries = {"pier-runtime run": room.runtime, "runc run": "runc", "crun run": "crun"}
        taken: dict[str, list[float]] = {"the warm path": [], **{name: [] for name in binaries}}
        for turn in range(WARM_UP + runs):
            once = {"the warm path": warm.run()}
            for name, binary in binaries.items():
                done = room("bash", "-c", TIMED, "timed", room.work, binary, "run", f"b{turn}")
                once[name] = int(done.stdout) / 1000
            for name, value in once.items():
                if turn >= WARM_UP:
                    taken[name].append(value)
    return taken


def table(taken: dict[str, list[float]]) -> Iterator[str]:
    """Yield the lines of the table, and of the ratios that the project asks for."""
    yield "| what | median ms | from | to | runs |"
    yield "| --- | --- | --- | --- | --- |"
    for name, values in taken.items():
        cells = (statistics.median(values), min(values), max(values))
        yield f"| {name} | " + " | ".join(f"{cell:.1f}" for cell in cells) + f" | {len(values)} |"
    medians = {name: statistics.median(values) for name, values in taken.items()}
    warm, runc = medians["the warm path"], medians["runc run"]
    yield ""
    cold = medians["pier-runtime run"] / runc
    yield _ratio("crun / warm path", medians["crun run"] / warm, "≥ 1", least=1)
    yield _ratio("runc / warm path", runc / warm, "≥ 3", least=3)
    yield _ratio("pier-runtime from cold / runc", cold, "≤ 2.5", most=2.5)


def _ratio(name: str, value: float, goal: str, *, least: float = 0, most: float = 1e9) -> str:
    holds = "yes" if least <= value <= most else "**no**"
    return f"- {name}: {value:.2f} (goal: {goal}, holds: {holds})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--runs", type=int, default=15)
    options = parser.parse_args()
    before = os.getloadavg()[0]
    taken = measure(options.runs)
    print(f"Linux {platform.release()}, {os.cpu_count()} CPUs, Python {platform.python_version()},")
    print(f"load average {before:.2f} before, {os.getloadavg()[0]:.2f} after.\n")
    print("\n".join(table(taken)))


if __name__ == "__main__":
    main()
