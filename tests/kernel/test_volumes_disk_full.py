"""Volumes on a disk that is full, and after a crash in each step: filled wholly or not at all."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from pier.errors import Internal
from pier.model.api_volumes import VolumeRecord
from pier.storage.database import Database
from pier.storage.root import DataRoot
from pier.storage.volumes import VolumeStore

SIZE = 8 << 20


class Opened:
    """A store that can be opened again, as after a crash."""

    def __init__(self, path: Path) -> None:
        self.root = DataRoot(str(path))
        self.database = Database(self.root.join("pier.db"), later=self.root.later)
        self.store = VolumeStore(self.root, self.database)

    def close(self) -> None:
        self.root.settle()
        self.database.close()
        self.root.close()


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    path = tmp_path / "disk"
    path.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={SIZE}", "tmpfs", path], check=True)
    try:
        yield path / "data"
    finally:
        subprocess.run(["umount", path], check=True)


def fill(opened: Opened, source: Path) -> None:
    fd = os.open(source, os.O_RDONLY)
    try:
        opened.store.populate("vol", fd)
    finally:
        os.close(fd)


def make(opened: Opened) -> str:
    opened.store.create(VolumeRecord("vol", "local", "2026-01-01T00:00:00Z"))
    return opened.store.mountpoint("vol")


def test_full(disk: Path, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir(mode=0o2750)
    source.chmod(0o2750)
    (source / "small").write_bytes(b"x" * 100)
    (source / "large").write_bytes(os.urandom(SIZE))
    opened = Opened(disk)
    place = make(opened)
    with pytest.raises(OSError, match="No space left"):
        fill(opened, source)
    opened.root.settle()
    assert os.listdir(place) == os.listdir(disk / "staging") == []
    os.truncate(source / "large", 1 << 20)
    fill(opened, source)
    assert sorted(os.listdir(place)) == ["large", "small"]
    assert os.stat(place).st_mode & 0o7777 == 0o2750
    opened.close()


def test_full_where_somebody_elses_disk_is_mounted(disk: Path, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    for number in range(20):
        (source / str(number)).write_bytes(os.urandom(SIZE // 10))
    opened = Opened(disk)
    place = make(opened)
    fd = os.open(source, os.O_RDONLY)
    with pytest.raises(Internal, match=r"failed to populate volume vol: .*no space left on device"):
        opened.store.populate_mounted("vol", fd, marked=True)
    os.close(fd)
    assert os.listdir(place) == []
    assert os.listdir(os.path.dirname(place)) == ["_data"]
    opened.close()


def test_killed_while_it_is_moved_in(disk: Path, tmp_path: Path) -> None:
    """The next pierd moves the rest; what a container wrote there meanwhile stays."""
    opened = Opened(disk)
    place = Path(make(opened))
    filling = place.parent / "filling"
    (filling / "directory").mkdir(parents=True)
    (filling / "late").write_text("image's")
    (filling / "both").write_text("image's")
    filling.chmod(0o711)
    (place / "early").write_text("image's")
    (place / "both").write_text("container's")
    inode = place.stat().st_ino
    opened.close()
    opened = Opened(disk)
    assert sorted(os.listdir(place)) == ["both", "directory", "early", "late"]
    assert (place / "both").read_text() == "container's"
    assert place.stat().st_mode & 0o777 == 0o711
    assert place.stat().st_ino == inode, "whoever has it mounted still has it"
    assert not filling.exists()
    opened.close()


def test_killed_while_it_was_renamed(disk: Path) -> None:
    opened = Opened(disk)
    place = Path(make(opened))
    (place / "file").write_text("kept")
    opened.store.rename("vol", "new")
    os.rename(disk / "volumes" / "new", disk / "volumes" / "vol")  # as if it had not come to it
    opened.close()
    opened = Opened(disk)
    assert "vol" not in opened.store
    assert Path(opened.store.mountpoint("new"), "file").read_text() == "kept"
    opened.store.create(VolumeRecord("vol", "local", "2026-01-01T00:00:00Z"))
    opened.close()
    opened = Opened(disk)
    assert Path(opened.store.mountpoint("new"), "file").read_text() == "kept"
    assert os.listdir(opened.store.mountpoint("vol")) == []
    opened.close()


def test_killed_while_a_mounted_one_was_filled(disk: Path) -> None:
    opened = Opened(disk)
    place = Path(make(opened))
    (place / "half" / "deep").mkdir(parents=True)
    (place.parent / "unfilled").touch()
    opened.close()
    opened = Opened(disk)
    opened.store.clear_unfilled("vol")
    assert os.listdir(place) == []
    (place / "mine").touch()
    opened.store.clear_unfilled("vol")
    assert os.listdir(place) == ["mine"]
    opened.close()


def test_killed_while_a_part_of_a_mounted_one_was_filled(disk: Path, tmp_path: Path) -> None:
    opened = Opened(disk)
    place = Path(make(opened))
    (place / "part").mkdir()
    (place / "beside").touch()
    source = tmp_path / "source"
    source.mkdir()
    fd = os.open(source, os.O_RDONLY)

    class Killed(BaseException):
        pass

    def copy_half(*_: object) -> None:
        (place / "part" / "half").touch()
        raise Killed

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pier.storage.volumes.copy_tree", copy_half)
        patch.setattr("os.unlink", lambda _path: None)  # as one that is killed does not come to it
        with pytest.raises(Killed):
            opened.store.populate_mounted("vol", fd, marked=True, part="part")
    os.close(fd)
    opened.close()
    opened = Opened(disk)
    opened.store.clear_unfilled("vol")
    assert sorted(os.listdir(place)) == ["beside", "part"]
    assert os.listdir(place / "part") == []
    assert sorted(os.listdir(place.parent)) == ["_data"]
    opened.close()
