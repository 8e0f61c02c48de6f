"""The kernel ring works on the machine itself: each test leaves mounts and cgroups as they were."""

import shutil
import tempfile
from collections.abc import Iterator

import pytest
from bundles import Room


@pytest.fixture(autouse=True)
def _same_mounts_afterwards() -> Iterator[None]:
    """Fail the test that leaves a mount in the machine's own namespace."""
    with open("/proc/self/mountinfo") as file:
        before = {line.split()[4] for line in file}
    yield
    with open("/proc/self/mountinfo") as file:
        after = {line.split()[4] for line in file}
    assert after - before == set()


@pytest.fixture(scope="session")
def _one_room() -> Iterator[Room]:
    directory = tempfile.mkdtemp(prefix="pier-room-", dir="/var/tmp")
    room = Room(directory)
    try:
        yield room
    finally:
        room.close()
        shutil.rmtree(directory)


@pytest.fixture
def room(_one_room: Room) -> Iterator[Room]:
    """A place for containers, which are all taken away after the test."""
    yield _one_room
    while _one_room.boxes:
        _one_room.boxes.pop().clean()
