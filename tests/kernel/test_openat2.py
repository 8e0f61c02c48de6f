"""kernel/openat2.py: paths that a hostile tree cannot turn against us."""

import errno
import os

import pytest

from pier.kernel.openat2 import (
    RESOLVE_BENEATH,
    RESOLVE_IN_ROOT,
    RESOLVE_NO_MAGICLINKS,
    RESOLVE_NO_SYMLINKS,
    RESOLVE_NO_XDEV,
    openat2,
)


@pytest.fixture
def tree(tmp_path):
    (tmp_path / "root" / "etc").mkdir(parents=True)
    (tmp_path / "root" / "etc" / "file").write_text("inside")
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc" / "file").write_text("outside")
    for name, target in (("abs", "/etc"), ("dots", "../../etc"), ("loop", "loop"),
                         ("magic", "/proc/self/root")):  # fmt: skip
        os.symlink(target, tmp_path / "root" / name)
    fd = os.open(tmp_path / "root", os.O_PATH | os.O_DIRECTORY)
    yield fd
    os.close(fd)


@pytest.mark.parametrize(
    "path", ["etc/file", "/etc/file", "../../etc/file", "abs/file", "dots/file"]
)
def test_in_root_everything_stays_inside(tree, path):
    fd = openat2(tree, path.encode(), os.O_RDONLY, 0, RESOLVE_IN_ROOT)
    try:
        assert os.read(fd, 100) == b"inside"
        assert not os.get_inheritable(fd)
    finally:
        os.close(fd)


@pytest.mark.parametrize(
    ("path", "resolve", "number"),
    [
        ("/etc/file", RESOLVE_BENEATH, errno.EXDEV),
        ("../etc/file", RESOLVE_BENEATH, errno.EXDEV),
        ("dots/file", RESOLVE_BENEATH, errno.EXDEV),
        ("abs/file", RESOLVE_IN_ROOT | RESOLVE_NO_SYMLINKS, errno.ELOOP),
        ("loop", RESOLVE_IN_ROOT, errno.ELOOP),
        ("not/there", RESOLVE_IN_ROOT, errno.ENOENT),
        ("etc/file/below", RESOLVE_IN_ROOT, errno.ENOTDIR),
    ],
)
def test_refusals(tree, path, resolve, number):
    with pytest.raises(OSError, match=r"openat2\(") as info:
        openat2(tree, path.encode(), os.O_RDONLY, 0, resolve)
    assert info.value.errno == number


def test_magic_links():
    fd = os.open("/", os.O_PATH)
    try:
        os.close(openat2(fd, b"/proc/self/root", os.O_PATH, 0, 0))
        with pytest.raises(OSError, match="openat2") as info:
            openat2(fd, b"/proc/self/root", os.O_PATH, 0, RESOLVE_NO_MAGICLINKS)
        assert info.value.errno == errno.ELOOP
        with pytest.raises(OSError, match="openat2") as info:
            openat2(fd, b"proc/self", os.O_PATH, 0, RESOLVE_NO_XDEV)
        assert info.value.errno == errno.EXDEV
    finally:
        os.close(fd)


def test_create_with_a_mode(tree):
    fd = openat2(tree, b"etc/new", os.O_CREAT | os.O_WRONLY, 0o600, RESOLVE_IN_ROOT)
    try:
        assert os.fstat(fd).st_mode & 0o777 == 0o600
    finally:
        os.close(fd)
