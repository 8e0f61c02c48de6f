"""Manifests, indexes and configs as tools write them."""

import pytest

from pier.errors import InvalidParameter
from pier.model.digest import digest_of
from pier.model.oci import chain_ids, decode_config, decode_index, decode_manifest

A, B, C = (str(digest_of(letter)) for letter in (b"a", b"b", b"c"))


def test_config_as_docker_writes_it():
    config = decode_config(
        b'{"architecture":"amd64","config":{"Env":null,"Labels":null,"ExposedPorts":{"80/tcp":null},'
        b'"Volumes":{"/data":{}},"Cmd":"true","Healthcheck":{"Test":["NONE"]},"Unknown":1},'
        b'"container_config":{"Hostname":"x"},"history":null,"os":"linux","rootfs":'
        b'{"type":"layers","diff_ids":["' + A.encode() + b'"]},"variant":null}'
    )
    assert config.config.Env is None
    assert config.config.Labels == {}
    assert list(config.config.ExposedPorts) == ["80/tcp"]
    assert config.config.Cmd == ["true"]
    assert str(config.platform) == "linux/amd64"


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"[]",
        b"{}",
        b'{"rootfs":null}',
        b'{"rootfs":{"diff_ids":["sha256:1"]}}',
        b'{"rootfs":{"diff_ids":[]},"config":{"Env":3}}',
        b'{"rootfs":' * 100_000,
        b"[" * 100_000 + b"]" * 100_000,
    ],
)
def test_no_config(data):
    with pytest.raises(InvalidParameter):
        decode_config(data)


def test_what_is_no_text_is_read_as_go_does():
    config = decode_config(b'{"rootfs":{"diff_ids":[]},"config":{"Labels":{"by":"Andr\xe9"}}}')
    assert config.config.Labels == {"by": "Andr\ufffd"}
    for data in (b"\xff", b'{"rootfs":{"diff_ids":[]},"a\xff'):
        with pytest.raises(InvalidParameter):
            decode_config(data)


def test_digests_are_checked():
    with pytest.raises(InvalidParameter):
        decode_manifest(b'{"config":{"digest":"sha256:../../etc/passwd"}}')
    with pytest.raises(InvalidParameter):
        decode_index(b'{"manifests":[{"digest":"nothing"}]}')


def test_chain_ids():
    assert chain_ids([]) == []
    first, second, third = chain_ids([A, B, C])
    assert first == A
    assert second == digest_of(f"{A} {B}".encode())
    assert third == digest_of(f"{second} {C}".encode())
