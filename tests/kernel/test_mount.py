"""kernel/mount.py: old and new mount calls, in a mount namespace of the test's own."""

import errno
import os

import pytest
from inside import apart

from pier.kernel import mount as mnt


def mounted(path) -> str | None:
    """The line of mountinfo for a mount point."""
    with open("/proc/self/mountinfo") as file:
        return next((line for line in file if line.split()[4] == str(path)), None)


def test_mount_and_umount(tmp_path):
    def work() -> None:
        flags = mnt.MS_NOSUID | mnt.MS_NODEV
        mnt.mount("name", str(tmp_path), "tmpfs", flags, "size=64k")
        line = mounted(tmp_path)
        assert line is not None
        assert "nosuid,nodev" in line
        assert "tmpfs name" in line
        assert "size=64k" in line
        mnt.umount2(str(tmp_path), mnt.MNT_DETACH | mnt.UMOUNT_NOFOLLOW)
        assert mounted(tmp_path) is None

    apart(work)


def test_a_new_mount_is_nowhere_until_it_is_moved(tmp_path):
    def work() -> None:
        fd = mnt.new_mount("tmpfs", (("size", "64k"), ("mode", "0711")), source="here",
                           attributes=mnt.MOUNT_ATTR_NOEXEC)  # fmt: skip
        assert mounted(tmp_path) is None
        os.close(os.open("file", os.O_CREAT | os.O_WRONLY, dir_fd=fd))
        target = os.open(tmp_path, os.O_PATH)
        mnt.move_mount(fd, target)
        line = mounted(tmp_path)
        assert line is not None
        assert "noexec" in line
        assert os.listdir(tmp_path) == ["file"]
        assert os.stat(tmp_path).st_mode & 0o7777 == 0o711

    apart(work)


def test_what_was_never_attached_goes_with_its_descriptor():
    fd = mnt.new_mount("tmpfs", ())
    os.close(fd)


def test_open_tree_and_attributes(tmp_path):
    def work() -> None:
        (tmp_path / "a").mkdir()
        (tmp_path / "b").mkdir()
        fd = mnt.open_tree(mnt.AT_FDCWD, str(tmp_path / "a"), mnt.OPEN_TREE_CLONE)
        mnt.mount_setattr(fd, mnt.MOUNT_ATTR_RDONLY)
        mnt.move_mount(fd, os.open(tmp_path / "b", os.O_PATH))
        with pytest.raises(OSError, match="Read-only"):
            (tmp_path / "b" / "x").touch()
        mnt.mount_setattr(fd, 0, attr_clr=mnt.MOUNT_ATTR_RDONLY, propagation=mnt.MS_SHARED)
        (tmp_path / "b" / "x").touch()
        assert (tmp_path / "a" / "x").exists()
        assert "shared:" in str(mounted(tmp_path / "b"))

    apart(work)


def test_recursive_attributes(tmp_path):
    def work() -> None:
        mnt.mount("t", str(tmp_path), "tmpfs")
        (tmp_path / "sub").mkdir()
        mnt.mount("t", str(tmp_path / "sub"), "tmpfs")
        for recursive in (False, True):
            flags = mnt.OPEN_TREE_CLONE | mnt.AT_RECURSIVE
            fd = mnt.open_tree(mnt.AT_FDCWD, str(tmp_path), flags)
            mnt.mount_setattr(fd, mnt.MOUNT_ATTR_RDONLY, recursive=recursive)
            flags_below = os.statvfs(f"/proc/self/fd/{fd}/sub").f_flag
            assert bool(flags_below & os.ST_RDONLY) == recursive
            assert os.fstatvfs(fd).f_flag & os.ST_RDONLY
            os.close(fd)

    apart(work)


def test_pivot_root(tmp_path):
    def work() -> None:
        mnt.mount("t", str(tmp_path), "tmpfs")
        (tmp_path / "mark").touch()
        os.chdir(tmp_path)
        mnt.pivot_root(".", ".")
        mnt.umount2(".", mnt.MNT_DETACH)
        os.chdir("/")
        assert os.listdir("/") == ["mark"]

    apart(work)


def test_refusals_carry_the_kernels_words():
    with pytest.raises(OSError, match=r"mount tmpfs: .*nonsense") as info:
        mnt.new_mount("tmpfs", (("nonsense", "1"),))
    assert info.value.errno == errno.EINVAL
    with pytest.raises(OSError, match=r"fsopen\(nofs, 1\): No such device"):
        mnt.fsopen("nofs")
    with pytest.raises(OSError, match="No such file"):
        mnt.open_tree(mnt.AT_FDCWD, "/not/there", mnt.OPEN_TREE_CLONE)
    with pytest.raises(OSError, match=r"umount2\(/not/there, 0\)"):
        mnt.umount2("/not/there")


def test_nothing_leaks_from_a_refusal():
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(5):
        with pytest.raises(OSError, match="nonsense"):
            mnt.new_mount("tmpfs", (("nonsense", None),))
    assert len(os.listdir("/proc/self/fd")) == before
