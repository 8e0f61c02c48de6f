"""Capability sets of real processes."""

import os

from pier.kernel import capabilities as caps
from pier.kernel.capabilities import mask

KILL, CHOWN = mask(["CAP_KILL"]), mask(["CAP_CHOWN"])


def in_child(action) -> str:
    """Run `action` in a forked child and return what it wrote, "" when it failed."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.write(writer, str(action()).encode())
        finally:
            os._exit(0)
    os.close(writer)
    with open(reader) as file:
        answer = file.read()
    os.waitpid(pid, 0)
    return answer


def status(field):
    with open("/proc/self/status") as file:
        lines = dict(line.split(":\t", 1) for line in file if ":\t" in line)
    return int(lines[field], 16)


def test_reading_agrees_with_proc():
    effective, permitted, inheritable = caps.capget()
    assert (effective, permitted, inheritable) == (
        status("CapEff"),
        status("CapPrm"),
        status("CapInh"),
    )
    assert caps.bounding() == status("CapBnd")
    assert caps.ambient() == status("CapAmb")


def test_drop_bounding():
    def child():
        caps.drop_bounding(KILL | CHOWN)
        return status("CapBnd") == KILL | CHOWN == caps.bounding()

    assert in_child(child) == "True"


def test_sets_across_the_change_of_user():
    def child():
        caps.drop_bounding(KILL | CHOWN)
        caps.set_keepcaps(True)
        os.setresuid(65534, 65534, 65534)
        caps.set_keepcaps(False)
        caps.capset(KILL, KILL | CHOWN, KILL)
        caps.raise_ambient(KILL)
        return [status(field) for field in ("CapEff", "CapPrm", "CapInh", "CapAmb")]

    assert in_child(child) == str([KILL, KILL | CHOWN, KILL, KILL])


def test_ambient_is_made_exact():
    def child():
        caps.capset(KILL | CHOWN, KILL | CHOWN, KILL | CHOWN)
        caps.raise_ambient(KILL | CHOWN)
        caps.raise_ambient(CHOWN)
        return status("CapAmb") == CHOWN == caps.ambient()

    assert in_child(child) == "True"


def test_what_is_not_permitted_is_refused():
    def child():
        caps.capset(KILL, KILL, 0)
        try:
            caps.capset(KILL | CHOWN, KILL | CHOWN, 0)
        except PermissionError as exc:
            return "capset(" in str(exc)
        return "no error"

    assert in_child(child) == "True"


def test_high_bits():
    def child():
        high = caps.permitted() & ~0xFFFFFFFF
        caps.capset(high, high, 0)
        return high != 0 and caps.capget() == (high, high, 0)

    assert in_child(child) == "True"
