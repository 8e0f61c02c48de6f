"""scheduler, ioPriority, execCPUAffinity, memoryPolicy and personality: how the kernel treats a process.

config.md (Process), config-linux.md (Memory policy, Personality). Each `parse_…` checks what
config.json says and returns what applies it, or None: whoever sets a process up calls it while the
host's files are still there, and the result at the last moment at which it still has the rights.
Loaded only for a process that has one of them. Raises InvalidParameter in runc's words.
"""

from __future__ import annotations

import errno
import os

from pier.errors import InvalidParameter, StartFailed
from pier.kernel import sched
from pier.kernel.process import PER_LINUX, PER_LINUX32, personality
from pier.runtime.spec import IOPriority, Linux, MemoryPolicy, Personality, Process, Scheduler

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    Step = Callable[[], None]

DOMAINS = {"LINUX": PER_LINUX, "LINUX32": PER_LINUX32}
MAX_IO_PRIORITY = 7
MAX_CPUS = 8192


def steps(process: Process, linux: Linux) -> list[Step]:
    """Return what applies all that is there but the affinity, which has its own times."""
    found = (
        parse_scheduler(process.get("scheduler"), linux),
        parse_io_priority(process.get("ioPriority")),
        parse_memory_policy(linux.get("memoryPolicy")),
        parse_personality(linux.get("personality")),
    )
    return [step for step in found if step is not None]


def parse_scheduler(wanted: Scheduler | None, linux: Linux) -> Step | None:
    """process.scheduler; what may go with what is sched_setattr(2)'s matter, and runc's."""
    if wanted is None:
        return None
    attr = _scheduler(wanted)
    cpus = linux.get("resources", {}).get("cpu", {}).get("cpus")

    def apply() -> None:
        try:
            sched.sched_setattr(attr)
        except OSError as exc:
            text = f"error setting scheduler: {_text(exc)}"
            if cpus and exc.errno == errno.EPERM:
                text = f"process scheduler can't be used together with AllowedCPUs: {_text(exc)}"
            raise StartFailed(text, step="scheduler", errno=exc.errno or 0) from exc

    return apply


def _scheduler(wanted: Scheduler) -> sched.SchedAttr:
    policy = wanted.get("policy")
    if not policy:
        raise InvalidParameter("scheduler policy is required")
    if policy not in sched.POLICIES:
        raise InvalidParameter(f"invalid scheduler policy: {policy}")
    nice, priority = wanted.get("nice", 0), wanted.get("priority", 0)
    if not -20 <= nice <= 19:  # nice(2)
        raise InvalidParameter(f"invalid scheduler.nice: {nice}")
    if priority and policy not in ("SCHED_FIFO", "SCHED_RR"):
        text = "scheduler.priority can only be specified for SchedFIFO or SchedRR policy"
        raise InvalidParameter(text)
    times = [wanted.get(key, 0) for key in ("runtime", "deadline", "period")]
    if policy != "SCHED_DEADLINE" and any(times):
        text = "scheduler runtime/deadline/period can only be specified for SchedDeadline policy"
        raise InvalidParameter(text)
    flags = _bits(wanted.get("flags", []), sched.FLAGS, "scheduler flag")
    return sched.SchedAttr(0, sched.POLICIES[policy], flags, nice, priority, *times, 0, 0)


def parse_io_priority(wanted: IOPriority | None) -> Step | None:
    """process.ioPriority."""
    if wanted is None:
        return None
    io_class, priority = wanted.get("class", ""), wanted.get("priority", 0)
    if not 0 <= priority <= MAX_IO_PRIORITY:
        raise InvalidParameter(f"invalid ioPriority.Priority: {priority}")
    if io_class not in sched.IOPRIO_CLASSES:
        raise InvalidParameter(f"invalid ioPriority.Class: {io_class}")

    def apply() -> None:
        try:
            sched.ioprio_set(sched.IOPRIO_CLASSES[io_class], priority)
        except OSError as exc:
            text = f"failed to set io priority: {_text(exc)}"
            raise StartFailed(text, step="ioPriority", errno=exc.errno or 0) from exc

    return apply


def parse_memory_policy(wanted: MemoryPolicy | None) -> Step | None:
    """linux.memoryPolicy; an empty object asks for nothing."""
    if not wanted:
        return None
    name = wanted.get("mode", "")
    if name not in sched.MEMORY_MODES:
        raise InvalidParameter(f"invalid memory policy mode {name!r}")
    mode = sched.MEMORY_MODES[name]
    mode |= _bits(wanted.get("flags", []), sched.MEMORY_FLAGS, "memory policy flag")
    try:
        nodes = sum(1 << node for node in set(numbers(wanted.get("nodes", ""), sched.MAX_NODES)))
    except ValueError as exc:
        raise InvalidParameter(f"invalid memory policy node: {exc}") from None

    def apply() -> None:
        try:
            sched.set_mempolicy(mode, nodes)
        except OSError as exc:
            text = f"set_mempolicy: {_text(exc)}"
            raise StartFailed(text, step="memoryPolicy", errno=exc.errno or 0) from exc

    return apply


def parse_personality(wanted: Personality | None) -> Step | None:
    """linux.personality: LINUX or LINUX32, personality(2); the specification defines no flags."""
    if wanted is None:
        return None
    if wanted.get("flags"):
        raise InvalidParameter(f"unsupported personality flag {wanted['flags'][0]!r}")
    domain = wanted.get("domain", "")
    if domain not in DOMAINS:
        raise InvalidParameter(f"invalid personality domain {domain!r}")
    return lambda: personality(DOMAINS[domain])


def parse_affinity(process: Process) -> tuple[set[int], set[int]]:
    """Return process.execCPUAffinity: the CPUs before the cgroup is joined, and after it."""
    wanted = process.get("execCPUAffinity", {})
    try:
        initial = set(numbers(wanted.get("initial", ""), MAX_CPUS))
        final = set(numbers(wanted.get("final", ""), MAX_CPUS))
    except ValueError as exc:
        raise InvalidParameter(f"bad CPUAffinity: {exc}") from None
    return initial, final


def set_affinity(cpus: set[int]) -> None:
    """sched_setaffinity(2) of this process; no CPUs leave it as it is."""
    if not cpus:
        return
    try:
        os.sched_setaffinity(0, cpus)
    except OSError as exc:
        text = f"error setting CPU affinity: {_text(exc)}"
        raise StartFailed(text, step="execCPUAffinity", errno=exc.errno or 0) from exc


def numbers(text: str, end: int) -> list[int]:
    """Return the numbers of a list such as "0-2,4", each below `end`. Raises ValueError."""
    found: list[int] = []
    for item in filter(None, (part.strip() for part in text.split(","))):
        first, dash, last = item.partition("-")
        if not first.strip().isdecimal() or (dash and not last.strip().isdecimal()):
            raise ValueError(f"{item!r} is no number or range")
        low, high = int(first), int(last if dash else first)
        if low > high or high >= end:
            raise ValueError(f"{item!r} is out of range")
        found.extend(range(low, high + 1))
    return found


def _bits(names: list[str], known: dict[str, int], what: str) -> int:
    bits = 0
    for name in names:
        if name not in known:
            raise InvalidParameter(f"invalid {what} {name!r}")
        bits |= known[name]
    return bits


def _text(exc: OSError) -> str:
    text = os.strerror(exc.errno or 0)
    return text[:1].lower() + text[1:]
