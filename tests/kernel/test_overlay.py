"""kernel/overlay.py: any number of layers, by the new calls and by mount(2)."""

import errno
import os

import pytest
from inside import apart

from pier.kernel import mount as mnt
from pier.kernel import overlay


@pytest.fixture
def base(tmp_path):
    """Layers l0 (top), l1, … with a file each and one that all have."""
    for number in range(130):
        layer = tmp_path / f"l{number}"
        layer.mkdir()
        (layer / f"f{number}").touch()
        (layer / "same").write_text(str(number))
    (tmp_path / "upper").mkdir()
    (tmp_path / "work").mkdir()
    (tmp_path / "target").mkdir()
    return tmp_path


@pytest.mark.parametrize("count", [1, 2, 130])
def test_open_overlay(base, count):
    fd = overlay.open_overlay(str(base), [f"l{n}" for n in range(count)], "upper", "work")
    try:
        assert len(os.listdir(f"/proc/self/fd/{fd}")) == count + 1
        with open(os.open("same", os.O_RDONLY, dir_fd=fd)) as file:
            assert file.read() == "0"
        os.unlink("same", dir_fd=fd)
        assert (base / "upper" / "same").is_char_device()
        assert (base / "l0" / "same").exists()
    finally:
        os.close(fd)
    assert os.getcwd() == "/"


def test_a_deep_base_is_no_problem(base):
    deep = base / ("d" * 200) / ("e" * 200)
    deep.mkdir(parents=True)
    for name in ("lower", "upper", "work"):
        (deep / name).mkdir()
    os.close(overlay.open_overlay(str(deep), ["lower"], "upper", "work"))


def test_without_layers_the_upper_directory_is_the_root(base):
    (base / "upper" / "own").touch()
    fd = overlay.open_overlay(str(base), [], "upper", "work")
    try:
        assert os.listdir(f"/proc/self/fd/{fd}") == ["own"]
    finally:
        os.close(fd)


def test_a_volatile_overlay_may_be_mounted_again(base):
    for _ in range(3):
        os.close(overlay.open_overlay(str(base), ["l0"], "upper", "work", volatile=True))


@pytest.mark.parametrize("volatile", [False, True])
def test_mount_overlay_for_older_kernels(base, volatile):
    def work() -> None:
        before = len(os.listdir("/proc/self/fd"))
        layers = [f"l{n}" for n in range(120)]
        target = str(base / "target")
        overlay.mount_overlay(str(base), layers, "upper", "work", target, volatile=volatile)
        assert len(os.listdir("/proc/self/fd")) == before
        assert len(os.listdir(target)) == 121
        (base / "target" / "new").touch()
        assert (base / "upper" / "new").exists()
        mnt.umount2(target)

    apart(work)


def test_failures(base):
    with pytest.raises(OSError, match="No such file") as info:
        overlay.open_overlay(str(base), ["none"], "upper", "work")
    assert not overlay.lacks_lowerdir_plus(info.value)
    # Overlayfs before 6.5 says no more than EINVAL about an option that it does not know.
    assert overlay.lacks_lowerdir_plus(OSError(errno.EINVAL, "mount overlay: Invalid argument"))
