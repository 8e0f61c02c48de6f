"""`docker load`: images out of a docker-archive or an OCI image layout.

docker-archive   manifest.json: [{"Config": path, "RepoTags": […], "Layers": [path, …]}, …]
OCI layout       index.json → (index →)* manifest → config and layers in blobs/ (image-layout.md)

What `docker save` writes since 25 is both at once: manifest.json then says what to load, and the
layout lends each image its manifest, so that a push sends what was once pulled.
"""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from typing import BinaryIO

import msgspec
from msgspec import Struct

from pier.errors import InvalidParameter
from pier.images.archive import Archive
from pier.images.image import Image
from pier.images.intake import Intake, LayerSource, Progress
from pier.images.store import ImageStore
from pier.model.digest import Digest
from pier.model.oci import (
    CONFIGS,
    INDEXES,
    MANIFESTS,
    MAX_CONFIG,
    MAX_MANIFEST,
    Descriptor,
    chain_ids,
    decode_config,
    decode_index,
    decode_manifest,
)
from pier.model.platform import Platform, host_platform, rank
from pier.model.reference import Reference, parse_reference

MAX_NESTING = 4

# What the annotations of index.json call an image: containerd's has the full name, OCI's is often
# only a tag, which says nothing without a name beside it.
CONTAINERD_NAME = "io.containerd.image.name"
OCI_REF_NAME = "org.opencontainers.image.ref.name"


class _Item(Struct):
    """One image of manifest.json."""

    Config: str
    RepoTags: list[str] | None = None
    Layers: list[str] | None = None
    Parent: str | None = None


class _Plan(Struct, frozen=True):
    """An image that the archive has: where its parts are, and what it shall be called."""

    config: Digest
    layers: list[LayerSource]
    references: list[Reference]
    manifest: Digest | None = None
    parent: str = ""
    index: Digest | None = None


def load(
    store: ImageStore,
    stream: BinaryIO,
    progress: Progress,
    *,
    quiet: bool = False,
    platforms: Sequence[Platform] = (),
) -> list[Image]:
    """Read an archive, of any compression, and add its images; to be run in a worker thread.

    `progress` is told the lines of Docker's answer, of which `quiet` leaves out the layers'.
    `stream` is read to its end and stays the caller's. Of an image for several platforms all that
    the archive has are taken, or those that suit `platforms` best; an image for one is passed over
    only when `platforms` are given and are others. Returns the images added.

    Raises InvalidParameter for what is no archive or does not hold together, Internal for a full
    disk. Images that were told of before stay; of the one that failed nothing does.
    """
    loaded: list[Image] = []
    nameless: list[str] = []
    with Intake(store) as intake:
        archive = Archive(intake)
        archive.receive(stream)
        if "manifest.json" in archive:
            plans: Iterable[_Plan] = _parents_first([*_docker_plans(store, archive, platforms)])
        elif "index.json" in archive:
            plans = _layout_plans(archive, platforms)
        else:
            raise InvalidParameter("open manifest.json: no such file or directory")
        told: set[tuple[str, Digest]] = set()
        for plan in plans:
            if not _is_wanted(plan, intake, platforms):
                continue
            for reference in plan.references:
                _tell_renamed(store, reference, plan.config, plan.index, progress)
            image = intake.register(
                plan.config,
                plan.layers,
                references=[r for r in plan.references if not _has(store, r, plan.config)],
                manifest=plan.manifest,
                index=plan.index,
                parent=plan.parent if plan.parent in store else "",
                progress=None if quiet else progress,
            )
            loaded.append(image)
            # The platforms of one image are told of once.
            names = [(r.familiar, plan.index or image.id) for r in plan.references]
            for name in names:
                if name not in told:
                    progress({"stream": f"Loaded image: {name[0]}\n"})
            told.update(names)
            if not names:
                nameless.append(image.id)
        for image_id in nameless:
            progress({"stream": f"Loaded image ID: {image_id}\n"})
    return loaded


def _has(store: ImageStore, reference: Reference, image_id: Digest) -> bool:
    """Whether an image has the name already: then it is not tagged again, as `LastTagTime` shows."""
    owner = store.owner_of(reference)
    return owner is not None and owner.id == image_id


def _parents_first(plans: Sequence[_Plan]) -> list[_Plan]:
    """Put images behind those that they were made from, which may be in the same archive."""
    by_id = {plan.config: plan for plan in plans}

    def depth(plan: _Plan) -> int:
        deep, seen = 0, {plan.config}
        while (parent := by_id.get(Digest(plan.parent))) is not None and parent.config not in seen:
            seen.add(parent.config)
            deep, plan = deep + 1, parent
        return deep

    return sorted(plans, key=depth)


def _is_wanted(plan: _Plan, intake: Intake, platforms: Sequence[Platform]) -> bool:
    """Tell whether an image shall be loaded. Raises InvalidParameter for one of another system."""
    offered = decode_config(intake.read(plan.config, MAX_CONFIG, "image config")).platform
    wanted = platforms or [host_platform()]
    if any(offered.os == platform.os for platform in wanted):
        return not platforms or any(rank(offered, p) is not None for p in platforms)
    if plan.index is not None and not platforms:
        return False  # it came along with others
    raise InvalidParameter(f"cannot load {offered.os} image on {wanted[0].os}")


def _tell_renamed(
    store: ImageStore,
    reference: Reference,
    image_id: Digest,
    index: Digest | None,
    progress: Progress,
) -> None:
    """Tell of an image that loses its name to the new one, in Docker's words."""
    owner = store.owner_of(reference)
    if owner is not None and owner.id != image_id and (not index or owner.index != index):
        progress(
            {
                "stream": f"The image {reference.familiar} already exists, "
                f"renaming the old one with ID {owner.id} to empty string\n"
            }
        )


def _docker_plans(
    store: ImageStore, archive: Archive, platforms: Sequence[Platform]
) -> Iterator[_Plan]:
    try:
        items = msgspec.json.decode(
            archive.read("manifest.json", MAX_MANIFEST), type=list[_Item] | None
        )
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as exc:
        raise InvalidParameter(f"invalid manifest.json: {exc}") from exc
    if items is None:
        raise InvalidParameter("invalid manifest, manifest cannot be null (but can be [])")
    manifests = {found.config: found for found in _manifests(archive)}
    configs = {archive.blob(item.Config) for item in items}
    for item in items:
        config = archive.blob(item.Config)
        known = _known_layers(store, archive.read(item.Config, MAX_CONFIG))
        references = [_tag_reference(name) for name in item.RepoTags or ()]
        layers = [
            LayerSource(
                known[number] if number in known and path not in archive else archive.blob(path)
            )
            for number, path in enumerate(item.Layers or ())
        ]
        manifest = index = None
        if config in manifests:
            found = manifests[config]
            same = [source.blob for source in found.layers] == [source.blob for source in layers]
            if same and (found.index or all(map(_is_for_registries, found.layers))):
                manifest, index, layers = found.digest, found.index, found.layers
        yield _Plan(config, layers, references, manifest, item.Parent or "", index)
        if index is not None and len(platforms) != 1:
            yield from (
                _Plan(other.config, other.layers, references, other.digest, "", index)
                for other in manifests.values()
                if other.index == index and other.config not in configs
                if all(_path(source.blob) in archive for source in other.layers)
            )


def _is_for_registries(layer: LayerSource) -> bool:
    """Tell layers that a registry has from those that an engine keeps as plain tars.

    A manifest of the latter, that no index names, was made by the engine that saved them, for the
    archive alone.
    """
    return layer.media_type.endswith(("gzip", "+zstd"))


def _known_layers(store: ImageStore, config: bytes) -> dict[int, Digest]:
    """Return the blobs of an image's layers that are here, by number: an archive may lack these."""
    chain = chain_ids(decode_config(config).rootfs.diff_ids)
    layers = [store.layers.get(chain_id) for chain_id in chain]
    return {number: layer.blob for number, layer in enumerate(layers) if layer is not None}


class _Described(Struct, frozen=True):
    """A manifest of the layout, and the index in index.json that leads to it, if one does."""

    digest: Digest
    config: Digest
    layers: list[LayerSource]
    index: Digest | None


def _manifests(archive: Archive) -> Iterator[_Described]:
    """Yield the image manifests of the layout in a docker-archive, if it has one."""
    if "index.json" not in archive:
        return
    top = decode_index(archive.read("index.json", MAX_MANIFEST))
    for entry in top.manifests:
        for descriptor in _flatten(archive, [entry], complete=False):
            # What does not hold together says nothing: manifest.json counts.
            with suppress(InvalidParameter):
                if _platform_of(archive, descriptor) is not None:
                    yield _describe(archive, descriptor, entry)


def _describe(archive: Archive, descriptor: Descriptor, top: Descriptor) -> _Described:
    digest = archive.content(descriptor.digest)
    manifest = decode_manifest(archive.read(_path(digest), MAX_MANIFEST))
    return _Described(
        digest=digest,
        config=archive.content(manifest.config.digest),
        layers=[LayerSource(Digest(d.digest), d.mediaType) for d in manifest.layers],
        index=Digest(top.digest) if top.mediaType in INDEXES else None,
    )


def _layout_plans(archive: Archive, platforms: Sequence[Platform]) -> Iterator[_Plan]:
    top = decode_index(archive.read("index.json", MAX_MANIFEST))
    if not top.manifests:
        raise InvalidParameter("invalid archive: index.json names no image")
    # The same image may stand there several times, once a name.
    names: dict[str, list[Reference]] = {}
    chosen: dict[str, _Described] = {}
    for entry in top.manifests:
        for descriptor in _choose(archive, entry, platforms):
            found = _describe(archive, descriptor, entry)
            for source in found.layers:
                archive.content(source.blob)
            chosen[found.digest] = found
            named = names.setdefault(found.digest, [])
            named.extend(r for r in _annotated(entry) if r not in named)
    if not chosen:
        raise InvalidParameter(
            "no image of the archive suits platform "
            + ", ".join(map(str, platforms or [host_platform()]))
        )
    for found in chosen.values():
        names_of = names[found.digest]
        yield _Plan(found.config, found.layers, names_of, found.digest, "", found.index)


def _choose(archive: Archive, top: Descriptor, platforms: Sequence[Platform]) -> list[Descriptor]:
    """Return the manifests below an entry of index.json: all, or those that suit best."""
    offers = [
        (descriptor.platform or offered, descriptor)
        for descriptor in _flatten(archive, [top], complete=True)
        if (offered := _platform_of(archive, descriptor)) is not None
    ]
    if not platforms:
        host = host_platform()
        last = 1 << 30
        offers.sort(key=lambda offer: _or(rank(offer[0], host), last))
        return [descriptor for _, descriptor in offers]
    chosen: list[Descriptor] = []
    for wanted in platforms:
        ranks = [(rank(offered, wanted), descriptor) for offered, descriptor in offers]
        suiting = [(suits, descriptor) for suits, descriptor in ranks if suits is not None]
        if suiting:
            best = min(suiting, key=lambda item: item[0])[1]
            if best not in chosen:
                chosen.append(best)
    return chosen


def _or(value: int | None, other: int) -> int:
    return other if value is None else value


def _flatten(
    archive: Archive, descriptors: list[Descriptor], *, complete: bool, depth: int = 0
) -> Iterator[Descriptor]:
    """Yield the image manifests that an index leads to and the archive has.

    An archive of one platform keeps the index of all of them: what is not there is passed over,
    and with `complete` an entry of index.json itself must be there.
    """
    if depth > MAX_NESTING:
        raise InvalidParameter(f"image index is nested deeper than {MAX_NESTING}")
    for descriptor in descriptors:
        if _path(descriptor.digest) not in archive and (depth or not complete):
            continue
        if descriptor.mediaType in INDEXES:
            digest = archive.content(descriptor.digest)
            inner = decode_index(archive.read(_path(digest), MAX_MANIFEST))
            yield from _flatten(archive, inner.manifests, complete=complete, depth=depth + 1)
        elif descriptor.mediaType in MANIFESTS and not _is_attestation(descriptor):
            yield descriptor


def _platform_of(archive: Archive, descriptor: Descriptor) -> Platform | None:
    """Read the platform out of an image's config; None for a manifest of something else."""
    digest = archive.content(descriptor.digest)
    manifest = decode_manifest(archive.read(_path(digest), MAX_MANIFEST))
    if manifest.config.mediaType not in CONFIGS or manifest.artifactType:
        return None
    config = archive.content(manifest.config.digest)
    return decode_config(archive.read(_path(config), MAX_CONFIG)).platform


def _is_attestation(descriptor: Descriptor) -> bool:
    """Tell BuildKit's provenance and SBOM manifests, which are no images."""
    return "vnd.docker.reference.type" in descriptor.annotations


def _annotated(descriptor: Descriptor) -> list[Reference]:
    full = descriptor.annotations.get(CONTAINERD_NAME, "")
    if full:
        return [_tag_reference(full)]
    name = descriptor.annotations.get(OCI_REF_NAME, "")
    return [_tag_reference(name)] if ":" in name or "/" in name else []


def _tag_reference(text: str) -> Reference:
    reference = parse_reference(text).tagged()
    if reference.digest:
        raise InvalidParameter(f'invalid tag "{text}"')
    return reference


def _path(digest: str) -> str:
    return "blobs/" + digest.replace(":", "/", 1)
