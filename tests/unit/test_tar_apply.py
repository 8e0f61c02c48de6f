"""Unpacking as any user: trees, links, hostile names. What needs root is in tests/kernel."""

import io
import os
import stat
import subprocess
import tarfile

import pytest

from pier.storage.apply import apply_layer
from pier.storage.beneath import clean
from pier.storage.tar.errors import TarError
from pier.storage.tar.reader import TarReader
from pier.storage.tree import remove_tree


def archive(*members):
    """Return a tar; a member is a name (a file that holds it) or (name, fields)."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for given in members:
            name, fields = given if isinstance(given, tuple) else (given, {})
            content = fields.pop("content", name.encode())
            info = tarfile.TarInfo(name)
            info.uid, info.gid, info.mtime = os.getuid(), os.getgid(), 1_700_000_000
            for field, value in fields.items():
                setattr(info, field, value)
            info.size = len(content) if info.isreg() else 0
            tar.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def directory(name, mode=0o755):
    return name, {"type": tarfile.DIRTYPE, "mode": mode}


def symlink(name, target):
    return name, {"type": tarfile.SYMTYPE, "linkname": target}


def hardlink(name, target):
    return name, {"type": tarfile.LNKTYPE, "linkname": target}


@pytest.fixture
def root(tmp_path):
    path = tmp_path / "outer" / "root"
    path.mkdir(parents=True)
    return path


def apply(root, data):
    fd = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
    try:
        return apply_layer(TarReader(iter([data] if data else [])), fd)
    finally:
        os.close(fd)


def tree(root):
    return sorted(
        os.path.relpath(os.path.join(parent, name), root)
        for parent, directories, files in os.walk(root)
        for name in (*directories, *files)
    )


def test_files_modes_and_times(root):
    old = os.umask(0o077)
    try:
        applied = apply(
            root,
            archive(
                directory("."),
                directory("d", 0o2750),
                ("d/script", {"mode": 0o4755}),
                ("d/open", {"mode": 0o666}),
                "implied/deeper/file",
                ("late", {"mtime": -5}),
                directory("closed", 0o500),
                "closed/file",
            ),
        )
    finally:
        os.umask(old)
    assert applied.entries == 8
    assert applied.size == sum(map(len, ["d/script", "d/open", "implied/deeper/file", "late"])) + 11
    modes = {path: stat.S_IMODE(os.stat(root / path).st_mode) for path in tree(root)}
    assert modes["d"] == 0o2750
    assert modes["d/script"] == 0o4755
    assert modes["d/open"] == 0o666
    assert modes["implied"] == modes["implied/deeper"] == 0o755
    assert modes["closed"] == 0o500
    assert os.stat(root / "d").st_mtime_ns == 1_700_000_000 * 10**9
    assert os.stat(root / "late").st_mtime_ns == -5 * 10**9
    (root / "closed").chmod(0o700)


def test_whole_tree_survives(root, tmp_path):
    """What GNU tar packs and we unpack looks to find(1) as it did."""
    source = tmp_path / "source"
    for number in range(40):
        inner = source / f"dir{number % 7}" / ("n" * number + "_")
        inner.mkdir(parents=True)
        (inner / "file").write_bytes(os.urandom(number * 3000))
        os.utime(inner / "file", ns=(0, 1_600_000_000_123_456_789 + number))
        (inner / "link").symlink_to("x" * 150)
        os.link(inner / "file", inner / "again")
    os.mkfifo(source / "pipe")
    (source / os.fsdecode(b"\xff\xfe")).touch()
    with (source / "sparse").open("wb") as file:
        file.seek(5 << 20)
        file.write(b"end")
    data = subprocess.run(
        ["tar", "--format=posix", "--sparse", "-C", source, "-cf", "-", "."],
        check=True,
        capture_output=True,
    ).stdout
    apply(root, data)

    def listing(path):
        # Name, kind, mode, owner, links, mtime, target; sizes and contents by checksum below.
        form = r"%P %y %m %U %G %n %T@ %l\n"
        found = subprocess.run(["find", path, "-printf", form], check=True, capture_output=True)
        sums = subprocess.run(
            "find . -type f -print0 | sort -z | xargs -0 sha256sum",
            shell=True, cwd=path, check=True, capture_output=True,
        )  # fmt: skip
        return sorted(found.stdout.splitlines()), sums.stdout

    assert listing(root) == listing(source)
    assert os.stat(root / "sparse").st_blocks < 1000


def test_later_entries_replace(root):
    apply(
        root,
        archive(
            "file", ("file", {"content": b"new"}),
            directory("was-dir"), "was-dir/x", directory("was-dir/y"), "was-dir",
            "was-file", directory("was-file"), "was-file/x",
            symlink("was-link", "nowhere"), "was-link",
            directory("kept"), "kept/x", directory("kept", 0o700),
        ),
    )  # fmt: skip
    assert tree(root) == ["file", "kept", "kept/x", "was-dir", "was-file", "was-file/x", "was-link"]
    assert (root / "file").read_bytes() == b"new"
    assert (root / "was-dir").read_bytes() == b"was-dir"
    assert not (root / "was-link").is_symlink()
    assert stat.S_IMODE((root / "kept").stat().st_mode) == 0o700


def test_replaced_directory_is_not_remembered(root):
    """A directory kept open must not stand for the link that took its name."""
    apply(
        root,
        archive(
            directory("a"), "a/1", directory("b", 0o700), symlink("a", "b"), "a/2",
            symlink("c", "a"), "c/3", directory("a"), "a/4", "c/5",
        ),
    )  # fmt: skip
    assert tree(root) == ["a", "a/4", "a/5", "b", "b/2", "b/3", "c"]
    assert stat.S_IMODE((root / "b").stat().st_mode) == 0o700


def test_hard_links(root):
    apply(root, archive("d/file", hardlink("d/link", "d/file"), hardlink("top", "./d//file")))
    assert os.stat(root / "d/file").st_nlink == 3
    assert os.path.samefile(root / "d/file", root / "top")


def test_hard_link_to_a_symlink_is_one(root):
    apply(root, archive(symlink("s", "/etc/passwd"), hardlink("h", "s")))
    assert os.readlink(root / "h") == "/etc/passwd"


@pytest.mark.parametrize(
    "name", ["../x", "a/../../x", "..", "../outer/root/x", "/../x", "./../x", "a/./../../x"]
)
def test_climbing_out_is_refused(root, name):
    for data in (archive(name), archive(directory(name)), archive("a", hardlink("b", name))):
        with pytest.raises(TarError):
            apply(root, data)
    assert tree(root.parent) in (["root"], ["root", "root/a"])


@pytest.mark.parametrize("target", ["/", "..", "../..", "/etc", "/proc/self/root", "self"])
def test_links_lead_nowhere_else(root, target):
    """Docker resolves links inside the root, and so do we: nothing is written outside of it."""
    outside = root.parent
    data = archive(symlink("self", "self"), symlink("link", target), "link/pwned", "link/a/b/c")
    try:
        apply(root, data)
    except (TarError, OSError):
        assert target in ("self", "/proc/self/root", "/etc")
    assert sorted(os.listdir(outside)) == ["root"]
    assert not os.path.exists("/pwned")
    assert not os.path.exists("/etc/pwned")


def test_link_at_the_end_is_not_written_through(root):
    target = root.parent / "target"
    target.write_text("safe")
    apply(root, archive(symlink("x", str(target)), "x", symlink("y", "../target"), "y"))
    assert target.read_text() == "safe"
    assert (root / "x").read_text() == "x"


def test_hard_link_through_a_link_stays_inside(root):
    (root.parent / "secret").write_text("secret")
    with pytest.raises(TarError, match="no such file"):
        apply(root, archive(symlink("up", ".."), hardlink("stolen", "up/secret")))
    assert tree(root) == ["up"]


def test_hard_link_through_a_link_of_the_layer(root):
    apply(root, archive("lib/x", symlink("lib64", "lib"), hardlink("y", "lib64/x")))
    assert os.path.samefile(root / "lib/x", root / "y")


def test_hard_link_to_a_lower_layer_is_an_error(root):
    with pytest.raises(TarError, match=r"link bin/sh sh: no such file or directory"):
        apply(root, archive(hardlink("sh", "bin/sh")))


def test_absolute_names_are_beneath_the_root(root):
    apply(root, archive("/etc/x", "//y", "./z", "a/../w"))
    assert tree(root) == ["etc", "etc/x", "w", "y", "z"]


def test_whiteouts_are_devices(root):
    apply(root, archive("d/.wh.gone", ".wh.top", ".wh..wh.aufs", ".wh..wh.plnk/1"))
    assert [p for p in tree(root) if not p.startswith(".wh")] == ["d", "d/gone", "top"]
    for name in ("d/gone", "top"):
        found = os.stat(root / name)
        assert stat.S_ISCHR(found.st_mode)
        assert found.st_rdev == 0


def test_whiteout_never_hides_its_own_layer(root):
    apply(root, archive("a", ".wh.a", ".wh.b", "b"))
    assert (root / "a").read_text() == "a"
    assert (root / "b").read_text() == "b"


@pytest.mark.parametrize("name", [".wh.", "d/.wh..", ".wh..."])
def test_whiteouts_of_nothing(root, name):
    with pytest.raises(TarError, match="invalid whiteout"):
        apply(root, archive(name))


@pytest.mark.parametrize(
    ("name", "message"),
    [("n" * 256, "file name too long"), ("d/" * 2100 + "x", "longer than 4095")],
)
def test_long_names(root, name, message):
    with pytest.raises(TarError, match=message):
        apply(root, archive(name))


def test_deep_paths_and_their_removal(root):
    deep = "a/" * 2000
    fd = os.open(root, os.O_RDONLY)
    try:
        apply(root, archive(deep + "x", deep + "y", directory("a/b")))
    finally:
        remove_tree(fd, b"a")
        remove_tree(fd, b"a")
        os.close(fd)
    assert os.listdir(root) == []


def test_file_as_directory(root):
    with pytest.raises(TarError, match="not a directory"):
        apply(root, archive("file", "file/inside"))


def test_link_to_nothing(root):
    with pytest.raises(TarError, match="no such file"):
        apply(root, archive(symlink("l", "")))


def test_unknown_kind(root):
    with pytest.raises(TarError, match="unhandled tar header type 90"):
        apply(root, archive(("x", {"type": b"Z"})))


@pytest.mark.parametrize("owner", [-1, 1 << 32, 0xFFFFFFFF])
def test_owner_out_of_range(root, owner):
    with pytest.raises(TarError, match="out of range"):
        apply(root, archive(("x", {"uid": owner})))


@pytest.mark.parametrize("major", [1 << 12, 0o7777777])
def test_device_out_of_range(root, major):
    with pytest.raises(TarError, match="out of range"):
        apply(root, archive(("x", {"type": tarfile.CHRTYPE, "devmajor": major})))


def test_nothing(root):
    assert apply(root, b"").entries == 0
    assert apply(root, archive()).entries == 0


@pytest.mark.parametrize(
    ("name", "cleaned"),
    [
        (b"", b""), (b".", b""), (b"./", b""), (b"/", b""), (b"a/", b"a"), (b"./a", b"a"),
        (b"a/./b", b"a/b"), (b"a//b", b"a/b"), (b"a/../b", b"b"), (b".hidden", b".hidden"),
        (b"a/.b", b"a/.b"), (b"a/...", b"a/..."), (b"..a", b"..a"),
    ],
)  # fmt: skip
def test_clean(name, cleaned):
    assert clean(name) == cleaned
