"""Layers as overlayfs sees them, and what only root may unpack: devices, owners, xattrs."""

import io
import os
import stat
import subprocess
import tarfile

import pytest

from pier.storage.apply import apply_layer
from pier.storage.tar.errors import TarError
from pier.storage.tar.reader import TarReader

# vfs_cap_data, revision 2: CAP_NET_RAW permitted and effective (capability.h).
CAPABILITY = bytes.fromhex("0100000200200000000000000000000000000000")


def archive(*members):
    """Return a tar; a member is a name (a file that holds it) or (name, fields)."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for given in members:
            name, fields = given if isinstance(given, tuple) else (given, {})
            info = tarfile.TarInfo(name)
            info.mtime = 1_700_000_000
            for field, value in fields.items():
                setattr(info, field, value)
            content = name.encode() if info.isreg() else b""
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def directory(name, **fields):
    return name, {"type": tarfile.DIRTYPE, "mode": 0o755, **fields}


def xattrs(name, **values):
    headers = {f"SCHILY.xattr.{key.replace('__', '.')}": value for key, value in values.items()}
    return name, {"pax_headers": headers}


@pytest.fixture
def unpack(tmp_path):
    """Return a function that unpacks a tar into a new directory."""
    made = []

    def unpack(data):
        path = tmp_path / f"layer{len(made)}"
        path.mkdir()
        made.append(path)
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            apply_layer(TarReader(iter([data])), fd)
        finally:
            os.close(fd)
        return path

    return unpack


@pytest.fixture
def merged(tmp_path):
    """Return a function that mounts layers, lowest first, and gives the merged directory."""
    target = tmp_path / "merged"
    target.mkdir()
    mounted = []

    def merge(*layers):
        lower = ":".join(str(layer) for layer in reversed(layers))
        subprocess.run(
            ["mount", "-t", "overlay", "overlay", "-o", f"ro,lowerdir={lower}", target], check=True
        )
        mounted.append(target)
        return target

    yield merge
    for path in mounted:
        subprocess.run(["umount", path], check=True)


def test_deletions(unpack, merged):
    bottom = unpack(archive("kept", "gone", "dir/a", "dir/b", "opaque/old", "again/old"))
    top = unpack(
        archive(
            ".wh.gone",
            "dir/.wh.a",
            directory("opaque"),
            "opaque/.wh..wh..opq",
            "opaque/new",
            # Deleted and made anew, in both orders.
            ".wh.again",
            directory("again"),
            "again/new",
        )
    )
    root = merged(bottom, top)
    assert sorted(os.listdir(root)) == ["again", "dir", "kept", "opaque"]
    assert os.listdir(root / "dir") == ["b"]
    assert os.listdir(root / "opaque") == ["new"]
    assert os.listdir(root / "again") == ["new"]


def test_directory_before_its_whiteout(unpack, merged):
    bottom = unpack(archive("d/old"))
    top = unpack(archive(directory("d"), "d/new", ".wh.d"))
    assert os.listdir(merged(bottom, top) / "d") == ["new"]


def test_opaque_before_its_directory_is_named(unpack, merged):
    bottom = unpack(archive("d/old"))
    top = unpack(archive("d/.wh..wh..opq", directory("d", mode=0o700), "d/new"))
    root = merged(bottom, top)
    assert os.listdir(root / "d") == ["new"]
    assert stat.S_IMODE(os.stat(root / "d").st_mode) == 0o700


def test_devices(unpack):
    root = unpack(
        archive(
            ("null", {"type": tarfile.CHRTYPE, "devmajor": 1, "devminor": 3, "mode": 0o666}),
            ("disk", {"type": tarfile.BLKTYPE, "devmajor": 259, "devminor": 70000, "mode": 0o660}),
            ("pipe", {"type": tarfile.FIFOTYPE, "mode": 0o600, "uid": 5}),
        )
    )
    null, disk, pipe = (os.stat(root / name) for name in ("null", "disk", "pipe"))
    assert (null.st_mode, null.st_rdev) == (stat.S_IFCHR | 0o666, os.makedev(1, 3))
    assert (disk.st_mode, disk.st_rdev) == (stat.S_IFBLK | 0o660, os.makedev(259, 70000))
    assert (pipe.st_mode, pipe.st_uid) == (stat.S_IFIFO | 0o600, 5)
    assert null.st_mtime_ns == 1_700_000_000 * 10**9


@pytest.mark.parametrize("uid", [1, 1000, 2_097_152, 4_294_967_294])
def test_owners(unpack, uid):
    root = unpack(
        archive(
            directory("d", uid=uid, gid=uid, mode=0o2775),
            ("d/file", {"uid": uid, "gid": 7, "mode": 0o6755}),
            ("link", {"type": tarfile.SYMTYPE, "linkname": "/nowhere", "uid": uid, "gid": uid}),
            "d/roots",
        )
    )
    for name, owner, mode in (
        ("d", (uid, uid), stat.S_IFDIR | 0o2775),
        ("d/file", (uid, 7), stat.S_IFREG | 0o6755),
        ("link", (uid, uid), stat.S_IFLNK | 0o777),
        # A setgid directory gives its group to what is made in it, but not to what is unpacked.
        ("d/roots", (0, 0), stat.S_IFREG | 0o644),
    ):
        found = os.lstat(root / name)
        assert ((found.st_uid, found.st_gid), found.st_mode) == (owner, mode), name


def test_xattrs(unpack):
    # tarfile writes records as UTF-8, which would alter the binary one: it is put in by hand.
    data = bytearray(raw_pax("ping", {b"SCHILY.xattr.security.capability": CAPABILITY}, 1000))
    root = unpack(bytes(data))
    assert os.getxattr(root / "ping", "security.capability") == CAPABILITY
    root = unpack(
        archive(
            xattrs("file", user__a="1", trusted__b="2"),
            ("d", {"type": tarfile.DIRTYPE, "pax_headers": {"SCHILY.xattr.user.c": "3"}}),
            # Not for links: left out, as Docker does.
            (
                "l",
                {
                    "type": tarfile.SYMTYPE,
                    "linkname": "file",
                    "pax_headers": {"SCHILY.xattr.user.d": "4"},
                },
            ),
        )
    )
    assert os.getxattr(root / "file", "user.a") == b"1"
    assert os.getxattr(root / "file", "trusted.b") == b"2"
    assert os.getxattr(root / "d", "user.c") == b"3"
    assert os.listxattr(root / "l", follow_symlinks=False) == []


def raw_pax(name, records, uid):
    """Return a tar of one file with binary PAX records."""
    body = b""
    for key, value in records.items():
        length = len(key) + len(value) + 3
        while length != len(b"%d %s=%s\n" % (length, key, value)):
            length += 1
        body += b"%d %s=%s\n" % (length, key, value)
    extended = tarfile.TarInfo("pax")
    extended.type, extended.size = tarfile.XHDTYPE, len(body)
    info = tarfile.TarInfo(name)
    info.uid = uid
    padded = body + bytes(-len(body) % 512)
    return extended.tobuf() + padded + info.tobuf() + bytes(1024)


@pytest.mark.parametrize(
    "name", ["trusted.overlay.opaque", "user.overlay.redirect", "trusted.overlay.redirect"]
)
def test_archives_do_not_speak_to_overlayfs(unpack, name):
    """A redirect would show a directory of another place of the lower layers."""
    root = unpack(
        archive(
            ("d", {"type": tarfile.DIRTYPE, "pax_headers": {f"SCHILY.xattr.{name}": "/etc"}}),
        )
    )
    assert os.listxattr(root / "d") == []


def test_debian_tree_survives(unpack, tmp_path):
    """Part of the machine itself, packed by GNU tar with all it can keep."""
    packed = tmp_path / "etc.tar"
    flags = ("--format=posix", "--xattrs", "--xattrs-include=*", "--numeric-owner", "--sort=name")
    subprocess.run(["tar", *flags, "-C", "/", "-cf", packed, "etc", "usr/sbin"], check=True)
    root = unpack(packed.read_bytes())
    again = tmp_path / "again.tar"
    subprocess.run(["tar", *flags, "-C", root, "-cf", again, "etc", "usr/sbin"], check=True)
    first, second = (members(path) for path in (packed, again))
    assert second == first


def members(path):
    """Return what tar(1) tells of each member, and the contents' checksums."""
    with tarfile.open(path) as tar:
        return [
            (
                info.name, info.type, info.mode, info.uid, info.gid, info.size, info.linkname,
                info.devmajor, info.devminor, info.pax_headers.get("mtime"),
                {k: v for k, v in info.pax_headers.items() if "xattr" in k},
                hash(tar.extractfile(info).read()) if info.isreg() else None,
            )
            for info in tar
        ]  # fmt: skip


def test_nothing_is_written_outside(unpack, tmp_path):
    """A link of the archive that leads out leads back in, also for devices and directories."""
    outside = tmp_path / "outside"
    outside.mkdir()
    within = str(outside).lstrip("/")
    root = unpack(
        archive(
            directory(within),
            ("way", {"type": tarfile.SYMTYPE, "linkname": str(outside)}),
            ("up", {"type": tarfile.SYMTYPE, "linkname": "../../../../../../" + within}),
            "way/file",
            directory("way/dir"),
            ("up/null", {"type": tarfile.CHRTYPE, "devmajor": 1, "devminor": 3}),
            "up/.wh.gone",
        )
    )
    assert os.listdir(outside) == []
    assert sorted(os.listdir(root / within)) == ["dir", "file", "gone", "null"]


def test_link_to_nowhere_is_not_made_somewhere(unpack, tmp_path):
    outside = tmp_path / "outside"
    link = ("way", {"type": tarfile.SYMTYPE, "linkname": str(outside)})
    with pytest.raises(TarError, match="dangling link"):
        unpack(archive(link, "way/file"))
    assert not outside.exists()


def test_magic_links_are_not_followed(unpack):
    with pytest.raises((TarError, OSError)):
        unpack(
            archive(
                ("proc", {"type": tarfile.SYMTYPE, "linkname": "/proc/self/root"}),
                "proc/tmp/pier-was-here",
                "proc",
                "proc/x",
            )
        )
    assert not os.path.exists("/tmp/pier-was-here")
