"""COPY and ADD from their words to their files: what is wanted, what was found, put in its place."""

import contextlib
import os
import posixpath
from collections.abc import Mapping, Sequence

from msgspec import Struct
from msgspec.structs import replace

from pier.build.chmod import Chmod, parse_chmod
from pier.build.configure import resolve
from pier.build.context import Context
from pier.build.copying import Placement, place, resolve_owner
from pier.build.dockerfile import instructions as ins
from pier.build.dockerfile.expand import Expander
from pier.build.dockerfile.lines import Heredoc
from pier.build.explain import MAX_FILES
from pier.build.failures import BuildFailed
from pier.build.fetching import Fetched, Fetcher
from pier.build.git import parse_git
from pier.build.ignore import Ignore
from pier.build.remote import REMOTE
from pier.build.snapshot import open_image
from pier.build.sources import Item, find, total
from pier.errors import Forbidden, InvalidParameter, NotFound
from pier.images.image import Image
from pier.images.store import ImageStore
from pier.model.container import ContainerConfig

SCRIPTS = "/dev/pipes/"


class Wanted(Struct, frozen=True):
    """An instruction with its words expanded; `contents` are its heredocs' by their names."""

    step: ins.Copy | ins.Add
    sources: Sequence[str]
    target: str
    contents: Sequence[tuple[str, str]]
    chown: str
    chmod: str
    exclude: Sequence[str]
    fetched: Sequence[Fetched] = ()
    """What URLs among the sources gave."""


class Found(Struct, frozen=True):
    """`items` with the directories to keep of each; `words` for the history; `details` is what
    else makes a difference. `link` makes a layer that knows nothing of those below it.
    `summed` is the sum of all, `files` has those of each.
    """

    items: list[tuple[Item, bytes]]
    target: str
    chown: str
    mode: Chmod | None
    words: str
    details: Sequence[object]
    link: bool = False
    summed: str = ""
    files: Mapping[str, str] = {}


def expand(step: ins.Copy | ins.Add, expander: Expander) -> Wanted:
    """Raises DockerfileError."""
    word = expander.word
    names = {f"<<{doc.name}" for doc in step.heredocs}
    named = {*names, *(f"<<-{doc.name}" for doc in step.heredocs)}
    contents = [(doc.name, word_of(doc, expander)) for doc in step.heredocs]
    return Wanted(
        step,
        [
            word(source)
            for source in step.sources
            if source.replace('"', "").replace("'", "") not in named
        ],
        word(step.target),
        contents,
        word(step.chown),
        word(step.chmod),
        [word(pattern) for pattern in step.exclude],
    )


def word_of(document: Heredoc, expander: Expander) -> str:
    """Return a heredoc's text: expanded unless its name was in quotes; quotes in it are text."""
    if not document.expand:
        return document.content
    lines = document.content.splitlines(keepends=True)
    return "".join(expander.word(line) if "$" in line else line for line in lines)


def with_heredocs(command: ins.Command) -> tuple[ins.Command, Heredoc | None]:
    """Return a RUN's command with its heredocs, for the shell to read.

    One that is nothing but a heredoc is a script: the shell runs its text, or, where that begins
    with `#!`, the file at SCRIPTS which the second value is for.
    """
    if not command.heredocs:
        return command, None
    if not command.is_shell:
        raise InvalidParameter(f"parsing produced an invalid run command: {command.words}")
    text = command.words[0]
    first = command.heredocs[0]
    bare = text.strip().replace('"', "").replace("'", "")
    if len(command.heredocs) == 1 and bare in (f"<<{first.name}", f"<<-{first.name}"):
        if first.content.startswith("#!"):
            return ins.Command([SCRIPTS + first.name], is_shell=True), first
        return ins.Command([first.content], is_shell=True), None
    for document in command.heredocs:
        text += f"\n{document.content}{document.name}"
    return ins.Command([text], is_shell=True), None


async def fetched(wanted: Wanted, checksum: str, fetcher: Fetcher) -> Wanted:
    """Fetch the URLs among the sources of an ADD. Raises PierError, OSError."""
    step = wanted.step
    if not isinstance(step, ins.Add):
        return wanted
    found: list[Fetched] = []
    rest = []
    for source in wanted.sources:
        git = parse_git(source)
        if checksum and len(wanted.sources) > 1:
            raise InvalidParameter("checksum can't be specified for multiple sources")
        if git is not None:
            keep = step.keep_git_dir
            found.append(await fetcher.repository(git, keep_git_dir=keep, commit=checksum))
        elif source.startswith(REMOTE):
            found.append(await fetcher.file(source, checksum))
        elif checksum:
            raise InvalidParameter("checksum requires HTTP(S) or git sources")
        else:
            rest.append(source)
    return replace(wanted, sources=rest, fetched=found)


def gather(
    stack: contextlib.ExitStack,
    wanted: Wanted,
    context: Context,
    store: ImageStore,
    image: Image | None,
) -> Found:
    """Find the files; `stack` closes what is opened for that. Blocking. Raises PierError, OSError.

    `image` is what --from names.
    """
    step = wanted.step
    root_fd, ignore, keep_owner = context.root_fd, context.ignore, False
    from_image = isinstance(step, ins.Copy) and bool(step.stage)
    if from_image:
        root_fd, ignore, keep_owner = _image_root(stack, store, image), Ignore(()), True
    exclude = Ignore(wanted.exclude)
    parents = isinstance(step, ins.Copy) and step.parents
    unpack = isinstance(step, ins.Add) and step.unpack is not False
    items: list[tuple[Item, bytes]] = []
    for source in wanted.sources:
        _check_source(step, source)
        try:
            found = find(
                root_fd,
                source,
                (ignore, exclude),
                is_context=not from_image,
                keep_owner=keep_owner and not wanted.chown,
                unpack=unpack,
            )
        except (NotFound, Forbidden) as exc:
            raise BuildFailed(f"{step.name} failed: {exc.message}") from exc
        if not from_image and context.digests:
            found = [replace(item, digests=context.digests) for item in found]
        items += [(item, _kept(source, item) if parents else b"") for item in found]
    for thing in wanted.fetched:
        fd = os.open(thing.directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        stack.callback(os.close, fd)
        taken_apart = isinstance(step, ins.Add) and step.unpack is True and bool(thing.name)
        item = Item(
            *(fd, os.fsencode(thing.name), Ignore(()), exclude),
            unpack=taken_apart,
            identity=thing.identity,
        )
        items.append((item, b""))
    items += _documents(stack, wanted, context)
    if not items:
        raise BuildFailed(f"{step.name} failed: no source files were specified")
    if len(items) > 1 and not wanted.target.endswith("/") and wanted.target not in (".", ".."):
        raise BuildFailed(
            f"When using {step.name} with more than one source file, "
            "the destination must be a directory and end with a /"
        )
    flags = f"--chown={wanted.chown} " if wanted.chown else ""
    files: dict[str, str] = {}
    summed = total([item for item, _ in items], files)
    words = f"{flags}{summed} in {wanted.target} "
    asked = step.unpack if isinstance(step, ins.Add) else None
    details = [wanted.chmod, list(wanted.exclude), parents, asked, [keep for _, keep in items]]
    mode = parse_chmod(wanted.chmod)
    return Found(
        *(items, wanted.target, wanted.chown, mode, words, details),
        link=step.link,
        summed=summed,
        files=files if len(files) <= MAX_FILES else {},
    )


def put(found: Found, config: ContainerConfig, root_fd: int) -> None:
    """Copy what was found into the tree `root_fd`. Raises PierError, OSError."""
    target = resolve(config, found.target)
    as_directory = found.target.endswith(("/", "/.")) or found.target in (".", "..")
    if as_directory and not target.endswith("/"):
        target += "/"
    keeps = any(keep for _, keep in found.items)
    place(root_fd, found.items, Placement(target, found.chown, found.mode, keeps))


def owner_in(store: ImageStore, image: Image | None, owner: str) -> str:
    """Return --chown as numbers, looked up in an image's files. Blocking.

    Raises InvalidParameter, OSError.
    """
    if not owner or all(part.isdecimal() for part in owner.split(":")):
        return owner
    with contextlib.ExitStack() as stack:
        uid, gid = resolve_owner(_image_root(stack, store, image), owner)
    return f"{uid}:{gid}"


def _image_root(stack: contextlib.ExitStack, store: ImageStore, image: Image | None) -> int:
    if image is None or not image.chain_ids:
        raise BuildFailed("COPY failed: the stage has no files")
    pins = stack.enter_context(store.pinned())
    pins.add(*image.chain_ids)
    fd = open_image(store, image)
    stack.callback(os.close, fd)
    return fd


def _check_source(step: ins.Copy | ins.Add, source: str) -> None:
    if parse_git(source) is not None:
        raise BuildFailed("source can't be a git ref for COPY")
    if source.startswith(REMOTE):
        raise BuildFailed("source can't be a URL for COPY")


def _kept(source: str, item: Item) -> bytes:
    """Return the directories that --parents keeps: those behind a `./` in the middle, or all."""
    directory = item.path.rpartition(b"/")[0]
    before, pivot, _ = source.lstrip("/").partition("/./")
    if pivot:
        prefix = os.fsencode(posixpath.normpath(before))
        directory = directory[len(prefix) :].lstrip(b"/")
    return directory


def _documents(
    stack: contextlib.ExitStack, wanted: Wanted, context: Context
) -> list[tuple[Item, bytes]]:
    """Write heredocs to files, which are then copied like others."""
    if not wanted.contents:
        return []
    path = context.directory()
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    stack.callback(os.close, fd)
    items = []
    for name, text in wanted.contents:
        with open(os.open(name, _WRITE, 0o644, dir_fd=fd), "wb") as file:
            file.write(text.encode())
        items.append((Item(fd, os.fsencode(name), Ignore(())), b""))
    return items


_WRITE = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
