"""Many containers, ended in every way: nothing is left of them, on the host or in pierd."""

import os
import random
import signal

import bundles
from bundles import Box, Room

from pier.engine.keepers import SPARES
from pier.errors import PierError

CONTAINERS = 60


def processes() -> set[int]:
    """Everything that is a keeper or lives below a room."""
    found = set()
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                with open(f"/proc/{name}/cmdline", "rb") as file:
                    title = file.read().rstrip(b"\0 ")
            except OSError:
                continue
            if title.startswith(b"pier keeper c") or title == b"sleep\x0012345":
                found.add(int(name))
    return found


def kill_keeper(room: Room, box: Box) -> None:
    os.kill(bundles.keeper_pid(box.pid), signal.SIGKILL)


def end(room: Room, box: Box, chance: random.Random) -> None:
    """End a container in one of the ways in which containers end."""
    way = chance.choice(("kill", "term", "keeper", "first", "paused", "exec", "bye"))
    if way == "keeper":
        kill_keeper(room, box)
    elif way == "first":
        os.kill(box.pid, signal.SIGKILL)
    elif way == "paused":
        room.do(box.keeper.pause())
        box.kill()
    elif way == "exec":
        box.exec("x", ["sh", "-c", "sleep 12345 & sleep 12345"], attached=False)
        box.kill()
    elif way == "bye":
        room.do(box.keeper.bye())
        return
    else:
        box.kill(signal.SIGKILL if way == "kill" else signal.SIGTERM)
        box.kill(signal.SIGKILL)
    box.wait_gone()


def test_nothing_is_left(room: Room):
    chance = random.Random(7)
    room.sh("true")
    # Each spare keeper is a channel of ours.
    room.until(lambda: len(room.keepers._spares) == SPARES)
    descriptors = len(os.listdir("/proc/self/fd"))
    before = processes()
    while room.boxes:
        room.boxes.pop().clean()
    pids = []
    for number in range(CONTAINERS):
        box = room.container(
            ["sleep", "12345"] if number % 5 else ["nosuch"],
            tty=chance.random() < 0.3,
            init=chance.random() < 0.3,
            stdin=chance.random() < 0.3,
        )
        if chance.random() < 0.5:
            box.attach(stdin=chance.random() < 0.5)
        try:
            box.start()
            pids.append(box.pid)
            end(room, box, chance)
        except PierError:
            box.wait_gone()
        box.clean()
        room.boxes.remove(box)
    for pid in pids:
        bundles.wait_ended(pid)
    room.until(lambda: processes() <= before)
    assert os.listdir(f"{room.exec_root}/containers") == []
    assert os.listdir(f"{room.data}/containers") == []
    with open("/proc/self/mountinfo") as file:
        assert room.data not in file.read()
    for hierarchy in room.hierarchies.all:
        parent = hierarchy.mount + room.parent
        if os.path.exists(parent):
            assert [entry.name for entry in os.scandir(parent) if entry.is_dir()] == [], parent
    room.until(lambda: len(os.listdir("/proc/self/fd")) <= descriptors)
