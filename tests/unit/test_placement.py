"""What is unpacked next to what was just removed, on ext4."""

import fcntl
import os
import struct
from pathlib import Path

import pytest

from pier.storage import placement
from pier.storage.root import DataRoot


def _flags(path: str) -> int:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        answer = fcntl.ioctl(fd, placement.FS_IOC_GETFLAGS, bytes(8))
    except OSError:
        pytest.skip("the file system below the temporary directory has no inode flags")
    finally:
        os.close(fd)
    return int(struct.unpack("l", answer)[0])


def test_layers_are_unpacked_apart_from_one_another(tmp_path: Path) -> None:
    before = _flags(str(tmp_path))
    try:
        placement.spread(str(tmp_path))
    finally:
        known = _flags(str(tmp_path)) & placement.FS_TOPDIR_FL
    if not known:
        pytest.skip("the file system has no FS_TOPDIR_FL")
    assert _flags(str(tmp_path)) == before | placement.FS_TOPDIR_FL

    root = DataRoot(str(tmp_path / "root"))
    try:
        assert _flags(root.join("staging")) & placement.FS_TOPDIR_FL
        assert not _flags(root.join("ingest")) & placement.FS_TOPDIR_FL
        made = root.staging("staging")
        os.mkdir(made)
        assert not _flags(made) & placement.FS_TOPDIR_FL, "what is inside stays together"
    finally:
        root.close()


def test_a_file_system_without_flags_is_left_alone() -> None:
    placement.spread("/proc/self")
