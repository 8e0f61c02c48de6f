import pytest

from pier.errors import InvalidParameter
from pier.model.digest import digest_of, finish, hex_of, new_hash, parse_digest, short

HEX = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def test_parts():
    digest = digest_of(b"abc")
    assert digest == f"sha256:{HEX}" == parse_digest(digest)
    assert hex_of(digest) == HEX
    assert short(digest) == HEX[:12] == short(HEX)


def test_other_algorithms():
    hasher = new_hash("sha512")
    hasher.update(b"abc")
    assert parse_digest(finish("sha512", hasher)).startswith("sha512:ddaf35a1936")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "invalid checksum digest format"),
        ("sha256", "invalid checksum digest format"),
        ("sha256:", "invalid checksum digest format"),
        (f"SHA256:{HEX}", "invalid checksum digest format"),
        (f"sha256:{HEX.upper()}", "invalid checksum digest format"),
        (f"sha256:{HEX}\n", "invalid checksum digest format"),
        (f"sha256:../{HEX}", "invalid checksum digest format"),
        ("sha256:abcd", "invalid checksum digest length"),
        (f"sha1:{HEX[:40]}", "unsupported digest algorithm"),
    ],
)
def test_refused(text, message):
    with pytest.raises(InvalidParameter, match=f"^{message}$"):
        parse_digest(text)
