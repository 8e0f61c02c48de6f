"""Removing images by Docker's rules: what a name, an ID, force and containers mean.

A hard conflict (a running container, a child image) stands whatever is asked; a soft one (further
names, a stopped container) yields to force. Removing a name removes the image with the last one,
unless something is against it: then only the name goes, and nobody is told.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from msgspec import Struct

from pier.errors import Conflict, NotFound
from pier.images.image import Image
from pier.model.digest import short
from pier.model.platform import Platform, normalize
from pier.model.reference import Reference, parse_reference

if TYPE_CHECKING:
    from pier.images.store import ImageStore


class ContainerUse(Struct, frozen=True):
    """What a container needs: its image by ID, those mounted in it, all layers by chain ID."""

    id: str
    image: str
    layers: Sequence[str]
    running: bool
    mounted: Sequence[str] = ()

    def uses(self, image_id: str) -> bool:
        return image_id == self.image or image_id in self.mounted


class Removal(Struct, frozen=True):
    """One thing that was done to image `image`: `untagged` a name, or `deleted` an ID.

    What is deleted may be a layer (its chain ID) that went with the image.
    """

    image: str
    untagged: str = ""
    deleted: str = ""


class _Refused(Struct, frozen=True):
    message: str
    is_used: bool


class Remover:
    """One removal, made under the store's lock."""

    def __init__(self, store: "ImageStore", users: Sequence[ContainerUse]) -> None:
        self._store = store
        self._users = users
        self._done: list[Removal] = []

    def remove(self, ref: str, *, force: bool, prune: bool) -> list[Removal]:
        image = self._store.get(ref)
        if _is_id(image, ref):
            if _is_single(image.references):
                self._refuse(image, force=force, for_names=False)
                image = self._untag(image, image.references)
            self._delete(image, force=force, prune=prune, quiet=False)
            return self._done
        self._check_name(image, ref, force=force)
        reference = parse_reference(ref).tagged()
        held = [r for r in image.references if str(r) == reference.lookup_key()]
        image = self._untag(image, held or [reference])
        if held and not held[0].digest:
            image = self._untag_digests(image, held[0])
        if not image.references:
            self._delete(image, force=force, prune=prune, quiet=True)
        return self._done

    def remove_platforms(
        self, ref: str, platforms: Sequence[Platform], *, force: bool, prune: bool
    ) -> list[Removal]:
        """Remove images of the index that `ref` means, keeping its name while one is left."""
        for platform in platforms:
            image = self._of_platform(ref, platform)
            others = [i for i in self._store.platforms_of(image) if i.id != image.id]
            if image.references and others:
                self._refuse(image, force=force, for_names=False)
                self._store.move_names(image, others[0])
                image = self._store.get(image.id)
            elif image.references:
                self._done += self.remove(ref, force=force, prune=prune)
                continue
            self._delete(image, force=force, prune=prune, quiet=False)
        return self._done

    def _of_platform(self, ref: str, platform: Platform) -> Image:
        """Return the image of exactly this platform. Raises NotFound."""
        named = self._store.get(ref)
        for image in {
            named.id: named,
            **{i.id: i for i in self._store.platforms_of(named)},
        }.values():
            if normalize(image.config.platform) == normalize(platform):
                return image
        raise NotFound(
            f"image with reference {ref} was found but does not provide the specified platform "
            f"({platform})"
        )

    def _check_name(self, image: Image, ref: str, *, force: bool) -> None:
        """Refuse to leave an image that is in use without a name."""
        if force or not _is_single(image.references):
            return
        for user in self._users:
            if user.uses(image.id):
                raise Conflict(
                    f'conflict: unable to remove repository reference "{ref}" (must force) - '
                    f"container {user.id[:12]} is using its referenced image {short(image.id)}"
                )

    def _untag(self, image: Image, references: Sequence[Reference]) -> Image:
        image = self._store.untag(image, references)
        self._done += [Removal(image.id, untagged=r.familiar) for r in references]
        return image

    def _untag_digests(self, image: Image, removed: Reference) -> Image:
        """With the last tag of a repository its digests go as well."""
        same = [r for r in image.references if r.name == removed.name]
        if any(not r.digest for r in same):
            return image
        return self._untag(image, same) if same else image

    def _delete(self, image: Image, *, force: bool, prune: bool, quiet: bool) -> None:
        refused = self._against(image, force=force, for_names=True)
        if refused is not None:
            is_dangling = not image.references and not self._store.children(image.id)
            if quiet and (not is_dangling or refused.is_used):
                return
            raise Conflict(refused.message)
        image = self._untag(image, image.references)
        in_use = {chain for user in self._users for chain in user.layers}
        gone = self._store.delete(image, in_use=in_use)
        self._done.append(Removal(image.id, deleted=image.id))
        self._done += [Removal(image.id, deleted=layer.chain_id) for layer in gone]
        for other in self._store.platforms_of(image):
            if not self._store.is_named(other) and other.id in self._store:
                # Nothing but the index of the one that went spoke of it.
                self._delete(other, force=False, prune=prune, quiet=True)
        if prune and image.parent in self._store and not self._store.is_pinned(image.parent):
            parent = self._store.get(image.parent)
            self._delete(parent, force=False, prune=True, quiet=True)

    def _refuse(self, image: Image, *, force: bool, for_names: bool) -> None:
        refused = self._against(image, force=force, for_names=for_names)
        if refused is not None:
            raise Conflict(refused.message)

    def _against(self, image: Image, *, force: bool, for_names: bool) -> _Refused | None:
        """Return what is against deleting the image; force lets the soft reasons pass."""
        hard, soft = "cannot be forced", "must be forced"

        def refused(kind: str, why: str, *, is_used: bool = False) -> _Refused:
            return _Refused(
                f"conflict: unable to delete {short(image.id)} ({kind}) - {why}", is_used
            )

        if self._store.children(image.id):
            return refused(hard, "image has dependent child images")
        mine = sorted((u for u in self._users if u.uses(image.id)), key=lambda u: not u.running)
        if mine and mine[0].running:
            why = f"image is being used by running container {mine[0].id[:12]}"
            return refused(hard, why, is_used=True)
        if force:
            return None
        if for_names and image.references:
            return refused(soft, "image is referenced in multiple repositories")
        if mine:
            why = f"image is being used by stopped container {mine[0].id[:12]}"
            return refused(soft, why, is_used=True)
        return None


def _is_id(image: Image, ref: str) -> bool:
    return image.id.startswith(ref) or image.id.partition(":")[2].startswith(ref)


def _is_single(references: Sequence[Reference]) -> bool:
    """Tell whether all references are of one repository with at most one tag among them."""
    tags = [r for r in references if not r.digest]
    names = {r.name for r in references}
    return bool(references) and len(tags) <= 1 and len(names) == 1
