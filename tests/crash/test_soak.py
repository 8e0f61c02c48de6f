"""Containers made, run and removed, over and over: pierd and the zygote do not grow with them.

PIER_SOAK_CYCLES says how often (400); a release is held for 10,000.
"""

import http.client
import json
import os
import socket
import threading
from typing import Any

from test_kills import children

from busybox_image import NAME
from engine_process import EngineProcess

CYCLES = int(os.environ.get("PIER_SOAK_CYCLES", "400"))
WORKERS = 3
# After this share of the cycles caches are warm: what comes then is growth.
WARM = 0.25
# The allocator's own noise, and what a leak of half a kilobyte a cycle exceeds at 10,000.
ALLOWED_BYTES = 3 << 20


class Connection(http.client.HTTPConnection):
    """A connection to the engine that is kept, as clients' libraries do."""

    def __init__(self, path: str) -> None:
        super().__init__("engine", timeout=120)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(120)
        self.sock.connect(self._path)

    def ask(self, method: str, path: str, body: Any = None) -> Any:
        headers = {"Content-Type": "application/json"} if body is not None else {}
        text = json.dumps(body) if body is not None else None
        self.request(method, f"/v1.51{path}", text, headers)
        response = self.getresponse()
        content = response.read()
        assert response.status < 300, (method, path, response.status, content)
        return json.loads(content) if content else None


class Worker(threading.Thread):
    """Runs cycles until all are done; what went wrong is kept."""

    def __init__(self, engine: EngineProcess, turns: int) -> None:
        super().__init__()
        self._connection = Connection(engine.socket)
        self._turns = turns
        self.failure: BaseException | None = None

    def run(self) -> None:
        try:
            for _ in range(self._turns):
                self._cycle()
        except BaseException as exc:  # noqa: BLE001 - the test tells it
            self.failure = exc
        finally:
            self._connection.close()

    def _cycle(self) -> None:
        ask = self._connection.ask
        config = {"Image": NAME, "Cmd": ["sh", "-c", "echo out; exit 3"], "Volumes": {"/v": {}}}
        container_id = ask("POST", "/containers/create", config)["Id"]
        ask("POST", f"/containers/{container_id}/start")
        assert ask("POST", f"/containers/{container_id}/wait")["StatusCode"] == 3
        ask("GET", f"/containers/{container_id}/json")
        ask("DELETE", f"/containers/{container_id}?v=1")


def run(engine: EngineProcess, cycles: int) -> None:
    workers = [Worker(engine, cycles // WORKERS) for _ in range(WORKERS)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    for worker in workers:
        if worker.failure is not None:
            raise worker.failure


def resident(pid: int) -> int:
    """A process's resident memory in bytes, proc_pid_statm(5)."""
    with open(f"/proc/{pid}/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def held(engine: EngineProcess) -> dict[str, int]:
    """What grows when something leaks: memory, descriptors and threads of pierd, its zygote's memory."""
    zygote = min(children(engine.pid))
    return {
        "pierd": resident(engine.pid),
        "zygote": resident(zygote),
        "descriptors": len(os.listdir(f"/proc/{engine.pid}/fd")),
        "threads": len(os.listdir(f"/proc/{engine.pid}/task")),
    }


def test_memory_is_flat(engine: EngineProcess) -> None:
    run(engine, int(CYCLES * WARM))
    before = held(engine)
    run(engine, int(CYCLES * (1 - WARM)))
    after = held(engine)
    print(f"{CYCLES} cycles: {before} -> {after}")
    for process in ("pierd", "zygote"):
        assert after[process] - before[process] < ALLOWED_BYTES, (before, after)
    # Spare namespaces and pooled directories come and go by a few.
    assert after["descriptors"] - before["descriptors"] < 16, (before, after)
    assert after["threads"] - before["threads"] < 8, (before, after)
    assert engine.docker("ps", "-aq").stdout == ""
    assert engine.docker("volume", "ls", "-q").stdout == ""
