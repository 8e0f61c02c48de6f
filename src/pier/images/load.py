"""`docker load`: images out of an archive, which is docker-archive or an OCI image layout.

docker-archive: manifest.json names configs, layer files and tags. OCI layout (image-spec
image-layout.md): index.json leads to manifests, blobs/<algorithm>/<hex> holds what they name. What
`docker save` writes today is both in one; manifest.json is preferred, as it has all the tags.

The archive is read once, forward. Since the manifest may stand last, every file of it is written
into ingest/ first, hashed on the way, and becomes a blob by being renamed.
"""

import json
import posixpath
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any, BinaryIO

from pier.errors import InvalidParameter
from pier.images.intake import Incoming, take_in
from pier.images.store import Image, ImageStore
from pier.model.digest import Digest, algorithm_of, hex_of, parse_digest
from pier.model.oci import (
    INDEXES,
    MAX_CONFIG,
    Descriptor,
    Index,
    Manifest,
    decode_index,
    decode_manifest,
)
from pier.model.platform import host_platform, rank
from pier.model.reference import Reference, parse_reference
from pier.storage.blobs import BlobWriter
from pier.storage.decompress import Decompressed
from pier.storage.tar import header
from pier.storage.tar.reader import TarReader

MAX_FILES = 100_000
MAX_DEPTH = 8
NAME_ANNOTATIONS = ("io.containerd.image.name", "org.opencontainers.image.ref.name")

Progress = Callable[[dict[str, Any]], None]


def load(store: ImageStore, source: BinaryIO, progress: Progress) -> list[Image]:
    """Load every image of an archive (plain or compressed), telling `progress` as Docker does.

    Blocks while `source` does. Raises InvalidParameter and TarError for the archive's faults,
    OSError for the disk's. Images that were loaded before the fault stay.
    """
    with ExitStack() as undo:
        files = _Files(store, undo)
        files.read(source)
        if files.has("manifest.json"):
            return _load_docker(store, files, progress)
        if files.has("index.json"):
            return _load_oci(store, files, progress)
    raise InvalidParameter("invalid archive: does not contain a manifest.json or an OCI index.json")


class _Files:
    """The regular files of the archive by their names, written to ingest/."""

    def __init__(self, store: ImageStore, undo: ExitStack) -> None:
        self._store = store
        self._undo = undo
        self._files: dict[str, BlobWriter] = {}
        self._links: dict[str, str] = {}

    def read(self, source: BinaryIO) -> None:
        reader = TarReader(iter(Decompressed(source)), max_entries=MAX_FILES)
        for entry in reader:
            name = _clean(entry.name)
            if entry.type == header.REGULAR and not entry.sparse:
                writer = self._undo.enter_context(self._store.blobs.ingest())
                for view in reader.views(entry.size):
                    writer.write(view)
                self._files[name] = writer
            elif entry.type in (header.SYMLINK, header.LINK):
                target = entry.linkname.decode("utf-8", "replace")
                base = posixpath.dirname(name) if entry.type == header.SYMLINK else ""
                self._links[name] = posixpath.normpath(posixpath.join(base, target))
        reader.drain()

    def has(self, name: str) -> bool:
        return self._resolve(name) in self._files

    def get(self, name: str) -> BlobWriter:
        """Return a file. Raises InvalidParameter when the archive lacks it."""
        found = self._files.get(self._resolve(name))
        if found is None:
            raise InvalidParameter(f"invalid archive: {name} is missing")
        return found

    def text(self, name: str) -> bytes:
        """Return the contents of a small file."""
        writer = self.get(name)
        if writer.size > MAX_CONFIG:
            raise InvalidParameter(f"invalid archive: {name} is too large")
        with writer.reader() as file:
            return file.read()

    def blob(self, digest: Digest) -> BlobWriter:
        """Return the file of an OCI layout whose content `digest` names, verified."""
        writer = self.get(f"blobs/{algorithm_of(digest)}/{hex_of(digest)}")
        if writer.digest != digest:
            raise InvalidParameter(
                f"content does not match its digest: expected {digest}, got {writer.digest}"
            )
        return writer

    def blob_text(self, digest: Digest) -> bytes:
        self.blob(digest)
        return self.text(f"blobs/{algorithm_of(digest)}/{hex_of(digest)}")

    def _resolve(self, name: str) -> str:
        name = posixpath.normpath(name)
        for _ in range(MAX_DEPTH):
            if name not in self._links:
                break
            name = self._links[name]
        return name


def _load_docker(store: ImageStore, files: _Files, progress: Progress) -> list[Image]:
    loaded = []
    for item in _json_list(files.text("manifest.json"), "manifest.json"):
        config, layers = item.get("Config"), item.get("Layers") or []
        tags = item.get("RepoTags") or []
        if not isinstance(config, str) or not _all_text(layers) or not _all_text(tags):
            raise InvalidParameter("invalid archive: manifest.json is malformed")
        incoming = [Incoming(files.get(name)) for name in layers]
        names = [parse_reference(tag).tagged() for tag in tags]
        image = take_in(store, files.text(config), incoming, names=names)
        loaded.append(image)
        _tell(progress, image, names)
    return loaded


def _load_oci(store: ImageStore, files: _Files, progress: Progress) -> list[Image]:
    loaded = []
    for descriptor in decode_index(files.text("index.json")).manifests:
        names = _names(descriptor)
        digest, manifest = _manifest(files, descriptor, MAX_DEPTH)
        incoming = [
            Incoming(files.blob(parse_digest(layer.digest)), layer.mediaType)
            for layer in manifest.layers
        ]
        config = files.blob_text(parse_digest(manifest.config.digest))
        kept = store.blobs.put(files.blob_text(digest))
        image = take_in(store, config, incoming, manifest=kept, names=names)
        loaded.append(image)
        _tell(progress, image, names)
    return loaded


def _manifest(files: _Files, descriptor: Descriptor, depth: int) -> tuple[Digest, Manifest]:
    """Follow a descriptor, through indexes, to the manifest for this host's platform."""
    digest = parse_digest(descriptor.digest)
    data = files.blob_text(digest)
    if descriptor.mediaType not in INDEXES:
        return digest, decode_manifest(data)
    if depth == 0:
        raise InvalidParameter("invalid archive: image indexes are nested too deeply")
    chosen = _choose(files, decode_index(data))
    return _manifest(files, chosen, depth - 1)


def _choose(files: _Files, index: Index) -> Descriptor:
    """Pick the best manifest for this host among those that the archive holds."""
    wanted = host_platform()
    fitting: list[tuple[int, Descriptor]] = []
    for descriptor in index.manifests:
        digest = parse_digest(descriptor.digest)
        if not files.has(f"blobs/{algorithm_of(digest)}/{hex_of(digest)}"):
            continue
        if descriptor.platform is None:
            fitting.append((1 << 30, descriptor))
        elif (found := rank(descriptor.platform, wanted)) is not None:
            fitting.append((found, descriptor))
    if not fitting:
        raise InvalidParameter(f"no manifest for {wanted} in the archive")
    return min(fitting, key=lambda pair: pair[0])[1]


def _names(descriptor: Descriptor) -> list[Reference]:
    """The image's name in the annotations; a tag alone, as some tools write, names nothing."""
    for key in NAME_ANNOTATIONS:
        text = descriptor.annotations.get(key, "")
        if ":" in text or "/" in text:
            return [parse_reference(text).tagged()]
    return []


def _tell(progress: Progress, image: Image, names: list[Reference]) -> None:
    if not names:
        progress({"stream": f"Loaded image ID: {image.id}\n"})
    for name in names:
        progress({"stream": f"Loaded image: {name.familiar}\n"})


def _json_list(data: bytes, what: str) -> list[dict[str, Any]]:
    try:
        value = json.loads(data)
    except ValueError as exc:
        raise InvalidParameter(f"invalid archive: {what}: {exc}") from exc
    if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
        raise InvalidParameter(f"invalid archive: {what} is malformed")
    return value


def _all_text(values: object) -> bool:
    return isinstance(values, list) and all(isinstance(value, str) for value in values)


def _clean(name: bytes) -> str:
    return posixpath.normpath(name.decode("utf-8", "replace")).removeprefix("/")
