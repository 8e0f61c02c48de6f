"""A cache as a document: BuildKit's `cacheconfig.v0`, with what Pier needs beside.

    {"layers":  [{"blob": digest, "parent": index (-1: none; 0 may be left out)}, …],
     "records": [{"digest": "sha256:" + key of a step,
                  "layers": [{"layer": index, "createdAt": time}],
                  "inputs": [[{"link": index of the step that it stands on}]]}, …],
     "pier":    {key: the image config of the step's result}, as JSON, zlib, base64}

A BuildKit reads it, and finds none of its own steps: what a step's key is made of is the builder's
own (`build/cache.py`). Pier takes a step's result back with its very image ID, which is why the
configs are there: the next step's key stands on it.
"""

import base64
import binascii
import zlib
from collections.abc import Mapping, Sequence

import msgspec
from msgspec import Struct, field

from pier.errors import InvalidParameter

CACHE_CONFIG = "application/vnd.buildkit.cacheconfig.v0"
INLINE_FIELD = "moby.buildkit.cache.v0"
DIFF_ID = "containerd.io/uncompressed"
CREATED_AT = "buildkit/createdat"

# All configs of a build with a thousand steps are some 100 MB, which compress a hundredfold.
_MAX_CONFIGS = 512 << 20


class LayerNotes(Struct, omit_defaults=True):
    """What is known of a layer where no manifest says it: inline."""

    mediaType: str = ""
    diffID: str = ""
    size: int = 0
    createdAt: str = ""


class CacheLayer(Struct, omit_defaults=True):
    blob: str
    parent: int = 0
    annotations: LayerNotes | None = None


class CacheResult(Struct, omit_defaults=True):
    layer: int = 0
    createdAt: str = ""


class CacheLink(Struct, omit_defaults=True):
    selector: str = ""
    link: int = 0


class CacheRecord(Struct, omit_defaults=True):
    results: list[CacheResult] = field(name="layers", default_factory=list)
    digest: str = ""
    inputs: list[list[CacheLink]] = []


class CacheConfig(Struct, omit_defaults=True):
    layers: list[CacheLayer] = []
    records: list[CacheRecord] = []
    pier: str = ""


class CachedStep(Struct, frozen=True):
    """One step: its key, the one that it stands on ("" for none), and the config it came to."""

    key: str
    parent: str
    config: bytes
    created: str
    chain: Sequence[str]


class CachedLayer(Struct, frozen=True):
    """A layer by its chain ID, and as which blob it is kept."""

    chain_id: str
    parent: str
    diff_id: str
    blob: str
    media_type: str
    size: int
    created: str


def encode(steps: Sequence[CachedStep], layers: Sequence[CachedLayer], *, notes: bool) -> bytes:
    """Write the document; parents come before what stands on them. `notes` says of layers what a
    manifest would.
    """
    place = {layer.chain_id: number for number, layer in enumerate(layers)}
    written = [
        CacheLayer(
            layer.blob,
            place.get(layer.parent, -1),
            LayerNotes(layer.media_type, layer.diff_id, layer.size, layer.created)
            if notes
            else None,
        )
        for layer in layers
    ]
    links = {step.key: number for number, step in enumerate(steps)}
    records = []
    for step in steps:
        results = [CacheResult(place[step.chain[-1]], step.created)] if step.chain else []
        inputs = [[CacheLink("", links[step.parent])]] if step.parent in links else []
        records.append(CacheRecord(results, f"sha256:{step.key}", inputs))
    configs = {step.key: step.config.decode() for step in steps}
    packed = zlib.compress(msgspec.json.encode(configs), 9)
    config = CacheConfig(written, records, base64.b64encode(packed).decode())
    return msgspec.json.encode(config)


def decode(data: bytes) -> tuple[CacheConfig, Mapping[str, bytes]]:
    """Read a document; return it, and the config of each step by its key, none of another builder.

    Raises InvalidParameter.
    """
    try:
        config = msgspec.json.decode(data, type=CacheConfig)
        if not config.pier:
            return config, {}
        unpacking = zlib.decompressobj()
        packed = base64.b64decode(config.pier)
        text = unpacking.decompress(packed, _MAX_CONFIGS)
        configs = msgspec.json.decode(text, type=dict[str, str])
    except (msgspec.DecodeError, UnicodeDecodeError, zlib.error, binascii.Error) as exc:
        raise InvalidParameter(f"invalid build cache: {exc}") from exc
    return config, {key: text.encode() for key, text in configs.items()}
