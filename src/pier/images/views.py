"""Images in the words of the API: list, inspect, history."""

import msgspec

from pier.images.store import Image, ImageStore
from pier.model.api_containers import GraphDriver
from pier.model.api_images import (
    ImageHistory,
    ImageInspect,
    ImageMetadata,
    ImageSummary,
    InspectedImageConfig,
    RootFS,
)
from pier.model.filters import Filters
from pier.model.gotime import format_ns, now_ns, parse_rfc3339, parse_timestamp
from pier.model.reference import familiar_match


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
        names = store.references(image.id)
        patterns = filters.get("reference")
        if patterns:
            names = [n for n in names if any(familiar_match(p, n) for p in patterns)]
        shared = -1
        if shared_size:
            layers = (store.layers.get(c) for c in image.chain_ids if counts[c] > 1)
            shared = sum(layer.size for layer in layers if layer is not None)
        rows.append(
            ImageSummary(
                Id=image.id,
                ParentId=image.parent,
                RepoTags=[n.familiar for n in names if not n.digest],
                RepoDigests=[n.familiar for n in names if n.digest],
                Created=_seconds(image),
                Size=image.size,
                SharedSize=shared,
                Labels=image.config.config.Labels,
                Containers=-1,
            )
        )
    return rows


def _filtered(store: ImageStore, *, all_: bool, filters: Filters) -> list[Image]:
    before, since = filters.get("before"), filters.get("since")
    newest = min((_seconds(store.get(ref)) for ref in before), default=None)
    oldest = max((_seconds(store.get(ref)) for ref in since), default=None)
    dangling = filters.flag("dangling", default=False) if "dangling" in filters else None
    moment = now_ns()
    until = min((parse_timestamp(t, now_ns=moment) for t in filters.get("until")), default=None)
    chosen = []
    for image in sorted(store.all(), key=lambda i: (_seconds(i), i.loaded_at), reverse=True):
        names = store.references(image.id)
        created = _seconds(image)
        unwanted = (
            (newest is not None and created >= newest)
            or (oldest is not None and created <= oldest)
            or (until is not None and created * 1_000_000_000 >= until)
            or (dangling is not None and dangling == bool(names))
            or not filters.labels(image.config.config.Labels)
            or not filters.without_labels(image.config.config.Labels)
            or (not all_ and not names and bool(store.children(image.id)))
        )
        patterns = filters.get("reference")
        if patterns and not any(familiar_match(p, n) for p in patterns for n in names):
            unwanted = True
        if not unwanted:
            chosen.append(image)
    return chosen


def inspect(store: ImageStore, ref: str, data_root: str) -> ImageInspect:
    """What `docker image inspect` shows. Raises NotFound, InvalidParameter."""
    image = store.get(ref)
    config = image.config
    names = store.references(image.id)
    directories = [f"{data_root}/{store.layers.path(c)}" for c in reversed(image.chain_ids)]
    data = {"UpperDir": directories[0]} if directories else {}
    if len(directories) > 1:
        data["LowerDir"] = ":".join(directories[1:])
    tagged = store.tagged_at(image.id)
    return ImageInspect(
        Id=image.id,
        RepoTags=[n.familiar for n in names if not n.digest],
        RepoDigests=[n.familiar for n in names if n.digest],
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
    )


def _config(image: Image) -> InspectedImageConfig:
    given = image.config.config
    values = {n: getattr(given, n) for n in InspectedImageConfig.__struct_fields__}
    return InspectedImageConfig(**{n: v for n, v in values.items() if v is not None})


def history(store: ImageStore, ref: str) -> list[ImageHistory]:
    """What `docker history` shows, newest first. Raises NotFound, InvalidParameter."""
    image = store.get(ref)
    layers = iter(image.chain_ids)
    rows = []
    for step in image.config.history:
        size = 0
        if not step.empty_layer:
            chain = next(layers, None)
            layer = store.layers.get(chain) if chain else None
            size = layer.size if layer else 0
        created = _parse_seconds(step.created)
        rows.append(ImageHistory("<missing>", created, step.created_by, None, size, step.comment))
    rows.reverse()
    if rows:
        rows[0].Id = image.id
        tags = [n.familiar for n in store.references(image.id) if not n.digest]
        rows[0].Tags = tags or None
    return rows


def _seconds(image: Image) -> int:
    """When the image was made, in seconds; the beginning of the epoch if it does not say."""
    return _parse_seconds(image.config.created)


def _parse_seconds(text: str) -> int:
    try:
        return parse_rfc3339(text) // 1_000_000_000
    except ValueError:
        return 0
