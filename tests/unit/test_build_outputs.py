"""Attributes of outputs and caches, compressions, cache documents."""

import gzip
import os
from collections.abc import Iterator, Mapping

import msgspec
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from pier.build.caches import document
from pier.build.caches.document import CachedLayer, CachedStep
from pier.build.caches.entry import CacheEntry, check_export, check_import, parse_cache_entry
from pier.build.export.attributes import image_attributes, tree_attributes
from pier.errors import InvalidParameter
from pier.storage.compress import MEMBER, compress


def test_image_attributes() -> None:
    found = image_attributes(
        {
            "name": "a,b:1",
            "push": "",
            "store": "0",
            "compression": "zstd",
            "compression-level": "19",
            "force-compression": "TRUE",
            "annotation.a.b": "1",
            "annotation-manifest[linux/arm64].k": "2",
            "annotation-index-descriptor.d": "3",
            "source-date-epoch": "5",
            "unpack": "true",
            "dest": "x.tar",
        }
    )
    assert (found.names, found.push, found.store, found.epoch) == (("a", "b:1"), True, False, 5)
    assert (found.compression.kind, found.compression.level) == ("zstd", 19)
    assert found.compression.force
    assert found.oci is True  # as zstd wants it
    told = [(a.target, a.on_descriptor, str(a.platform or ""), a.key) for a in found.annotations]
    assert told == [
        ("manifest", False, "", "a.b"),
        ("manifest", False, "linux/arm64", "k"),
        ("index", True, "", "d"),
    ]


@pytest.mark.parametrize(
    ("attributes", "message"),
    [
        ({"push": "yes"}, 'non-bool value specified for push: strconv.ParseBool: parsing "yes"'),
        ({"compression": "lzma"}, "unsupported layer compression type: lzma"),
        ({"compression-level": "x"}, "non-integer value x"),
        ({"compression": "zstd", "compression-level": "23"}, "not between 0 and 22"),
        ({"source-date-epoch": "x"}, "invalid SOURCE_DATE_EPOCH: x"),
        ({"nonsense": "1"}, "unknown attribute"),
        ({"annotation-index[linux/amd64].k": "v"}, "for no platform"),
    ],
)
def test_image_attributes_refused(attributes: Mapping[str, str], message: str) -> None:
    with pytest.raises(InvalidParameter) as failure:
        image_attributes(attributes)
    assert message in failure.value.message


def test_tree_attributes() -> None:
    found = tree_attributes({"platform-split": "false", "attestation-prefix": "p-"})
    assert (found.platform_split, found.attestation_prefix) == (False, "p-")
    with pytest.raises(InvalidParameter):
        tree_attributes({"compression": "gzip"})


def chunks(data: bytes, size: int) -> Iterator[bytes]:
    for at in range(0, len(data), size):
        yield data[at : at + size]


@pytest.mark.parametrize("level", [None, 0, 1, 3, 4, 9])
@pytest.mark.parametrize("size", [0, 1, MEMBER - 1, MEMBER, 3 * MEMBER + 7])
def test_gzip(level: int | None, size: int) -> None:
    data = (os.urandom(1000) * (size // 1000 + 1))[:size]
    packed = b"".join(compress(chunks(data, 77_777), "gzip", level))
    assert gzip.decompress(packed) == data
    # However it is cut, the same bytes.
    assert packed == b"".join(compress(chunks(data, 1 << 20), "gzip", level))


@pytest.mark.parametrize("size", [0, 5, 5 << 20])
def test_zstd(size: int) -> None:
    data = (b"0123456789" * (size // 10 + 1))[:size]
    packed = b"".join(compress(chunks(data, 100_000), "zstd", 3))
    reader = zstandard.ZstdDecompressor().decompressobj()
    assert reader.decompress(packed) == data
    assert packed == b"".join(compress(chunks(data, 1 << 20), "zstd", 3))


def test_plain() -> None:
    assert b"".join(compress(chunks(b"abc", 1), "uncompressed")) == b"abc"


@pytest.mark.parametrize(
    ("text", "kind", "attributes"),
    [
        ("name:1", "registry", {"ref": "name:1"}),
        ("type=local,src=/x", "local", {"src": "/x"}),
        ('type=registry,"ref=a,b"', "registry", {"ref": "a,b"}),
    ],
)
def test_cache_entries(text: str, kind: str, attributes: Mapping[str, str]) -> None:
    assert parse_cache_entry(text) == CacheEntry(kind, attributes)


def test_cache_entries_refused() -> None:
    for text in ("ref=x", "type=local,src"):
        with pytest.raises(InvalidParameter):
            parse_cache_entry(text)
    for entry in (CacheEntry("inline"), CacheEntry("s3"), CacheEntry("local", {"dest": "/x"})):
        with pytest.raises(InvalidParameter):
            check_import(entry)
    check_export(CacheEntry("inline"))
    with pytest.raises(InvalidParameter):
        check_export(CacheEntry("local", {"src": "/x"}))


LAYERS = [
    CachedLayer("c1", "", "d1", "sha256:b1", "gzip", 1, "t1"),
    CachedLayer("c2", "c1", "d2", "sha256:b2", "gzip", 2, "t2"),
]
STEPS = [
    CachedStep("k1", "base", b'{"a":1}', "t1", ["c1"]),
    CachedStep("k2", "k1", b'{"a":2}', "t2", ["c1", "c2"]),
    CachedStep("k3", "k2", b'{"a":3}', "t3", ["c1", "c2"]),
]


def test_cache_document() -> None:
    data = document.encode(STEPS, LAYERS, notes=False)
    tree = msgspec.json.decode(data)
    # As Go writes it: an index of 0 is left out, -1 is not.
    assert tree["layers"] == [{"blob": "sha256:b1", "parent": -1}, {"blob": "sha256:b2"}]
    assert tree["records"][0] == {"layers": [{"createdAt": "t1"}], "digest": "sha256:k1"}
    assert tree["records"][1]["inputs"] == [[{}]]
    assert tree["records"][2]["inputs"] == [[{"link": 1}]]
    config, steps = document.decode(data)
    assert steps == {"k1": b'{"a":1}', "k2": b'{"a":2}', "k3": b'{"a":3}'}
    assert config.records[2].results[0].layer == 1
    noted = msgspec.json.decode(document.encode(STEPS, LAYERS, notes=True))
    assert noted["layers"][1]["annotations"]["diffID"] == "d2"


def test_cache_document_of_another_builder() -> None:
    text = b'{"layers":[{"blob":"sha256:1","parent":-1}],"records":[{"digest":"sha256:2"}]}'
    config, steps = document.decode(text)
    assert len(config.records) == 1
    assert steps == {}


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=300))
def test_cache_documents_that_are_none(data: bytes) -> None:
    for text in (data, b'{"pier":"' + data.hex().encode() + b'"}'):
        try:
            document.decode(text)
        except InvalidParameter:
            continue
