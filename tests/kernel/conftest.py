"""The kernel ring works on the machine itself: each test leaves mounts and cgroups as they were."""

from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True)
def _same_mounts_afterwards() -> Iterator[None]:
    """Fail the test that leaves a mount in the machine's own namespace."""
    with open("/proc/self/mountinfo") as file:
        before = {line.split()[4] for line in file}
    yield
    with open("/proc/self/mountinfo") as file:
        after = {line.split()[4] for line in file}
    assert after - before == set()
