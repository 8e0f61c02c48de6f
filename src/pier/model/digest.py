"""Content digests, `algorithm:hex`, as image-spec descriptor.md defines them ("Digests")."""

import hashlib
import re
from typing import NewType, Protocol

from pier.errors import InvalidParameter

Digest = NewType("Digest", str)

# The registered algorithms and how many hex digits each has.
HEX_LENGTH = {"sha256": 64, "sha384": 96, "sha512": 128}

_GRAMMAR = re.compile(r"[a-z0-9]+(?:[+._-][a-z0-9]+)*:[a-zA-Z0-9=_-]+", re.ASCII)
_HEX = re.compile(r"[a-f0-9]+", re.ASCII)


class Hash(Protocol):
    """The part of hashlib's objects that is used here."""

    def update(self, data: bytes | memoryview, /) -> None: ...

    def hexdigest(self) -> str: ...


def parse_digest(text: str) -> Digest:
    """Return `text` as a digest. Raises InvalidParameter in the words of Docker's parser."""
    if not _GRAMMAR.fullmatch(text):
        raise InvalidParameter("invalid checksum digest format")
    algorithm, _, encoded = text.partition(":")
    length = HEX_LENGTH.get(algorithm)
    if length is None:
        raise InvalidParameter("unsupported digest algorithm")
    if len(encoded) != length:
        raise InvalidParameter("invalid checksum digest length")
    if not _HEX.fullmatch(encoded):
        raise InvalidParameter("invalid checksum digest format")
    return Digest(text)


def algorithm_of(digest: Digest) -> str:
    return digest.partition(":")[0]


def hex_of(digest: Digest) -> str:
    return digest.partition(":")[2]


def short(digest: str) -> str:
    """Return the 12 hex digits that are shown for an ID."""
    return digest.partition(":")[2][:12] or digest[:12]


def new_hash(algorithm: str = "sha256") -> Hash:
    return hashlib.new(algorithm, usedforsecurity=True)


def finish(algorithm: str, hasher: Hash) -> Digest:
    """Return the digest of what `hasher` was fed."""
    return Digest(f"{algorithm}:{hasher.hexdigest()}")


def digest_of(data: bytes) -> Digest:
    """Return the SHA-256 digest of `data`."""
    return Digest("sha256:" + hashlib.sha256(data).hexdigest())
