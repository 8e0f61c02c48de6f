"""SIGKILL at random moments, in a loop, while clients work: nothing acknowledged is lost.

PIER_CRASH_SECONDS sets how long (30), PIER_CRASH_SEED repeats a run's choices (not its timing).
"""

import json
import os
import random
import signal
import threading
import time

from test_kills import children, parent

from busybox_image import NAME
from engine_process import EngineProcess

SECONDS = float(os.environ.get("PIER_CRASH_SECONDS", "30"))
SEED = int(os.environ.get("PIER_CRASH_SEED", "0")) or random.SystemRandom().randrange(1, 1 << 30)


class Worker(threading.Thread):
    """A client that makes, runs and removes containers, and remembers what it was promised."""

    def __init__(self, engine: EngineProcess, number: int) -> None:
        super().__init__(name=f"worker-{number}")
        self.engine, self.number = engine, number
        self.promised: set[str] = set()
        self.doubtful: set[str] = set()
        self.wrong: list[str] = []
        self.finished = 0
        self.stopping = threading.Event()

    def run(self) -> None:
        turn = 0
        while not self.stopping.is_set():
            turn += 1
            self.one_container(f"w{self.number}-{turn}")

    def one_container(self, name: str) -> None:
        docker = self.engine.docker
        self.doubtful.add(name)
        # It comes back for its exit code only when someone asks: `docker wait` below.
        made = docker("create", "--name", name, NAME, "sh", "-c", "echo hi; exit 3", check=False)
        if made.returncode:
            return
        self.promised.add(name)
        self.doubtful.discard(name)
        if docker("start", name, check=False).returncode == 0:
            waited = docker("wait", name, check=False)
            # 137 is the truth when its keeper was killed in time.
            if waited.returncode == 0 and waited.stdout not in ("3\n", "137\n"):
                self.wrong.append(f"{name} ended with {waited.stdout!r}")
        self.finished += 1
        if self.finished % 3:
            self.doubtful.add(name)
            self.promised.discard(name)
            if docker("rm", name, check=False).returncode == 0:
                self.doubtful.discard(name)


def victims(engine: EngineProcess, kind: str) -> list[int]:
    if kind == "pierd":
        return [engine.pid]
    if kind == "zygote":
        return children(engine.pid)
    shown = engine.docker("ps", "-q", "--no-trunc", check=False).stdout.split()
    if not shown:
        return []
    found = engine.docker("inspect", "--format", "{{.State.Pid}}", *shown, check=False).stdout
    return [keeper for pid in found.split() if pid != "0" and (keeper := parent(int(pid))) > 1]


def kill_one(engine: EngineProcess, chance: random.Random) -> None:
    kind = chance.choice(["pierd", "pierd", "zygote", "keeper"])
    for pid in victims(engine, kind)[:1]:
        if kind == "pierd":
            engine.kill()
            engine.start()
        elif parent(pid):
            os.kill(pid, signal.SIGKILL)


def test_random_kills(engine):
    print(f"PIER_CRASH_SEED={SEED}")
    chance = random.Random(SEED)
    engine.docker("run", "-d", "--name", "witness", NAME, "sleep", "600")
    engine.docker("run", "-d", "--restart", "always", "--name", "phoenix", NAME, "sleep", "600")
    workers = [Worker(engine, number) for number in range(3)]
    for worker in workers:
        worker.start()
    try:
        end = time.monotonic() + SECONDS
        while time.monotonic() < end:
            time.sleep(chance.uniform(0.0, 0.6))
            kill_one(engine, chance)
    finally:
        for worker in workers:
            worker.stopping.set()
        for worker in workers:
            worker.join()
    shown = set(engine.docker("ps", "-a", "--format", "{{.Names}}").stdout.split())
    for worker in workers:
        assert not worker.wrong
        assert worker.promised <= shown, "an acknowledged container was lost"
    doubtful = set().union(*(worker.doubtful for worker in workers))
    promised = set().union(*(worker.promised for worker in workers))
    assert shown <= promised | doubtful | {"witness", "phoenix"}
    assert sum(worker.finished for worker in workers) > 0
    check_states(engine)


def check_states(engine: EngineProcess) -> None:
    """What the engine says of each container agrees with what the kernel says."""
    for name in engine.docker("ps", "-a", "--format", "{{.Names}}").stdout.split():
        found = json.loads(engine.docker("inspect", "--format", "{{json .State}}", name).stdout)
        if found["Status"] == "running":
            assert parent(found["Pid"]), f"{name} is said to run, and does not"
        else:
            assert found["Pid"] == 0
    engine.docker("start", "witness", check=False)
    assert engine.docker("exec", "witness", "echo", "alive").stdout == "alive\n"
