"""The tar reader against Python's writer and GNU tar, and against archives that are broken."""

import io
import os
import subprocess
import tarfile

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pier.storage.tar.errors import TarError
from pier.storage.tar.header import parse_number
from pier.storage.tar.reader import TarReader


def chunked(data, size):
    return iter([data[at : at + size] for at in range(0, len(data), size)])


def read_all(data, size=1 << 20):
    """Return [(entry, content)]; a sparse file's content is filled up."""
    reader = TarReader(chunked(data, size))
    found = []
    for entry in reader:
        content = bytearray(entry.size)
        for offset, length in entry.sparse or [(0, entry.stored)]:
            content[offset : offset + length] = reader.read(length)
        found.append((entry, bytes(content)))
    reader.drain()
    return found


def written(*members, kind=tarfile.PAX_FORMAT, **kwargs):
    buffer = io.BytesIO()
    with tarfile.open(
        fileobj=buffer, mode="w", format=kind, errors="surrogateescape", **kwargs
    ) as tar:
        for member, content in members:
            tar.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


def member(name, content=b"", **fields):
    info = tarfile.TarInfo(name)
    info.size = len(content)
    for field, value in fields.items():
        setattr(info, field, value)
    return info, content


@pytest.mark.parametrize("padding", [0, 1, 511])
def test_the_end_may_lack_its_padding(padding):
    """As Go reads it: the docker command writes such archives."""
    data = written(member("a", b"x" * 600), member("b", b"y" * 513))
    whole = data.index(b"y" * 513) + 513
    found = read_all(data[: whole + padding])
    assert [(e.name, len(content)) for e, content in found] == [(b"a", 600), (b"b", 513)]


names = st.text(
    st.characters(blacklist_categories=["Cs"], blacklist_characters="\0"), min_size=1, max_size=300
).filter(lambda name: not name.endswith("/") and len(name.encode()) < 1000)


@given(
    st.lists(
        st.builds(
            member,
            names,
            st.binary(max_size=2000),
            mode=st.integers(0, 0o7777),
            uid=st.integers(0, 2**32 - 2),
            gid=st.integers(0, 2**32 - 2),
            mtime=st.integers(-(2**33), 2**40),
        ),
        max_size=4,
    ),
    st.sampled_from([tarfile.PAX_FORMAT, tarfile.GNU_FORMAT]),
    st.sampled_from([1, 100, 512, 10_000]),
)
@settings(deadline=None)
def test_what_python_writes(members, kind, size):
    data = written(*members, kind=kind)
    found = read_all(data, size)
    assert [(e.name, e.mode, e.uid, e.gid, e.mtime_ns, content) for e, content in found] == [
        (m.name.encode(), m.mode, m.uid, m.gid, m.mtime * 10**9, content) for m, content in members
    ]


def test_kinds_and_links():
    long = "d/" * 100 + "x"
    data = written(
        member("d", type=tarfile.DIRTYPE),
        member("link", type=tarfile.SYMTYPE, linkname=long),
        member("hard", type=tarfile.LNKTYPE, linkname="d/x"),
        member("null", type=tarfile.CHRTYPE, devmajor=1, devminor=3),
        member("disk", type=tarfile.BLKTYPE, devmajor=259, devminor=1 << 18),
        member("pipe", type=tarfile.FIFOTYPE),
    )
    entries = {e.name: e for e, _ in read_all(data)}
    assert "".join(chr(e.type) for e in entries.values()) == "521346"
    assert entries[b"link"].linkname == long.encode()
    assert entries[b"hard"].linkname == b"d/x"
    assert (entries[b"disk"].devmajor, entries[b"disk"].devminor) == (259, 1 << 18)


def test_pax_fields():
    records = {
        "mtime": "1700000000.123456789",
        "SCHILY.xattr.user.k": "v=w\n",
        "uid": "4294967294",
        "path": "caf\udce9/\udcff",
    }
    data = written(member("short", b"content", pax_headers=records))
    ((entry, content),) = read_all(data)
    assert entry.mtime_ns == 1_700_000_000_123_456_789
    assert entry.xattrs == {"user.k": b"v=w\n"}
    assert entry.uid == 4_294_967_294
    assert entry.name == b"caf\xe9/\xff"
    assert content == b"content"


@pytest.mark.parametrize(
    ("text", "nanoseconds"),
    [("-1.5", -1_500_000_000), ("0.0000000019", 1), ("-0.0000000001", -1), ("7", 7 * 10**9)],
)
def test_pax_times(text, nanoseconds):
    data = written(member("x", pax_headers={"mtime": text}))
    assert read_all(data)[0][0].mtime_ns == nanoseconds


def test_long_name_cut_at_a_slash():
    """Python leaves the first 100 bytes in the header beside a PAX path."""
    name = "a/" * 60 + "file"
    ((entry, content),) = read_all(written(member(name, b"content")))
    assert (entry.name, content) == (name.encode(), b"content")


def test_global_headers_are_ignored():
    data = written(member("x"), pax_headers={"comment": "a git commit", "path": "never"})
    assert [e.name for e, _ in read_all(data)] == [b"x"]


@pytest.mark.parametrize(
    ("field", "number"),
    [
        (b"0000644\0", 0o644),
        (b"   644 \0", 0o644),
        (b"\0" * 8, 0),
        (b"\x80" + b"\0" * 6 + b"\x01", 1),
        (b"\xff" * 8, -1),
        (b"\x80\0\0\0" + (2**31).to_bytes(4, "big"), 2**31),
    ],
)
def test_numbers(field, number):
    assert parse_number(field) == number


@pytest.mark.parametrize(
    "field", [b"0x10\0\0\0\0", b"8\0\0\0\0\0\0\0", b"1_0\0\0\0\0\0", b"-1\0\0\0\0\0\0"]
)
def test_no_numbers(field):
    with pytest.raises(TarError):
        parse_number(field)


@pytest.mark.parametrize(
    "flags",
    [
        ["--format=v7"],
        ["--format=ustar"],
        ["--format=oldgnu"],
        ["--format=gnu", "--sparse"],
        ["--format=oldgnu", "--sparse"],
        ["--format=posix", "--sparse", "--sparse-version=0.0"],
        ["--format=posix", "--sparse", "--sparse-version=0.1"],
        ["--format=posix", "--sparse", "--sparse-version=1.0"],
    ],
    ids=" ".join,
)
def test_what_gnu_tar_writes(tmp_path, flags):
    source = tmp_path / "source"
    (source / "dir").mkdir(parents=True)
    (source / "dir" / "file").write_bytes(b"content" * 1000)
    (source / "empty").touch()
    (source / "link").symlink_to("dir/file")
    with (source / "holes").open("wb") as file:
        # More pieces than a header holds.
        for number in range(60):
            file.seek(number * 100_000)
            file.write(b"piece %d" % number)
        file.truncate(10_000_000)
    data = subprocess.run(
        ["tar", *flags, "-C", source, "-cf", "-", "."], check=True, capture_output=True
    ).stdout
    found = {os.path.normpath(e.name.decode()): (e, content) for e, content in read_all(data)}
    assert sorted(found) == [".", "dir", "dir/file", "empty", "holes", "link"]
    assert found["dir/file"][1] == b"content" * 1000
    assert found["holes"][1] == (source / "holes").read_bytes()
    if "--sparse" in flags:
        assert found["holes"][0].stored < 1_000_000
    assert found["link"][0].linkname == b"dir/file"


WHOLE = written(member("a" * 200, b"x" * 1000), member("b", b"y" * 600))


def test_end_without_zeros_is_an_end():
    data = written(member("b", b"y" * 512))[:1024]
    assert len(read_all(data)) == 1


@pytest.mark.parametrize("end", [100, 512, 1000, 1024, 2048, 2700, len(WHOLE.rstrip(b"\0")) - 1])
def test_cut_anywhere_else_is_an_error(end):
    with pytest.raises(TarError):
        read_all(WHOLE[:end])


@pytest.mark.parametrize(
    "body",
    [
        b"4 a=\n",
        b"6 a=b\nx",
        b"99 a=b\n",
        b"0 a=b\n",
        b"6 a:b\n",
        b"x a=b\n",
        b"11 size=-1\n",
        b"20 path=with\0nothing\n",
        b"14 mtime=soon\n",
        b"29 GNU.sparse.numbytes=1000\n\n",
    ],
)
def test_broken_pax_headers(body):
    info = tarfile.TarInfo("pax")
    info.type = tarfile.XHDTYPE
    info.size = len(body)
    with pytest.raises(TarError):
        read_all(written((info, body), member("x")))


@pytest.mark.parametrize(
    "records",
    [
        {"GNU.sparse.map": "0,5,3,5", "GNU.sparse.size": "10"},  # they overlap
        {"GNU.sparse.map": "0,5,5", "GNU.sparse.size": "10"},
        {"GNU.sparse.map": "0,5,5,5", "GNU.sparse.size": "9"},  # beyond the end
        {"GNU.sparse.map": "0,9", "GNU.sparse.size": "9"},  # not what is stored
        {"GNU.sparse.map": "-1,10", "GNU.sparse.size": "10"},
        {"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.realsize": "10"},
    ],
)
def test_broken_sparse_maps(records):
    with pytest.raises(TarError):
        read_all(written(member("x", b"0123456789", pax_headers=records)))


def test_entries_are_limited():
    data = written(*[member(str(n)) for n in range(5)])
    assert len(list(TarReader(iter([data]), max_entries=5))) == 5
    with pytest.raises(TarError, match="more than 4 entries"):
        list(TarReader(iter([data]), max_entries=4))


@given(st.data())
@settings(deadline=None, max_examples=300)
def test_damage_is_told(data):
    damaged = bytearray(WHOLE)
    for _ in range(data.draw(st.integers(1, 4))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    reader = TarReader(chunked(bytes(damaged), 777))
    try:
        for entry in reader:
            reader.read(min(entry.stored, reader.left))
    except TarError:
        pass
