"""Images in the words of the API: list, inspect, history."""

import os
from collections.abc import Sequence

import msgspec
from msgspec import UNSET, UnsetType
from msgspec.structs import replace

from pier.errors import InvalidParameter, NotFound
from pier.images.image import Image
from pier.images.manifests import described
from pier.images.removal import ContainerUse
from pier.images.store import ImageStore
from pier.model.api_containers import GraphDriver
from pier.model.api_images import (
    Identity,
    ImageChange,
    ImageHistory,
    ImageInspect,
    ImageManifestSummary,
    ImageMetadata,
    ImageSummary,
    InspectedImageConfig,
    ManifestImageData,
    ManifestSize,
    PullIdentity,
    RootFS,
    UnpackedSize,
)
from pier.model.digest import Digest
from pier.model.filters import Filters
from pier.model.gotime import format_ns, now_ns, parse_rfc3339, parse_timestamp
from pier.model.oci import Descriptor, decode_index
from pier.model.reference import Reference, familiar_match, parse_reference
from pier.storage.changes import compare
from pier.storage.merged import MergedDirectory


def summaries(
    store: ImageStore, *, all_: bool, shared_size: bool, filters: Filters
) -> list[ImageSummary]:
    """The rows of `docker images`, newest first. Raises InvalidParameter, NotFound."""
    images = _filtered(store, all_=all_, filters=filters)
    counts: dict[str, int] = {}
    for image in store.all():
        for chain in image.chain_ids:
            counts[chain] = counts.get(chain, 0) + 1
    rows = []
    for image in images:
        patterns = filters.get("reference")
        if patterns:
            fitting = tuple(r for r in image.references if _fits(r, patterns))
            image = replace(image, references=fitting)  # noqa: PLW2901
        shared = -1
        if shared_size:
            layers = (store.layers.get(c) for c in image.chain_ids if counts[c] > 1)
            shared = sum(layer.size for layer in layers if layer is not None)
        rows.append(
            ImageSummary(
                Id=image.id,
                ParentId=image.parent,
                RepoTags=image.tags,
                RepoDigests=image.digests,
                Created=_seconds(image),
                Size=image.size,
                SharedSize=shared,
                Labels=image.config.config.Labels or None,
                Containers=-1,
            )
        )
    return rows


def identity(image: Image) -> Identity | UnsetType:
    """The repositories that an image was pulled from or pushed to; unset where there is none."""
    names = dict.fromkeys(parse_reference(text).name for text in image.digests)
    return Identity(Pull=[PullIdentity(name) for name in names]) if names else UNSET


def manifests(
    store: ImageStore, image: Image, users: Sequence[ContainerUse], *, identities: bool = False
) -> list[ImageManifestSummary]:
    """What is known of each platform of an image, here or not, in the order of its index.

    With `identities`, also where each that is here came from.
    """
    rows = _manifests(store, image, users)
    if identities:
        for row in rows:
            if row.ImageData is not None and row.Available:
                row.ImageData.Identity = identity(image)
    return rows


def _manifests(
    store: ImageStore, image: Image, users: Sequence[ContainerUse]
) -> list[ImageManifestSummary]:
    here = {other.manifest: other for other in store.platforms_of(image)}
    if not image.index:
        descriptor = described(store, image)
        return [_manifest(store, descriptor, image, users)]
    index = decode_index(store.blobs.read(Digest(image.index)))
    return [_manifest(store, d, here.get(d.digest), users) for d in index.manifests]


def _manifest(
    store: ImageStore, descriptor: Descriptor, image: Image | None, users: Sequence[ContainerUse]
) -> ImageManifestSummary:
    kind = "image"
    if "vnd.docker.reference.type" in descriptor.annotations:
        kind = "attestation"
    content = sum(store.blobs.disk_size(b) for b in _blobs(store, image)) if image else 0
    unpacked = image.size if image else 0
    row = ImageManifestSummary(
        ID=descriptor.digest,
        Descriptor=descriptor,
        Available=image is not None,
        Size=ManifestSize(Total=content + unpacked, Content=content),
        Kind=kind,
    )
    platform = descriptor.platform or (image.config.platform if image else None)
    if kind == "image" and platform is not None:
        using = [user.id for user in users if image is not None and user.image == image.id]
        row.ImageData = ManifestImageData(platform, using, UnpackedSize(unpacked))
    return row


def _blobs(store: ImageStore, image: Image) -> set[Digest]:
    """The blobs that are an image's content: config, manifest, layers as they were received (of
    plain tars, what is kept beside the files).
    """
    layers = (store.layers.get(chain) for chain in image.chain_ids)
    blobs = set(image.blobs) - {Digest(image.index)}
    if not image.manifest:
        blobs |= {layer.blob for layer in layers if layer is not None}
    return {blob for blob in blobs if store.blobs.exists(blob)}


def difference(store: ImageStore, old: Image, new: Image) -> list[ImageChange]:
    """What turns the files of one image into another's. Blocking: for a thread. Raises OSError."""
    with _tree(store, old) as before, _tree(store, new) as after:
        return [
            ImageChange(
                Path=os.fsencode(change.path).decode(errors="replace"),
                Kind=change.kind,
                Size=change.size,
                OldSize=change.old_size,
            )
            for change in compare(before, after, of_container=False)
        ]


def _tree(store: ImageStore, image: Image) -> MergedDirectory:
    return MergedDirectory.open(
        store.root.join(store.layers.path(chain)) for chain in reversed(image.chain_ids)
    )


def prunable(store: ImageStore, filters: Filters) -> list[list[str]]:
    """What a prune shall remove, an image each: its ID, or the names that go one by one."""
    only_dangling = filters.flag("dangling", default=True)
    until = [parse_timestamp(text, now_ns=now_ns()) for text in filters.get("until")]
    if len(until) > 1:
        raise InvalidParameter("more than one until filter specified")
    parents = {image.parent for image in store.all()}
    found: list[list[str]] = []
    for image in store.all():
        if (
            (not image.references and (image.id in parents or store.is_named(image)))
            or store.is_pinned(image.id)
            or (until and _nanoseconds(image) > until[0])
            or not filters.labels(image.config.config.Labels)
            or not filters.without_labels(image.config.config.Labels)
            or (only_dangling and image.tags)
        ):
            continue
        # In the order of the alphabet: a container that uses it by ID keeps the last one.
        found.append(sorted(str(r) for r in image.references) or [image.id])
    return found


def _filtered(store: ImageStore, *, all_: bool, filters: Filters) -> list[Image]:
    before, since = filters.get("before"), filters.get("since")
    newest = min((_nanoseconds(store.get(ref)) for ref in before), default=None)
    oldest = max((_nanoseconds(store.get(ref)) for ref in since), default=None)
    dangling = filters.flag("dangling", default=False) if "dangling" in filters else None
    moment = now_ns()
    until = min((parse_timestamp(t, now_ns=moment) for t in filters.get("until")), default=None)
    parents = {image.parent for image in store.all()}
    chosen = []
    for image in sorted(store.all(), key=lambda i: (_nanoseconds(i), i.loaded_at), reverse=True):
        created = _nanoseconds(image)
        is_parent = image.id in parents
        is_something = bool(image.references) or is_parent or store.is_named(image)
        # One that was pulled by its digest has no tag: it dangles, and is shown without the filter as well.
        dangles = not image.tags and (bool(image.references) or not is_something)
        unwanted = (
            (newest is not None and created >= newest)
            or (oldest is not None and created <= oldest)
            or (until is not None and created >= until)
            or (dangling is True and not dangles)
            or (dangling is False and not is_something)
            or not filters.labels(image.config.config.Labels)
            or not filters.without_labels(image.config.config.Labels)
            or (not all_ and not image.references and is_something)
        )
        patterns = filters.get("reference")
        if patterns and not any(_fits(r, patterns) for r in image.references):
            unwanted = True
        if not unwanted:
            chosen.append(image)
    return chosen


def inspect(store: ImageStore, image: Image, data_root: str) -> ImageInspect:
    """What `docker image inspect` shows."""
    config = image.config
    directories = [f"{data_root}/{store.layers.path(c)}" for c in reversed(image.chain_ids)]
    data = {"UpperDir": directories[0]} if directories else {}
    if len(directories) > 1:
        data["LowerDir"] = ":".join(directories[1:])
    tagged = image.tagged_at
    return ImageInspect(
        Id=image.id,
        RepoTags=image.tags,
        RepoDigests=image.digests,
        Parent=image.parent,
        Comment=config.comment or (config.history[-1].comment if config.history else ""),
        Author=config.author,
        Config=_config(image),
        Architecture=config.architecture,
        Os=config.os,
        Size=image.size,
        GraphDriver=GraphDriver(Name="overlay2", Data=data),
        RootFS=RootFS(Type="layers", Layers=config.rootfs.diff_ids),
        Created=config.created or msgspec.UNSET,
        Variant=config.variant or msgspec.UNSET,
        OsVersion=config.os_version or msgspec.UNSET,
        DockerVersion=config.docker_version,
        Metadata=ImageMetadata(LastTagTime=format_ns(tagged)) if tagged else ImageMetadata(),
        Identity=identity(image),
    )


def _config(image: Image) -> InspectedImageConfig:
    given = image.config.config
    values = {n: getattr(given, n) for n in InspectedImageConfig.__struct_fields__}
    return InspectedImageConfig(**{n: v for n, v in values.items() if v})


def history(store: ImageStore, image: Image, *, layers: bool = False) -> list[ImageHistory]:
    """What `docker history` shows, newest first; a build's steps have the IDs of their images.

    With `layers` the steps that made one say which.
    """
    chains = zip(image.chain_ids, image.config.rootfs.diff_ids, strict=True)
    rows = []
    for step in image.config.history:
        size, diff_id = 0, ""
        if not step.empty_layer:
            chain, diff_id = next(chains, ("", ""))
            layer = store.layers.get(chain) if chain else None
            size = layer.size if layer else 0
        created = _parse_seconds(step.created)
        row = ImageHistory("<missing>", created, step.created_by, None, size, step.comment)
        if layers and not step.empty_layer:
            row.Layer = diff_id
        rows.append(row)
    rows.reverse()
    found: Image | None = image
    for row in rows:
        if found is None:
            break
        row.Id = found.id
        row.Tags = found.tags or None
        found = _parent(store, found)
    return rows


def _parent(store: ImageStore, image: Image) -> Image | None:
    try:
        return store.get(image.parent) if image.parent else None
    except NotFound:
        return None


def _fits(reference: Reference, patterns: tuple[str, ...]) -> bool:
    return any(familiar_match(pattern, reference) for pattern in patterns)


def _seconds(image: Image) -> int:
    """When the image was made, in seconds; the beginning of the epoch if it does not say."""
    return _nanoseconds(image) // 1_000_000_000


def _nanoseconds(image: Image) -> int:
    try:
        return parse_rfc3339(image.config.created)
    except ValueError:
        return 0


def _parse_seconds(text: str) -> int:
    try:
        return parse_rfc3339(text) // 1_000_000_000
    except ValueError:
        return 0
