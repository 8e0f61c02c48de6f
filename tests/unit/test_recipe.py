"""Tars that are kept as a recipe and the files unpacked of them: the very same bytes come back."""

import gzip
import io
import os
import random
import shutil
import tarfile
from functools import partial

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from test_layers import DIFF_ID, TAR, Storage, layer_tar

from pier.errors import Internal, NotFound
from pier.model.digest import digest_of
from pier.storage.compressed import CompressedLayers
from pier.storage.layers import Layer
from pier.storage.tar.errors import TarError
from pier.storage.tar.header import Entry
from pier.storage.tar.writer import encode, padding

FORMATS = (tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT)


@pytest.fixture
def storage(tmp_path):
    storage = Storage(str(tmp_path / "data"))
    yield storage
    storage.close()


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    storage = Storage(str(tmp_path_factory.mktemp("recipe") / "data"))
    yield storage
    storage.close()


def member(kind, name, target, content, **fields):
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    info.uid, info.gid = os.getuid(), os.getgid()
    info.mode = 0o755 if kind == tarfile.DIRTYPE else 0o640
    info.size = len(content) if kind == tarfile.REGTYPE else 0
    for field, value in fields.items():
        setattr(info, field, value)
    return info, content


def archive(members, form=tarfile.PAX_FORMAT, end=b""):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=form) as tar:
        for info, content in members:
            tar.addfile(info, io.BytesIO(content) if info.size else None)
    return buffer.getvalue() + end


def sparse(name, pieces, size):
    """Return a member as our writer makes one with holes, and what is stored of it."""
    entry = Entry()
    entry.name, entry.mode, entry.uid, entry.gid = name, 0o644, os.getuid(), os.getgid()
    entry.size, entry.sparse = size, pieces
    entry.stored = sum(length for _, length in pieces)
    return encode(entry) + os.urandom(entry.stored) + padding(entry.stored)


def add(storage, data):
    """Take a layer in as a load does, without a blob; None when its tar cannot be assembled."""
    staged = storage.layers.unpack(io.BytesIO(data))
    assert staged.diff_id == digest_of(data)
    if not staged.has_recipe:
        storage.layers.throw_away(staged)
        return None
    layer = Layer(staged.diff_id, staged.diff_id, staged.diff_id, "tar", staged.size)
    storage.layers.adopt(staged, layer.chain_id)
    with storage.database.transaction() as db:
        storage.layers.add(db, [layer])
    storage.layers.added([layer])
    return layer


def remove(storage, layer):
    with storage.database.transaction() as db:
        storage.layers.delete(db, [layer])
    storage.layers.deleted([layer])


def check(storage, data, chance):
    """Check that the tar is there in whole, in pieces of any size, and in ranges."""
    digest = digest_of(data)
    assert storage.blobs.exists(digest)
    assert not storage.blobs.has_file(digest)
    assert storage.blobs.size(digest) == len(data)
    assert storage.blobs.read(digest) == data
    with storage.blobs.open(digest) as file:
        pieces = []
        while piece := file.read(chance.randint(1, 1 + len(data))):
            pieces.append(piece)
        assert b"".join(pieces) == data
        for _ in range(5):
            start = chance.randint(0, len(data) + 3)
            assert file.seek(start) == file.tell() == start
            assert file.read(100) == data[start : start + 100]
        file.seek(-5, os.SEEK_END)
        assert file.read() == data[-5:]
        file.seek(0)
        assert file.read() == data


NAMES = st.lists(
    st.sampled_from(["a", "b", "c", "lib", "ä" * 60, ".wh.b"]), min_size=1, max_size=3
).map("/".join)
CONTENT = st.one_of(st.just(b""), st.binary(max_size=40), st.integers(1, 70_000).map(os.urandom))
MEMBER = st.builds(
    member,
    st.sampled_from(
        [tarfile.REGTYPE] * 4
        + [tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE]
    ),
    NAMES,
    NAMES,
    CONTENT,
    mtime=st.floats(0, 2e9),
)
END = st.one_of(st.just(b""), st.integers(0, 3000).map(bytes), st.binary(max_size=700))


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    members=st.lists(MEMBER, max_size=12),
    form=st.sampled_from(FORMATS),
    end=END,
    seed=st.integers(0, 1 << 30),
)
@example(members=[], form=tarfile.GNU_FORMAT, end=b"", seed=0)
def test_any_tar_comes_back(shared, members, form, end, seed):
    try:
        data = archive(members, form, end)
        layer = add(shared, data)
    except (ValueError, TarError):
        return
    if layer is None:
        names = [os.path.normpath(info.name) for info, _ in members]
        assert len(set(names)) < len(names) or any(
            other.startswith(f"{name}/") for name in names for other in names
        ), "only what takes another's place is a reason"
        return
    try:
        check(shared, data, random.Random(seed))
    finally:
        remove(shared, layer)


def test_large_files_and_many_frames(storage):
    chance = random.Random(7)
    members = [
        member(tarfile.REGTYPE, f"d{n % 7}/f{n}", "", chance.randbytes(chance.randint(0, 3000)))
        for n in range(900)
    ]
    members.insert(400, member(tarfile.REGTYPE, "large", "", chance.randbytes(5 << 20)))
    # Bytes that no file has, more than a frame.
    whiteout = member(tarfile.REGTYPE, ".wh.x", "", chance.randbytes(700_000))
    data = archive([*members, whiteout], end=bytes(300_000))
    add(storage, data)
    check(storage, data, chance)
    assert storage.blobs.disk_size(digest_of(data)) < 900_000


def test_holes(storage):
    data = (
        sparse(b"end", [(5000, 700)], 1 << 20)
        + sparse(b"hole", [(0, 512), (8192, 3), (9000, 0)], 9000)
        + sparse(b"nothing", [(4096, 0)], 4096)
        + bytes(1024)
    )
    add(storage, data)
    check(storage, data, random.Random(1))


def test_links(storage):
    """A file's second name has no data; a path may lead through a link of the layer's own."""
    data = archive(
        [
            member(tarfile.DIRTYPE, "usr/bin", "", b""),
            member(tarfile.SYMTYPE, "bin", "/usr/bin", b""),
            member(tarfile.REGTYPE, "bin/sh", "", b"shell" * 300),
            member(tarfile.LNKTYPE, "usr/bin/ash", "bin/sh", b""),
            member(tarfile.SYMTYPE, "etc", "..", b""),
            member(tarfile.REGTYPE, "etc/passwd", "", b"root"),
        ]
    )
    add(storage, data)
    check(storage, data, random.Random(2))


@pytest.mark.parametrize(
    "later",
    [
        member(tarfile.REGTYPE, "d/f", "", b"new"),
        member(tarfile.SYMTYPE, "d/f", "x", b""),
        member(tarfile.SYMTYPE, "d", "x", b""),
        member(tarfile.LNKTYPE, "d/f", "other", b""),
    ],
)
def test_content_that_is_replaced_has_no_recipe(storage, later):
    """Also where the file lives on under its second name: the path is what counts."""
    members = [
        member(tarfile.REGTYPE, "other", "", b"other"),
        member(tarfile.REGTYPE, "d/f", "", b"old"),
        member(tarfile.LNKTYPE, "second", "d/f", b""),
    ]
    assert add(storage, archive([*members, later])) is None
    assert storage.layers.unpack(io.BytesIO(archive(members))).has_recipe


def test_compressed_layers_have_none(storage):
    assert not storage.layers.unpack(io.BytesIO(gzip.compress(TAR))).has_recipe


def test_over_a_restart(storage):
    add(storage, TAR)
    storage.restart()
    assert storage.blobs.read(DIFF_ID) == TAR
    assert list(storage.blobs.all()) == []


def test_it_goes_with_the_layer(storage):
    layer = add(storage, TAR)
    remove(storage, layer)
    assert not storage.blobs.exists(DIFF_ID)
    for ask in (storage.blobs.open, storage.blobs.size, storage.blobs.disk_size):
        with pytest.raises(NotFound):
            ask(DIFF_ID)


def test_two_layers_of_the_same_tar(storage):
    layer = add(storage, TAR)
    other = Layer(digest_of(b"other"), DIFF_ID, DIFF_ID, "tar", layer.size)
    with storage.blobs.open(DIFF_ID) as source:
        storage.layers.adopt(storage.layers.unpack(source), other.chain_id)
    with storage.database.transaction() as db:
        storage.layers.add(db, [other])
    storage.layers.added([other])
    remove(storage, layer)
    assert storage.blobs.read(DIFF_ID) == TAR


def test_a_layer_that_is_there_without_gets_the_recipe(storage):
    """Another load was quicker, with the layer compressed."""
    storage.layers.adopt(storage.layers.unpack(io.BytesIO(gzip.compress(TAR))), DIFF_ID)
    assert not storage.blobs.exists(DIFF_ID)
    storage.layers.adopt(storage.layers.unpack(io.BytesIO(TAR)), DIFF_ID)
    assert storage.blobs.read(DIFF_ID) == TAR


def damage_content(diff):
    (diff / "b").write_bytes(b"Two!")


def damage_size(diff):
    (diff / "b").write_bytes(b"two")


def damage_name(diff):
    (diff / "b").rename(diff / "c")


def damage_kind(diff):
    (diff / "b").unlink()
    (diff / "b").symlink_to("/etc/passwd")


def damage_recipe(diff):
    with open(diff.parent / "recipe", "r+b") as file:
        file.seek(75)
        file.write(b"\xff\xff")


def damage_recipe_size(diff):
    os.truncate(diff.parent / "recipe", 60)


DAMAGES = [
    *(damage_content, damage_size, damage_name),
    *(damage_kind, damage_recipe, damage_recipe_size),
]


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_layer_is_never_given_out_whole(storage, tmp_path, damage):
    add(storage, TAR)
    damage(tmp_path / "data" / "layers" / DIFF_ID[7:] / "diff")
    given = []
    with storage.blobs.open(DIFF_ID) as file:
        for _ in range(2):  # it is not forgotten
            with pytest.raises(Internal, match=DIFF_ID):
                given.extend(iter(partial(file.read, 512), b""))
    assert sum(map(len, given)) < len(TAR)


def other_boot(storage):
    storage.root.settle()
    with storage.database.transaction() as db:
        db.execute("UPDATE layers SET unsynced = 'another boot'")


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_torn_layer_is_lost(storage, tmp_path, damage):
    layer = add(storage, TAR)
    other_boot(storage)
    damage(tmp_path / "data" / "layers" / DIFF_ID[7:] / "diff")
    storage.restart()
    assert storage.lost == [layer]
    assert os.listdir(storage.root.join("layers")) == []
    assert not storage.blobs.exists(DIFF_ID)


def test_a_torn_layer_is_made_anew_of_itself(storage):
    """Its contents came to the disk, and not what is said of them."""
    data = archive([member(tarfile.REGTYPE, "f", "", b"x"), member(tarfile.SYMTYPE, "s", "f", b"")])
    layer = add(storage, data)
    other_boot(storage)
    os.chmod(os.path.join(storage.diff(layer.chain_id), "f"), 0o777)
    os.unlink(os.path.join(storage.diff(layer.chain_id), "s"))
    storage.restart()
    assert storage.lost == []
    assert os.stat(os.path.join(storage.diff(layer.chain_id), "f")).st_mode & 0o777 == 0o640
    assert os.readlink(os.path.join(storage.diff(layer.chain_id), "s")) == "f"
    assert storage.blobs.read(layer.diff_id) == data
    storage.root.settle()
    assert os.listdir(storage.root.join("staging")) == os.listdir(storage.root.join("trash")) == []


def test_a_layer_that_is_gone_cannot_be_had(storage):
    layer = add(storage, TAR)
    shutil.rmtree(storage.root.join("layers", DIFF_ID[7:]))
    storage.restart()
    assert storage.lost == [layer]


def test_a_disk_without_room_for_it(storage, monkeypatch):
    """Nothing is left of a layer whose recipe could not be written."""
    write = os.write

    def full(fd, data):
        if os.readlink(f"/proc/self/fd/{fd}").endswith("/recipe"):
            raise OSError(28, "No space left on device")
        return write(fd, data)

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(OSError, match="No space left"):
        storage.layers.unpack(io.BytesIO(layer_tar(f=b"x" * 1000)))
    storage.root.settle()
    assert os.listdir(storage.root.join("staging")) == []


def test_what_is_compressed_is_compared(storage):
    """Its new digest would hide that it is another tar."""
    layer = add(storage, TAR)
    compressed = CompressedLayers(storage.database, storage.blobs)
    digest = compressed.make(layer.diff_id, layer.blob, "gzip", None)
    assert gzip.decompress(storage.blobs.read(digest)) == TAR
    with pytest.raises(Internal, match="changed on the disk"):
        compressed.make(digest_of(b"another"), layer.blob, "gzip", 9)
    assert list(storage.blobs.all()) == [digest]
