import gzip
import io
import os
import tarfile

import pytest
import zstandard

from pier.errors import InvalidParameter, NotFound
from pier.model.digest import digest_of
from pier.storage.blobs import Blobs
from pier.storage.database import Database
from pier.storage.layers import Layer, Layers, check_diff_id
from pier.storage.root import DataRoot
from pier.storage.tar.errors import TarError


def layer_tar(**files):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.uid, info.gid, info.size = os.getuid(), os.getgid(), len(content)
            tar.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


TAR = layer_tar(a=b"one", b=b"two!")
DIFF_ID = digest_of(TAR)


class Storage:
    """A data root with its layers; `restart` does what a new engine does after SIGKILL."""

    def __init__(self, path):
        self.path = path
        self.open()

    def open(self):
        self.root = DataRoot(self.path)
        self.database = Database(self.root.join("pier.db"), later=self.root.later)
        self.attach()

    def attach(self):
        self.blobs = Blobs(self.root)
        self.layers = Layers(self.root, self.database, self.blobs)
        self.lost = self.layers.open()

    def close(self):
        self.root.settle()
        self.database.close()
        self.root.close()

    def restart(self):
        self.close()
        self.open()

    def add(self, data=TAR):
        """Take a layer all the way in; its chain ID is its diff ID."""
        staged = self.layers.unpack(io.BytesIO(data))
        layer = Layer(staged.diff_id, staged.diff_id, self.blobs.put(data), "tar", staged.size)
        self.layers.adopt(staged, layer.chain_id)
        with self.database.transaction() as db:
            self.layers.add(db, [layer])
        self.layers.added([layer])
        return layer

    def diff(self, chain_id):
        return self.root.join(self.layers.path(chain_id))


@pytest.fixture
def storage(tmp_path):
    storage = Storage(str(tmp_path / "data"))
    yield storage
    storage.close()


@pytest.mark.parametrize("compress", [bytes, gzip.compress, zstandard.compress])
def test_unpack(storage, compress):
    staged = storage.layers.unpack(io.BytesIO(compress(TAR)))
    assert staged.diff_id == DIFF_ID
    assert staged.size == 7
    assert sorted(os.listdir(os.path.join(staged.path, "diff"))) == ["a", "b"]
    storage.layers.throw_away(staged)
    assert os.listdir(storage.root.join("staging")) == []


def test_padding_counts_for_the_diff_id(storage):
    """What follows the archive's end is part of what was hashed."""
    padded = TAR + bytes(10240) + b"more"
    for data in (padded, gzip.compress(padded)):
        assert storage.layers.unpack(io.BytesIO(data)).diff_id == digest_of(padded)


def test_large_layer_is_unpacked_with_a_thread(storage):
    data = layer_tar(**{f"f{n}": os.urandom(100_000) for n in range(60)})
    assert storage.layers.unpack(io.BytesIO(gzip.compress(data, 1))).diff_id == digest_of(data)


@pytest.mark.parametrize(
    "data", [TAR[:514], TAR[:1100], b"nonsense" * 100, gzip.compress(TAR, mtime=0)[:60]]
)
@pytest.mark.parametrize("size", [10, 1 << 20])
def test_broken_archive_leaves_nothing(storage, data, size):
    with pytest.raises(TarError):
        storage.layers.unpack(io.BytesIO(data), size=size)
    assert os.listdir(storage.root.join("staging")) == []


def test_wrong_diff_id(storage):
    staged = storage.layers.unpack(io.BytesIO(TAR))
    check_diff_id(staged, DIFF_ID, 0)
    with pytest.raises(InvalidParameter, match="invalid diffID for layer 3"):
        check_diff_id(staged, digest_of(b""), 3)


def test_life(storage):
    layer = storage.add()
    assert storage.layers.path(DIFF_ID) == f"layers/{DIFF_ID[7:]}/diff"
    assert os.listdir(storage.diff(DIFF_ID))
    assert storage.layers.has_blob(layer.blob)
    storage.restart()
    assert storage.layers.get(DIFF_ID) == layer
    with storage.database.transaction() as db:
        storage.layers.delete(db, [layer])
    storage.layers.deleted([layer])
    assert storage.layers.get(DIFF_ID) is None
    with pytest.raises(NotFound):
        storage.layers.path(DIFF_ID)
    assert os.listdir(storage.root.join("layers")) == []


def test_adopting_twice_keeps_the_first(storage):
    storage.add()
    storage.layers.adopt(storage.layers.unpack(io.BytesIO(TAR)), DIFF_ID)
    assert os.listdir(storage.root.join("staging")) == []
    assert sorted(os.listdir(storage.diff(DIFF_ID))) == ["a", "b"]


def test_layer_without_a_row_is_refuse(storage):
    storage.layers.adopt(storage.layers.unpack(io.BytesIO(TAR)), DIFF_ID)
    storage.restart()
    assert os.listdir(storage.root.join("layers")) == []


def test_layers_reach_the_disk_in_the_background(storage):
    storage.add()
    storage.root.settle()
    assert storage.database.rows("SELECT unsynced FROM layers") == [("",)]


def test_layer_of_another_boot_is_made_anew(storage):
    """The machine went down before the files were on the disk: some are empty."""
    storage.add(gzip.compress(TAR))
    storage.root.settle()
    with storage.database.transaction() as db:
        db.execute("UPDATE layers SET unsynced = 'another boot'")
    with open(os.path.join(storage.diff(DIFF_ID), "a"), "w"):
        pass
    storage.restart()
    assert storage.lost == []
    with open(os.path.join(storage.diff(DIFF_ID), "a"), "rb") as file:
        assert file.read() == b"one"
    storage.root.settle()
    assert storage.database.rows("SELECT unsynced FROM layers") == [("",)]


def test_missing_layer_is_made_anew(storage):
    storage.add()
    storage.root.discard(storage.root.join("layers", DIFF_ID[7:]))
    storage.restart()
    assert storage.lost == []
    assert sorted(os.listdir(storage.diff(DIFF_ID))) == ["a", "b"]


def test_layer_whose_blob_is_gone_too_is_lost(storage):
    layer = storage.add()
    storage.blobs.delete(layer.blob)
    storage.root.discard(storage.root.join("layers", DIFF_ID[7:]))
    storage.restart()
    assert storage.lost == [layer]
    assert storage.layers.get(DIFF_ID) is None
    assert storage.database.rows("SELECT * FROM layers") == []
