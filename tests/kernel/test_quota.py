"""Project quotas, on an ext4 of the test's own: volumes and writable layers of a limited size."""

import contextlib
import os
import subprocess
import sys

import pytest

from pier.errors import InvalidParameter
from pier.kernel import quota
from pier.storage.quotas import FIRST
from pier.storage.root import DataRoot
from quota_disk import quota_disk

MIB = 1 << 20


@pytest.fixture
def limited(tmp_path):
    with quota_disk(tmp_path) as place:
        yield place


@pytest.fixture
def root(limited):
    opened = DataRoot(str(limited / "root"))
    with contextlib.closing(opened):
        yield opened


FILL = """
import sys
done = 0
with open(sys.argv[1], "wb", buffering=0) as file:
    try:
        while done < int(sys.argv[2]):
            done += file.write(b"x" * 65536)
    except OSError as exc:
        assert exc.strerror in ("Disk quota exceeded", "No space left on device"), exc
print(done)
"""


def fill(path, size):
    """Write until it is enough or the disk says no; return what was written.

    Without CAP_SYS_RESOURCE, as in a container: who has it is not bound by quotas.
    """
    words = ["setpriv", "--bounding-set=-sys_resource", sys.executable, "-IS", "-c", FILL]
    done = subprocess.run([*words, path, str(size)], check=True, capture_output=True, text=True)
    return int(done.stdout)


def test_a_limit_holds_for_all_that_is_below(root, limited):
    assert root.quotas.offered()
    place = str(limited / "place")
    os.mkdir(place)
    root.quotas.limit(2 * MIB, place)
    os.makedirs(f"{place}/a/b")
    assert fill(f"{place}/a/b/file", MIB) == MIB
    assert fill(f"{place}/more", 8 * MIB) < 2 * MIB
    assert fill(str(limited / "beside"), 8 * MIB) == 8 * MIB
    fd = os.open(place, os.O_RDONLY)
    try:
        number = quota.project_of(fd)
        limit, used = quota.usage(fd, number)
    finally:
        os.close(fd)
    assert number >= FIRST
    assert limit == 2 * MIB
    assert MIB < used <= 2 * MIB


def test_each_has_its_own_also_after_a_restart(limited):
    path = str(limited / "root")
    numbers = []
    for names in ("ab", "c"):
        with contextlib.closing(DataRoot(path)) as root:
            for name in names:
                place = root.join("volumes", name, "_data")
                os.makedirs(place)
                root.quotas.limit(MIB, place)
                numbers.append(root.quotas.of(place))
                assert fill(f"{place}/file", 2 * MIB) <= MIB
    assert numbers == [FIRST, FIRST + 1, FIRST + 2]


def test_directories_that_share_a_limit(root):
    upper, work, newer = (root.join("containers", name) for name in ("upper", "work", "newer"))
    for directory in (upper, work, newer):
        os.mkdir(directory)
    root.quotas.limit(2 * MIB, upper, work)
    assert fill(f"{work}/file", MIB) == MIB
    os.rename(f"{work}/file", f"{upper}/file")
    root.quotas.share(root.quotas.of(upper), newer)
    assert fill(f"{newer}/file", 8 * MIB) <= MIB


def test_not_offered_elsewhere(tmp_path):
    """On the tests' own disk, which has none."""
    root = DataRoot(str(tmp_path / "root"))
    with contextlib.closing(root):
        if root.quotas.offered():
            pytest.skip("this disk has project quotas")
        place = root.join("volumes")
        assert root.quotas.of(place) == 0
        from pier.engine.volume_mounts import check_options

        with pytest.raises(InvalidParameter, match="no quota support"):
            check_options({"size": "1m"}, has_quota=root.quotas.offered)
