"""Importing a root file system, and the instructions that edit an image's config."""

import bz2
import gzip
import io
import json
import lzma
import os

import msgspec
import pytest
from test_image_store import Images
from test_layers import layer_tar

from pier.errors import InvalidParameter
from pier.images.changes import apply_changes
from pier.images.importer import import_image
from pier.images.views import history
from pier.model.container import ContainerConfig
from pier.model.digest import digest_of
from pier.model.oci import OCI_LAYER
from pier.storage.tar.errors import TarError

ROOT = layer_tar(hello=b"world")


@pytest.fixture
def images(tmp_path):
    images = Images(str(tmp_path / "data"))
    yield images
    assert os.listdir(images.root.join("ingest")) == []
    assert os.listdir(images.root.join("staging")) == []
    images.close()


@pytest.mark.parametrize("compress", [bz2.compress, lzma.compress])
def test_what_registries_do_not_take_is_kept_as_gzip(images, compress):
    image = import_image(images.store, io.BytesIO(compress(ROOT)), repo="old")
    layer = images.layers.get(image.chain_ids[0])
    assert layer.media_type == OCI_LAYER + "+gzip"
    assert layer.diff_id == digest_of(ROOT)
    assert gzip.decompress(images.blobs.read(layer.blob)) == ROOT
    assert images.files() == (1, 2), "the layer and the config"


@pytest.mark.parametrize("compress", [bytes, gzip.compress])
def test_import(images, compress):
    image = import_image(
        images.store,
        io.BytesIO(compress(ROOT)),
        repo="made/by",
        tag="hand",
        changes=["CMD true", "LABEL a=b"],
        platform="linux/arm64",
    )
    assert image == images.store.get("made/by:hand")
    assert image.chain_ids == (digest_of(ROOT),)
    assert os.listdir(images.diff(image.chain_ids[0])) == ["hello"]
    written = json.loads(images.blobs.read(image.id))
    assert written["architecture"] == "arm64"
    assert written["rootfs"] == {"type": "layers", "diff_ids": [digest_of(ROOT)]}
    assert written["config"] == {"Cmd": ["/bin/sh", "-c", "true"], "Labels": {"a": "b"}}
    assert written["history"] == [{"created": written["created"], "comment": "Imported from -"}]
    (step,) = history(images.store, image)
    assert (step.Id, step.Tags, step.Size) == (image.id, ["made/by:hand"], 5)


def test_import_without_a_name(images):
    image = import_image(images.store, io.BytesIO(ROOT), message="by hand")
    assert image.tags == []
    assert image.config.comment == "by hand"


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"repo": "A"}, "must be lowercase"),
        ({"repo": "a", "tag": "b/c"}, "invalid tag format"),
        ({"changes": ["RUN true"]}, "RUN is not a valid change command"),
        ({"platform": "windows/amd64"}, "operating system is not supported"),
        ({"platform": "a/b/c/d"}, "cannot parse platform"),
    ],
)
def test_bad_parameters_are_told_before_reading(images, given, message):
    source = io.BytesIO(ROOT)
    with pytest.raises(InvalidParameter, match=message):
        import_image(images.store, source, **given)
    assert source.tell() == 0


def test_no_tar(images):
    with pytest.raises(TarError):
        import_image(images.store, io.BytesIO(b"nonsense" * 200))
    assert images.store.all() == []


# instructions; the fields of the config that they leave changed
@pytest.mark.parametrize(
    ("changes", "config"),
    [
        (["CMD a  b"], {"Cmd": ["/bin/sh", "-c", "a  b"]}),
        (['CMD ["a", "b c"]'], {"Cmd": ["a", "b c"]}),
        (["CMD [a]"], {"Cmd": ["/bin/sh", "-c", "[a]"]}),
        (['entrypoint ["a"]'], {"Entrypoint": ["a"]}),
        (["ENV A=1 B='x y' C=\"$A\""], {"Env": ["A=1", "B=x y", "C="]}),
        (["ENV A=1", "ENV B=$A-${A}-\\$A '$A'=2"], {"Env": ["A=1", "B=1-1-$A", "$A=2"]}),
        (["ENV A=1", "ENV B=${A:+set} C=${X:-none}"], {"Env": ["A=1", "B=set", "C=none"]}),
        (["ENV A some  words"], {"Env": ["A=some  words"]}),
        (["ENV A=1", "ENV A=2"], {"Env": ["A=2"]}),
        (["ENV A=a\\ b"], {"Env": ["A=a b"]}),
        (["EXPOSE 80 53/udp 90-91"], {"ExposedPorts": {"80/tcp": {}, "53/udp": {}, "90/tcp": {}, "91/tcp": {}}}),
        (['LABEL a=b "c d"="e f"'], {"Labels": {"a": "b", "c d": "e f"}}),
        (["LABEL a=1", "LABEL b=2"], {"Labels": {"a": "1", "b": "2"}}),
        (["USER u:g", "STOPSIGNAL SIGINT"], {"User": "u:g", "StopSignal": "SIGINT"}),
        (["VOLUME /a /b", 'VOLUME ["/c d"]'], {"Volumes": {"/a": {}, "/b": {}, "/c d": {}}}),
        (["WORKDIR a", "WORKDIR ../b"], {"WorkingDir": "/b"}),
        (["ONBUILD RUN a", "ONBUILD COPY . /"], {"OnBuild": ["RUN a", "COPY . /"]}),
        (["HEALTHCHECK NONE"], {"Healthcheck": {"Test": ["NONE"]}}),
        (
            ["HEALTHCHECK --interval=1m30s --start-period=2s --retries=3 CMD curl x"],
            {
                "Healthcheck": {
                    "Test": ["CMD-SHELL", "curl x"],
                    "Interval": 90 * 10**9,
                    "StartPeriod": 2 * 10**9,
                    "Retries": 3,
                }
            },
        ),
        (["# comment", "", "CMD a \\\n  b\nUSER u"], {"Cmd": ["/bin/sh", "-c", "a   b"], "User": "u"}),
        (["CMD\ttabs"], {"Cmd": ["/bin/sh", "-c", "tabs"]}),
    ],
)  # fmt: skip
def test_changes(changes, config):
    edited = ContainerConfig()
    apply_changes(edited, changes)
    plain = msgspec.to_builtins(ContainerConfig())
    tree = msgspec.to_builtins(edited)
    assert {key: value for key, value in tree.items() if value != plain[key]} == config


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("FROM x", "FROM is not a valid change command"),
        ("CMD", "CMD requires at least one argument"),
        ("ENV A", "ENV must have two arguments"),
        ("ENV A=1 B", "can't find = in"),
        ("LABEL =x", "LABEL names can not be blank"),
        ("EXPOSE x", "invalid containerPort: x"),
        ("EXPOSE 0", "invalid containerPort: 0"),
        ("EXPOSE 70000", "invalid containerPort: 70000"),
        ("EXPOSE 9-1", "invalid containerPort: 9-1"),
        ("USER a b", "USER requires exactly one argument"),
        ('VOLUME [""]', "VOLUME specified can not be an empty string"),
        ("HEALTHCHECK --interval=x CMD a", "--interval"),
        ("HEALTHCHECK RUN a", "Unknown type"),
        ("HEALTHCHECK CMD", "Missing command after HEALTHCHECK CMD"),
        ("ONBUILD ONBUILD x", "Chaining ONBUILD"),
        ("ONBUILD FROM x", "FROM isn't allowed as an ONBUILD trigger"),
    ],
)
def test_bad_changes(change, message):
    with pytest.raises(InvalidParameter, match=message):
        apply_changes(ContainerConfig(), [change])
