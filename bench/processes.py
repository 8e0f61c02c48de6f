"""What processes take of memory and CPU, by /proc."""

import os
import time
from collections.abc import Iterable


def parent(pid: int) -> int:
    with open(f"/proc/{pid}/stat") as file:
        return int(file.read().rpartition(")")[2].split()[1])


def children(pid: int) -> "list[int]":
    """Return the processes below one, whatever thread started them."""
    found = []
    for thread in os.listdir(f"/proc/{pid}/task"):
        with open(f"/proc/{pid}/task/{thread}/children") as file:
            found += [int(word) for word in file.read().split()]
    return found


def pss_mb(pids: "Iterable[int]") -> float:
    """Return the proportional set size of processes together, in MB."""
    return sum(_pss(pid) for pid in pids) / 1024


def _pss(pid: int) -> int:
    with open(f"/proc/{pid}/smaps_rollup") as file:
        for line in file:
            if line.startswith("Pss:"):
                return int(line.split()[1])
    raise RuntimeError(f"no Pss of process {pid}")


def resident_mb(pid: int) -> float:
    """Return the resident set size of one process, in MB."""
    with open(f"/proc/{pid}/status") as file:
        for line in file:
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) / 1024
    raise RuntimeError(f"no VmRSS of process {pid}")


def cpu_percent(pids: "list[int]", seconds: float) -> float:
    """Return how much of one CPU processes take together, over some seconds."""
    before, start = _ticks(pids), time.monotonic()
    time.sleep(seconds)
    used = _ticks(pids) - before
    return 100 * used / os.sysconf("SC_CLK_TCK") / (time.monotonic() - start)


def _ticks(pids: "list[int]") -> int:
    total = 0
    for pid in pids:
        with open(f"/proc/{pid}/stat") as file:
            words = file.read().rpartition(")")[2].split()
            total += int(words[11]) + int(words[12])
    return total
