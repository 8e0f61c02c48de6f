"""The data root and its blobs."""

import os

import pytest

from pier.errors import Internal, InvalidParameter, NotFound, Unavailable
from pier.model.digest import digest_of, parse_digest
from pier.storage.blobs import Blobs
from pier.storage.root import DataRoot


@pytest.fixture
def root(tmp_path):
    root = DataRoot(str(tmp_path / "data"))
    yield root
    root.close()


@pytest.fixture
def blobs(root):
    return Blobs(root)


def test_in_and_out(blobs, root):
    digest = blobs.put(b"content")
    assert digest == digest_of(b"content")
    assert blobs.exists(digest)
    assert blobs.read(digest) == b"content"
    assert blobs.size(digest) == 7
    assert list(blobs.all()) == [digest]
    blobs.delete(digest)
    blobs.delete(digest)
    assert not blobs.exists(digest)
    with pytest.raises(NotFound):
        blobs.open(digest)
    root.settle()
    assert os.listdir(root.join("trash")) == []


def test_other_algorithm(blobs):
    with blobs.ingest("sha512") as writer:
        writer.write(b"abc")
        digest = writer.commit()
    assert digest.startswith("sha512:ddaf35a")
    assert blobs.read(parse_digest(digest)) == b"abc"


def test_nothing_is_there_before_commit(blobs, root):
    with blobs.ingest() as writer:
        writer.write(b"one")
        writer.write(memoryview(b"two"))
        assert list(blobs.all()) == []
        assert writer.head(4) == b"onet"
        with writer.reader() as reader:
            assert reader.read() == b"onetwo"
        writer.commit()
        assert writer.head(9) == b"onetwo"
    assert blobs.read(digest_of(b"onetwo")) == b"onetwo"
    assert os.listdir(root.join("ingest")) == []


def test_wrong_content_is_refused(blobs, root):
    with blobs.ingest() as writer:
        writer.write(b"evil")
        with pytest.raises(InvalidParameter, match="does not match its digest"):
            writer.commit(digest_of(b"good"))
    assert list(blobs.all()) == []
    assert os.listdir(root.join("ingest")) == []


def test_full_disk_leaves_nothing(blobs, root):
    """/dev/full stands for the disk: its writes fail with ENOSPC."""
    with blobs.ingest() as writer:
        full = os.open("/dev/full", os.O_WRONLY)
        os.dup2(full, writer._fd)
        os.close(full)
        with pytest.raises(OSError, match="No space left"):
            writer.write(b"x")
    assert os.listdir(root.join("ingest")) == []


def test_one_engine_at_a_time(root):
    with pytest.raises(Unavailable, match="in use by another engine"):
        DataRoot(root.path)


def test_start_sweeps(tmp_path):
    path = tmp_path / "data"
    DataRoot(str(path)).close()
    (path / "ingest" / "half").write_text("x")
    (path / "staging" / "half" / "diff" / "deep").mkdir(parents=True)
    (path / "trash" / "old").mkdir()
    (path / "containers" / "kept").mkdir()
    root = DataRoot(str(path))
    try:
        assert os.listdir(path / "ingest") == os.listdir(path / "staging") == []
        root.settle()
        assert os.listdir(path / "trash") == []
        assert os.listdir(path / "containers") == ["kept"]
    finally:
        root.close()


def test_version(tmp_path):
    root = DataRoot(str(tmp_path))
    root.close()
    (tmp_path / "version").write_text("2\n")
    with pytest.raises(Internal, match="has version 2"):
        DataRoot(str(tmp_path))
    (tmp_path / "version").write_text("1\n")
    DataRoot(str(tmp_path)).close()
