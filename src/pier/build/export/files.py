"""The exporters `local` and `tar`: the files of what was built, without layers and config.

Several platforms lie in a directory each (`linux_amd64`), unless `platform-split=false` puts their
files together. Attestations that were asked for become files at the top: `provenance.json`,
`sbom.spdx.json`, about every regular file there is.

A single tree is sent as it is, through an overlay that only this process sees; anything else is
put together in staging/ first.
"""

import contextlib
import hashlib
import os
import stat
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Executor
from functools import partial

from msgspec import Struct

from pier.build.attest.predicates import Attester
from pier.build.attest.statement import Predicate, Subject, statement
from pier.build.export.attributes import TreeAttributes, tree_attributes
from pier.build.export.exporter import Receiver
from pier.build.export.sending import receiver_for, send_pieces
from pier.build.progress import Work
from pier.build.result import BuildResult, Order, PlatformResult
from pier.build.threads import finished
from pier.images.store import ImageStore
from pier.kernel.mount import MOUNT_ATTR_RDONLY, new_mount
from pier.storage.extract import extract
from pier.storage.merged import MergedDirectory, tree_members
from pier.storage.pack import CHUNK, Packer, joined
from pier.storage.tar.members import directory_member, file_member
from pier.storage.tar.reader import TarReader
from pier.storage.tar.writer import END

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_SECOND = 1_000_000_000


class _Tree(Struct, frozen=True):
    """One platform's files: `prefix` is the directory that they are put into, "" for none.

    `layers` are paths, uppermost first; `files` are those beside, by name.
    """

    prefix: str
    layers: Sequence[str]
    files: Mapping[str, bytes]


class FilesExporter:
    """`tar` tells which of the two it is."""

    def __init__(
        self, store: ImageStore, attester: Attester, executor: Executor, *, tar: bool
    ) -> None:
        self._store = store
        self._attester = attester
        self._executor = executor
        self._tar = tar

    async def export(
        self, result: BuildResult, order: Order, receiver: Receiver | None, work: Work
    ) -> dict[str, str]:
        attributes = tree_attributes(order.attributes)
        client = receiver_for(receiver, order.type)
        epoch = attributes.epoch if attributes.epoch is not None else result.epoch
        is_list = result.is_list or len(result.platforms) > 1
        split = is_list if attributes.platform_split is None else attributes.platform_split
        predicates = await self._attester.predicates(result, inline=False)
        with self._store.pinned() as pins:
            for one in result.platforms:
                pins.add(*(one.image.chain_ids if one.image else ()))
            trees = [
                await finished(
                    self._executor,
                    partial(self._tree, one, said, attributes, split=split),
                )
                for one, said in zip(result.platforms, predicates, strict=True)
            ]
            if self._tar:
                with work.part("sending tarball"):
                    pieces = joined(_members(trees, epoch))
                    await send_pieces(client, order.id, {}, pieces, self._executor)
            else:
                with work.part("copying files"):
                    is_clamped = epoch is not None and epoch != result.epoch
                    await self._send(client, order.id, trees, epoch, copy=is_clamped)
        return {}

    def _tree(
        self,
        one: PlatformResult,
        said: Sequence[Predicate],
        attributes: TreeAttributes,
        *,
        split: bool,
    ) -> _Tree:
        chain = one.image.chain_ids if one.image else ()
        store = self._store
        layers = [store.root.join(store.layers.path(chain_id)) for chain_id in reversed(chain)]
        files = {}
        if said:
            subjects = _subjects(layers)
            for predicate in said:
                name = attributes.attestation_prefix + predicate.file
                if attributes.platform_split is False:
                    stem, _, ending = name.rpartition(".")
                    name = f"{stem}.{_directory_name(one)}.{ending}"
                files[name] = statement(predicate, subjects, indent=2)
        return _Tree(_directory_name(one) if split else "", layers, files)

    async def _send(
        self,
        client: Receiver,
        exporter: str,
        trees: Sequence[_Tree],
        epoch: int | None,
        *,
        copy: bool,
    ) -> None:
        place = self._store.root.staging("staging")
        try:
            with contextlib.ExitStack() as stack:
                if len(trees) == 1 and not trees[0].prefix and not copy:
                    opened = partial(_overlay, stack, trees[0], place)
                else:
                    opened = partial(_put_together, trees, place, epoch)
                directory = await finished(self._executor, opened)
                await client.send_tree(exporter, directory)
        finally:
            self._store.root.discard(place)


def _directory_name(one: PlatformResult) -> str:
    return str(one.platform).replace("/", "_")


def _members(trees: Sequence[_Tree], epoch: int | None) -> Iterator[bytes]:
    mtime_s = epoch or 0
    for tree in trees:
        prefix = os.fsencode(tree.prefix + "/" if tree.prefix else "")
        if prefix:
            yield directory_member(prefix, mtime_s=mtime_s)
        if tree.layers:
            packer = Packer(None if epoch is None else epoch * _SECOND)
            with MergedDirectory.open(tree.layers) as root:
                yield from tree_members(root, packer, prefix)
        for name, data in tree.files.items():
            yield from file_member(prefix + os.fsencode(name), data, mode=0o600, mtime_s=mtime_s)
    yield END


def _put_together(trees: Sequence[_Tree], place: str, epoch: int | None) -> str:
    """Copy all trees into `place`, which is made; of files of one name the last one stays."""
    os.mkdir(place, 0o755)
    fd = os.open(place, _DIRECTORY)
    try:
        reader = TarReader(joined(_members(trees, epoch)))
        extract(reader, fd)
        reader.drain()
    finally:
        os.close(fd)
    return place


def _overlay(stack: contextlib.ExitStack, tree: _Tree, place: str) -> str:
    """Return the path of a tree's files, good until the stack is closed: nothing is copied.

    The lowest layer is an empty directory: an overlay wants two, and takes the marks of what was
    deleted away.
    """
    os.makedirs(os.path.join(place, "files"))
    os.mkdir(os.path.join(place, "empty"))
    for name, data in tree.files.items():
        fd = os.open(os.path.join(place, "files", name), os.O_WRONLY | os.O_CREAT, 0o600)
        with open(fd, "wb") as file:
            file.write(data)
    lower = [os.path.join(place, "files"), *tree.layers, os.path.join(place, "empty")]
    # By descriptor: a value of fsconfig has at most 255 bytes.
    options: list[tuple[str, str | None]] = []
    for layer in lower:
        fd = os.open(layer, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        stack.callback(os.close, fd)
        options.append(("lowerdir+", f"/proc/self/fd/{fd}"))
    try:
        mounted = new_mount("overlay", options, source="overlay", attributes=MOUNT_ATTR_RDONLY)
    except OSError:
        # A kernel before 6.7 has no lowerdir+.
        target = os.path.join(place, "copy")
        return _put_together([tree], target, None)
    stack.callback(os.close, mounted)
    # Behind the link: who opens it need not follow one.
    return f"/proc/{os.getpid()}/fd/{mounted}/."


def _subjects(layers: Sequence[str]) -> list[Subject]:
    """Return every regular file with its sum."""
    found: list[Subject] = []
    if not layers:
        return found
    with MergedDirectory.open(layers) as root:
        for path, name, node in root.walk():
            if stat.S_ISREG(node.found.st_mode):
                flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC
                fd = os.open(name, flags, dir_fd=node.parent_fd)
                hasher = hashlib.sha256()
                with open(fd, "rb", buffering=0) as file:
                    while data := file.read(CHUNK):
                        hasher.update(data)
                found.append(Subject(os.fsdecode(path), hasher.hexdigest()))
    return found
