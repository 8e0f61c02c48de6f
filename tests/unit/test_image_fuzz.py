"""Documents out of archives and registries, damaged at random: understood or refused, never a crash."""

import io
import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from test_image_load import HOST, ONE, TWO, Layout
from test_image_store import Images

from pier.errors import InvalidParameter, NotFound
from pier.images.load import load
from pier.model.oci import chain_ids, decode_config, decode_index, decode_manifest

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(
        st.sampled_from(
            ["config", "layers", "digest", "size", "mediaType", "rootfs", "diff_ids", "manifests",
             "platform", "Env", "Labels", "ExposedPorts", "history", "os", "annotations"]
        ),
        inner,
        max_size=5,
    ),
    max_leaves=20,
)  # fmt: skip


@pytest.mark.parametrize("decode", [decode_config, decode_manifest, decode_index])
@given(tree=JSON)
def test_any_document(decode, tree):
    try:
        found = decode(json.dumps(tree).encode())
    except InvalidParameter:
        return
    if decode is decode_config:
        assert len(chain_ids(found.rootfs.diff_ids)) == len(found.rootfs.diff_ids)


@pytest.mark.parametrize("decode", [decode_config, decode_manifest, decode_index])
@given(data=st.binary(max_size=60))
def test_any_bytes(decode, data):
    try:
        decode(data)
    except InvalidParameter:
        return
    assert isinstance(json.loads(data), dict), "what is taken is a document at least, as {} is"


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    images = Images(str(tmp_path_factory.mktemp("fuzz") / "data"))
    yield images
    images.close()


def archive():
    layout = Layout()
    top = layout.image(ONE, TWO, platform=HOST)
    return layout.tar(top)


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow])
@given(at=st.integers(0, len(archive()) - 1), byte=st.integers(0, 255), cut=st.booleans())
def test_damaged_archive(images, at, byte, cut):
    """One byte wrong, or the end missing: the image is refused, or is there with its layers."""
    data = archive()
    data = data[:at] if cut else data[:at] + bytes([byte]) + data[at + 1 :]
    try:
        loaded = load(images.store, io.BytesIO(data), lambda _: None)
    except (InvalidParameter, NotFound):
        assert images.store.all() == []
        loaded = []
    for image in loaded:
        assert len(image.chain_ids) == 2
        images.remove(image.id)
    assert images.files() == (0, 0)
