"""kernel/pty.py: terminals of a devpts instance that is not the host's."""

import fcntl
import os
import struct
import termios

import pytest
from inside import apart

from pier.kernel import mount as mnt
from pier.kernel import pty


@pytest.fixture
def devpts():
    fd = mnt.new_mount("devpts", (("newinstance", None), ("ptmxmode", "0666"), ("mode", "0620")))
    yield fd
    os.close(fd)


def test_a_pair(devpts):
    master, number = pty.open_master("ptmx", dir_fd=devpts)
    slave = pty.open_peer(master)
    try:
        assert number == 0
        assert sorted(os.listdir(f"/proc/self/fd/{devpts}")) == ["0", "ptmx"]
        assert os.isatty(slave)
        assert not os.get_inheritable(master)
        assert not os.get_inheritable(slave)
        os.write(slave, b"out")
        assert os.read(master, 10) == b"out"
        pty.set_window_size(master, 12, 345)
        size = fcntl.ioctl(slave, termios.TIOCGWINSZ, b"\0" * 8)
        assert struct.unpack("HHHH", size)[:2] == (12, 345)
    finally:
        os.close(master)
        os.close(slave)
    assert os.listdir(f"/proc/self/fd/{devpts}") == ["ptmx"]


def test_controlling_terminal(devpts):
    def work() -> None:
        master, _ = pty.open_master("ptmx", dir_fd=devpts)
        os.setsid()
        slave = pty.open_peer(master)
        with pytest.raises(OSError, match="No such device"):
            os.open("/dev/tty", os.O_RDWR)
        pty.make_controlling(slave)
        os.close(os.open("/dev/tty", os.O_RDWR))
        assert os.tcgetpgrp(slave) == os.getpgrp()

    apart(work)


def test_a_link_in_place_of_the_multiplexer_is_refused(tmp_path):
    os.symlink("/dev/ptmx", tmp_path / "ptmx")
    with pytest.raises(OSError, match="Too many levels"):
        pty.open_master(str(tmp_path / "ptmx"))
    (tmp_path / "file").touch()
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(OSError, match="Inappropriate ioctl"):
        pty.open_master(str(tmp_path / "file"))
    assert len(os.listdir("/proc/self/fd")) == before


def test_what_is_mounted_over_the_multiplexer_is_not_opened(tmp_path):
    """A container with CAP_SYS_ADMIN, and a device whose opening has an effect."""
    (tmp_path / "other").touch()
    place = tmp_path / "pts"
    place.mkdir()

    def work() -> None:
        mnt.mount("devpts", str(place), "devpts", 0, "newinstance,ptmxmode=0666")
        mnt.mount(str(tmp_path / "other"), f"{place}/ptmx", "", mnt.MS_BIND)
        directory_fd = os.open(place, os.O_PATH)
        with pytest.raises(OSError, match="cross-device"):
            pty.open_master("ptmx", dir_fd=directory_fd)

    apart(work)
