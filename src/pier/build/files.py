"""COPY and ADD from their words to their files: what is wanted, what was found, put in its place."""

import contextlib
import os
import posixpath
from collections.abc import Sequence

from msgspec import Struct
from msgspec.structs import replace

from pier.build.configure import resolve
from pier.build.context import Context
from pier.build.copying import Placement, place
from pier.build.dockerfile import instructions as ins
from pier.build.dockerfile.expand import Expander
from pier.build.dockerfile.lines import Heredoc
from pier.build.failures import BuildFailed
from pier.build.ignore import Ignore
from pier.build.remote import REMOTE, fetch
from pier.build.snapshot import open_image
from pier.build.sources import Item, find, total
from pier.errors import Forbidden, InvalidParameter, NotFound, Unsupported
from pier.images.image import Image
from pier.images.store import ImageStore
from pier.model.container import ContainerConfig

_GIT = ("git@", "git://", "ssh://")
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
    fetched: Sequence[tuple[str, str]] = ()
    """(directory, name) of what URLs among the sources gave."""


class Found(Struct, frozen=True):
    """`items` with the directories to keep of each; `words` for the history; `details` is what
    else makes a difference.
    """

    items: list[tuple[Item, bytes]]
    target: str
    chown: str
    mode: int | None
    words: str
    details: Sequence[object]


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


async def fetched(wanted: Wanted, checksum: str, context: Context) -> Wanted:
    """Fetch the URLs among the sources of an ADD. Raises PierError, OSError."""
    if not isinstance(wanted.step, ins.Add):
        return wanted
    urls = [source for source in wanted.sources if source.startswith(REMOTE)]
    if checksum and (len(urls) != 1 or len(wanted.sources) != 1):
        raise InvalidParameter("checksum can't be specified for multiple or non-HTTP(S) sources")
    found = []
    for url in urls:
        directory = context.directory()
        found.append((directory, await fetch(url, directory, checksum)))
    rest = [source for source in wanted.sources if source not in urls]
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
        items += [(item, _kept(source, item) if parents else b"") for item in found]
    for directory, name in wanted.fetched:
        fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        stack.callback(os.close, fd)
        taken_apart = isinstance(step, ins.Add) and step.unpack is True
        items.append((Item(fd, os.fsencode(name), Ignore(()), unpack=taken_apart), b""))
    items += _documents(stack, wanted, context)
    if not items:
        raise BuildFailed(f"{step.name} failed: no source files were specified")
    if len(items) > 1 and not wanted.target.endswith("/") and wanted.target not in (".", ".."):
        raise BuildFailed(
            f"When using {step.name} with more than one source file, "
            "the destination must be a directory and end with a /"
        )
    flags = f"--chown={wanted.chown} " if wanted.chown else ""
    words = f"{flags}{total([item for item, _ in items])} in {wanted.target} "
    details = [wanted.chmod, list(wanted.exclude), parents, unpack, [keep for _, keep in items]]
    return Found(items, wanted.target, wanted.chown, _mode(wanted.chmod), words, details)


def put(found: Found, config: ContainerConfig, root_fd: int) -> None:
    """Copy what was found into the tree `root_fd`. Raises PierError, OSError."""
    target = resolve(config, found.target)
    as_directory = found.target.endswith(("/", "/.")) or found.target in (".", "..")
    if as_directory and not target.endswith("/"):
        target += "/"
    keeps = any(keep for _, keep in found.items)
    place(root_fd, found.items, Placement(target, found.chown, found.mode, keeps))


def _image_root(stack: contextlib.ExitStack, store: ImageStore, image: Image | None) -> int:
    if image is None or not image.chain_ids:
        raise BuildFailed("COPY failed: the stage has no files")
    pins = stack.enter_context(store.pinned())
    pins.add(*image.chain_ids)
    fd = open_image(store, image)
    stack.callback(os.close, fd)
    return fd


def _check_source(step: ins.Copy | ins.Add, source: str) -> None:
    if source.startswith(REMOTE):
        raise BuildFailed("source can't be a URL for COPY")
    if source.startswith(_GIT):
        raise Unsupported(f"{step.name} of a git repository is not supported by pierd yet")


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


def _mode(text: str) -> int | None:
    if not text:
        return None
    try:
        mode = int(text, 8)
    except ValueError:
        raise Unsupported(f"--chmod={text}: only octal modes are supported by pierd yet") from None
    if not 0 <= mode <= 0o7777:
        raise InvalidParameter(
            f"invalid chmod parameter: '{text}'. it should be octal string and between 0 and 07777"
        )
    return mode
