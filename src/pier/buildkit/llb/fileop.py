"""FileOp: files copied, made and removed, without a container (buildkit solver/llbsolver/file).

Its actions are a chain, or several: one takes an input of the operation or what another one made.
Those that follow each other work on one overlay, and what they come to is one layer. The trees are
hostile: their paths are resolved with the tree as the root.
"""

import contextlib
import os
import posixpath
import stat
from collections.abc import Callable, Iterator, Sequence
from functools import partial

from msgspec.structs import replace

from pier.build.chmod import Chmod, parse_chmod
from pier.build.context import INSIDE
from pier.build.copying import Placement, place, resolve_owner
from pier.build.ignore import Ignore
from pier.build.sources import Item, find, total
from pier.build.threads import finished
from pier.build.tree import work_on
from pier.buildkit.llb.files import (
    SCRATCH,
    Files,
    Solving,
    as_image,
    identity_of,
    open_files,
    save_layer,
)
from pier.buildkit.messages import ops
from pier.errors import InvalidParameter, NotFound
from pier.kernel.openat2 import openat2
from pier.storage.tree import remove_tree

NO_INPUT, NO_OUTPUT = -1, -1
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_WRITE = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_ALL = Ignore(())
Owner = tuple[int, int]
Work = Callable[[int], None]


def outputs(op: ops.FileOp) -> int:
    """Return how many outputs it has. Raises InvalidParameter where they do not follow each other."""
    given = sorted(action.output for action in op.actions if action.output != NO_OUTPUT)
    if not given or given != list(range(len(given))):
        raise InvalidParameter("invalid outputs of a file op")
    return len(given)


def contents(solving: Solving, op: ops.FileOp, inputs: Sequence[Files]) -> list[str]:
    """Return what counts of its inputs: of a directory that is only copied from, what is copied.

    Blocking. Raises PierError, OSError.
    """
    whole: set[int] = set()
    found = []
    for action in op.actions:
        whole.add(action.input)
        given = (action.mkdir, action.mkfile, action.symlink, action.copy)
        for owner in (one.owner for one in given if one is not None):
            for user in (owner.user, owner.group) if owner else ():
                if user is not None and user.byName is not None:
                    whole.add(user.byName.input)
        index = action.secondaryInput
        if action.copy is None or not 0 <= index < len(inputs):
            continue
        if not inputs[index].directory or inputs[index].identity:
            whole.add(index)
            continue
        fd = open_files(solving, inputs[index])
        try:
            found.append(total(_sources(action.copy, fd)))
        except FileNotFoundError:
            whole.add(index)  # what is not there fails when it is copied
        finally:
            os.close(fd)
    return [identity_of(f) if number in whole else "" for number, f in enumerate(inputs)] + found


class FileWork:
    """One FileOp with its inputs."""

    def __init__(
        self, solving: Solving, op: ops.FileOp, inputs: Sequence[Files], name: str
    ) -> None:
        self._solving = solving
        self._actions = op.actions
        self._inputs = inputs
        self._name = name
        self._done: dict[int, Files] = {}

    async def run(self) -> list[Files]:
        """Return its outputs. Raises PierError, OSError."""
        found: dict[int, Files] = {}
        for number, action in enumerate(self._actions):
            if action.output != NO_OUTPUT:
                found[action.output] = await self._result(number)
        return [found[number] for number in sorted(found)]

    async def _result(self, number: int) -> Files:
        """Do an action and those that it follows, as far as they are not done."""
        if number in self._done:
            return self._done[number]
        chain = [number]
        base = self._actions[number].input
        while base >= len(self._inputs):
            before = self._before(base, chain[-1])
            if before in self._done:
                break
            chain.append(before)
            base = self._actions[before].input
        start = await self._files(base, chain[-1])
        with contextlib.ExitStack() as stack:
            works = [await self._work(stack, one) for one in reversed(chain)]
            made = await self._apply(start, works)
        self._done[number] = made
        return made

    def _before(self, index: int, number: int) -> int:
        """Return the action that an index names, which is an earlier one."""
        found = index - len(self._inputs)
        if found >= number:
            raise InvalidParameter(f"invalid input index {index} of a file action")
        return found

    async def _files(self, index: int, number: int) -> Files:
        if index == NO_INPUT:
            return SCRATCH
        if index < 0:
            raise InvalidParameter(f"invalid input index {index} of a file action")
        if index < len(self._inputs):
            return self._inputs[index]
        return await self._result(self._before(index, number))

    async def _apply(self, start: Files, works: Sequence[Work]) -> Files:
        solving = self._solving
        parent = await as_image(solving, start, self._name)
        store, executor = solving.shop.store, solving.shop.executor
        chain = reversed(parent.chain_ids) if parent else ()
        layers = [store.root.join(store.layers.path(chain_id)) for chain_id in chain]

        def work(root_fd: int) -> None:
            for one in works:
                one(root_fd)

        place_ = solving.scratch.directory()
        upper = await finished(executor, partial(work_on, layers, place_, work))
        return Files(await save_layer(solving, parent, upper, self._name))

    async def _work(self, stack: contextlib.ExitStack, number: int) -> Work:
        """Return what an action does to a tree; `stack` holds the trees that it reads."""
        action = self._actions[number]
        if action.mkdir is not None:
            owner = await self._owner(action.mkdir.owner, number)
            return partial(make_directory, action.mkdir, owner)
        if action.mkfile is not None:
            owner = await self._owner(action.mkfile.owner, number)
            return partial(make_file, action.mkfile, owner)
        if action.symlink is not None:
            owner = await self._owner(action.symlink.owner, number)
            return partial(make_link, action.symlink, owner)
        if action.rm is not None:
            return partial(remove, action.rm)
        if action.copy is not None:
            owner = await self._owner(action.copy.owner, number)
            source = await self._files(action.secondaryInput, number)
            source_fd = await self._open(stack, source)
            return partial(copy, action.copy, owner, source_fd)
        raise InvalidParameter("invalid nil file action")

    async def _open(self, stack: contextlib.ExitStack, files: Files) -> int:
        solving = self._solving
        fd = await finished(solving.shop.executor, partial(open_files, solving, files))
        stack.callback(os.close, fd)
        return fd

    async def _owner(self, given: ops.ChownOpt | None, number: int) -> Owner | None:
        if given is None or (given.user is None and given.group is None):
            return None
        uid, gid = await self._ids(given.user, number, is_group=False)
        if given.group is not None:
            _, gid = await self._ids(given.group, number, is_group=True)
        return uid, gid

    async def _ids(self, given: ops.UserOpt | None, number: int, *, is_group: bool) -> Owner:
        """A number is a user's and its group's; a name is looked up in the files of an input."""
        if given is None:
            return 0, 0
        if given.byName is None:
            return given.byID, given.byID
        files = await self._files(given.byName.input, number)
        with contextlib.ExitStack() as stack:
            fd = await self._open(stack, files)
            words = f"0:{given.byName.name}" if is_group else given.byName.name
            look_up = partial(resolve_owner, fd, words)
            return await finished(self._solving.shop.executor, look_up)


# What actions do to a tree; each is blocking and raises PierError and OSError.


def make_directory(action: ops.FileActionMkDir, owner: Owner | None, root_fd: int) -> None:
    path = _clean(action.path)
    missing = [path]
    while action.makeParents and len(missing[-1]) > 1:
        missing.append(posixpath.dirname(missing[-1]))
    for one in reversed(missing):
        if one == "/":
            continue
        with _parent(root_fd, one) as (fd, name):
            try:
                os.mkdir(name, action.mode & 0o777, dir_fd=fd)
            except FileExistsError:
                if action.makeParents:
                    os.close(openat2(root_fd, os.fsencode(one), _DIRECTORY, resolve=INSIDE))
                continue
            _finish(fd, name, action.mode & 0o7777, owner, action.timestamp)


def make_file(action: ops.FileActionMkFile, owner: Owner | None, root_fd: int) -> None:
    path = os.fsencode(_clean(action.path))
    is_new = not _is_there(root_fd, path)
    with open(openat2(root_fd, path, _WRITE, 0o600, resolve=INSIDE), "wb") as file:
        file.write(action.data)
        file.flush()
        if owner is not None:
            os.fchown(file.fileno(), *owner)
        if is_new:
            os.fchmod(file.fileno(), action.mode & 0o7777)
        if action.timestamp >= 0:
            os.utime(file.fileno(), ns=(action.timestamp, action.timestamp))


def make_link(action: ops.FileActionSymlink, owner: Owner | None, root_fd: int) -> None:
    with _parent(root_fd, _clean(action.newpath)) as (fd, name):
        os.symlink(os.fsencode(action.oldpath), name, dir_fd=fd)
        _finish(fd, name, None, owner, action.timestamp)


def remove(action: ops.FileActionRm, root_fd: int) -> None:
    paths = [_clean(action.path)]
    if action.allowWildcard:
        paths = ["/" + os.fsdecode(path) for path in _named(root_fd, action.path)]
        if not paths and not action.allowNotFound:
            raise NotFound(f"{action.path} not found")
    for path in paths:
        if path == "/":
            raise InvalidParameter("rmPath: invalid empty path")
        try:
            with _parent(root_fd, path) as (fd, name):
                if not action.allowNotFound:
                    os.stat(name, dir_fd=fd, follow_symlinks=False)
                remove_tree(fd, name)
        except (FileNotFoundError, NotADirectoryError):
            if not action.allowNotFound:
                raise NotFound(f"remove {path}: no such file or directory") from None


def copy(action: ops.FileActionCopy, owner: Owner | None, source_fd: int, root_fd: int) -> None:
    target = "/" + action.dest.lstrip("/")
    if not action.createDestPath:
        with _parent(root_fd, _clean(target)):
            pass  # it raises where there is none
    items = _sources(action, source_fd)
    if not items:
        if action.allowEmptyWildcard:
            return
        raise NotFound(f"{action.src} not found")
    how = Placement(
        target,
        "" if owner is None else f"{owner[0]}:{owner[1]}",
        _mode(action),
        time_ns=action.timestamp if action.timestamp >= 0 else None,
        replace=action.alwaysReplaceExistingDestPaths,
        source_mode=True,
    )
    for item in items:
        place(root_fd, [(item, b"")], _placement(how, action, item, root_fd))


def _placement(how: Placement, action: ops.FileActionCopy, item: Item, root_fd: int) -> Placement:
    """A directory goes into one that is there, unless its contents are what is copied."""
    fd = item.open()
    try:
        is_directory = stat.S_ISDIR(os.fstat(fd).st_mode)
    finally:
        os.close(fd)
    is_there = how.target.endswith("/") or _is_directory(root_fd, how.target)
    if is_directory and not action.dirCopyContents and is_there and item.name:
        target = posixpath.join(how.target, os.fsdecode(item.name))
        return replace(how, target=target)
    return how


def _sources(action: ops.FileActionCopy, source_fd: int) -> list[Item]:
    patterns = [*action.exclude_patterns]
    if action.include_patterns:
        patterns = ["**", *(f"!{one}" for one in action.include_patterns), *patterns]
    rules = Ignore(patterns)
    source = "/" + action.src.lstrip("/")
    paths = [os.fsencode(_clean(source).lstrip("/"))]
    if action.allowWildcard:
        paths = _named(source_fd, source)
    return [
        Item(
            *(source_fd, path, _ALL, rules),
            keep_owner=True,
            unpack=action.attemptUnpackDockerCompatibility,
            follow=action.followSymlink or not path,
        )
        for path in paths
    ]


def _mode(action: ops.FileActionCopy) -> Chmod | None:
    if action.modeStr:
        return parse_chmod(action.modeStr)
    return parse_chmod(f"{action.mode & 0o7777:04o}") if action.mode >= 0 else None


def _named(root_fd: int, pattern: str) -> list[bytes]:
    """Return the paths that a pattern, or a name without wildcards, stands for."""
    rules = (_ALL, _ALL)
    try:
        found = find(root_fd, pattern, rules, is_context=False, keep_owner=False, unpack=False)
    except NotFound:
        return []
    return [item.path for item in found]


def _is_directory(root_fd: int, path: str) -> bool:
    return _is_there(root_fd, os.fsencode(path), os.O_DIRECTORY)


def _is_there(root_fd: int, path: bytes, flags: int = 0) -> bool:
    try:
        os.close(openat2(root_fd, path, os.O_PATH | flags, resolve=INSIDE))
    except OSError:
        return False
    return True


def _clean(path: str) -> str:
    return posixpath.normpath("/" + path.lstrip("/"))


@contextlib.contextmanager
def _parent(root_fd: int, path: str) -> Iterator[tuple[int, bytes]]:
    """Have the directory that a path is in, open, and the path's last name."""
    directory, _, name = path.rpartition("/")
    try:
        fd = openat2(root_fd, os.fsencode(directory or "/"), _DIRECTORY, resolve=INSIDE)
    except FileNotFoundError:
        raise NotFound(f"stat {directory}: no such file or directory") from None
    try:
        yield fd, os.fsencode(name)
    finally:
        os.close(fd)


def _finish(fd: int, name: bytes, mode: int | None, owner: Owner | None, time_ns: int) -> None:
    """Set what was just made; a change of owner takes setuid bits away, so it comes first."""
    if owner is not None:
        os.chown(name, *owner, dir_fd=fd, follow_symlinks=False)
    if mode is not None:
        os.chmod(name, mode, dir_fd=fd)
    if time_ns >= 0:
        os.utime(name, ns=(time_ns, time_ns), dir_fd=fd, follow_symlinks=False)
