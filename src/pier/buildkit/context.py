"""A build's context that comes over a session: the Dockerfile at first, the files when a step wants them."""

import asyncio
import contextlib
import os
from collections.abc import Sequence
from functools import partial

from pier.build.context import DOCKERFILE, IGNORE_FILE, Context
from pier.build.dockerfile.lines import MAX_BYTES
from pier.build.failures import BuildFailed
from pier.build.fetching import Fetcher
from pier.build.git import parse_git
from pier.build.ignore import Ignore, read_patterns
from pier.build.kept_contexts import KeptContexts
from pier.build.options import BuildOptions
from pier.build.progress import Progress, working
from pier.build.remote_context import fetch_remote, fill, is_packed
from pier.build.stage import Shop
from pier.build.threads import finished
from pier.buildkit.session import Session
from pier.errors import InvalidParameter, NotFound
from pier.storage.root import DataRoot

KEEP_GIT_DIR = "BUILDKIT_CONTEXT_KEEP_GIT_DIR"
_NOBODY = "failed to load cache key: could not access local files without session"
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class SessionContext(Context):
    """`dockerfile` is the Dockerfile's name and `text` its content, once `load` is over.

    `key` and `dockerfile_key` are the names of the client's directories. `uploader` has what is fetched
    from the client itself. Close it at the end.
    """

    def __init__(
        self,
        root: DataRoot,
        session: Session | None,
        trees: KeptContexts,
        shop: Shop,
        *,
        key: str = "context",
        dockerfile_key: str = "dockerfile",
        uploader: object = None,
    ) -> None:
        super().__init__(root)
        self._session = session
        self._uploader = uploader
        self._trees = trees
        self._executor = shop.executor
        self._private = shop.private
        self._remote = False
        self._key = key
        self._dockerfile_key = dockerfile_key
        self._stack = contextlib.ExitStack()
        self._loading: asyncio.Task[None] | None = None
        self._progress: Progress | None = None
        self._build_key = ""
        self._patterns: list[str] = []
        self.follow: Sequence[str] = ()
        self.dockerfile = DOCKERFILE
        self.text = b""

    async def load(self, name: str, progress: Progress, build_key: str) -> None:
        """Get the Dockerfile. Raises PierError."""
        self._progress, self._build_key = progress, build_key
        self.dockerfile = name or DOCKERFILE
        place = self.directory()
        wanted = [self.dockerfile, f"{self.dockerfile}{IGNORE_FILE}"]
        if not name or name == DOCKERFILE:
            wanted.append(DOCKERFILE.lower())
        if self._session is None:
            raise BuildFailed(f"failed to read dockerfile: {_NOBODY}")
        what = f"[internal] load build definition from {self.dockerfile}"
        with working(progress, what, key=build_key) as work:
            await self._session.sync(self._dockerfile_key, place, {}, follow=wanted, work=work)
        read = partial(_read_first, place, wanted)
        found = await finished(self._executor, read)
        if found is None:
            raise NotFound(
                f"failed to read dockerfile: open {self.dockerfile}: no such file or directory"
            )
        self.text, own = found
        if own is None:
            own = await self._ignore_file(self._session, progress, build_key)
        self._patterns = read_patterns(own.decode("utf-8", "replace"))
        Ignore(self._patterns)  # raises for a pattern that cannot be

    async def fetch(
        self, url: str, options: BuildOptions, progress: Progress, build_key: str
    ) -> None:
        """Get a context from a URL: a repository, an archive or a Dockerfile. Raises PierError."""
        self._remote = True
        fetcher = Fetcher(self, self._session, self._private, uploader=self._uploader)
        keep = options.arguments.get(KEEP_GIT_DIR) in ("1", "true")
        is_git = parse_git(url) is not None
        what = f"git source {url}" if is_git else "remote build context"
        with working(progress, f"[internal] load {what}", key=build_key) as work:
            path = await fetch_remote(url, self, fetcher, keep_git_dir=keep)
        with contextlib.ExitStack() as stack:
            packed = await finished(self._executor, partial(is_packed, path)) if path else False
            if packed:
                # As BuildKit's frontend calls it: the file that came is "context".
                copying = working(progress, "copy /context /", key=build_key, inputs=[work.digest])
                stack.enter_context(copying)
            if path:
                await fill(self, path, self._executor)
        self.dockerfile = options.dockerfile or DOCKERFILE

    def take_files(self, root_fd: int, name: str) -> None:
        """Take a directory, which is closed with this, for the files and the Dockerfile."""
        self._remote = True
        os.close(self.root_fd)
        self.root_fd = root_fd
        self.dockerfile = name or DOCKERFILE

    async def _ignore_file(self, session: Session, progress: Progress, build_key: str) -> bytes:
        place = self.directory()
        with working(progress, f"[internal] load {IGNORE_FILE}", key=build_key) as work:
            await session.sync(self._key, place, {}, follow=[IGNORE_FILE], work=work)
        return await finished(self._executor, partial(_read, place, IGNORE_FILE)) or b""

    def read_dockerfile(self, name: str) -> str:
        if self._remote:
            return super().read_dockerfile(name)
        return self.text.decode("utf-8", "replace")

    async def ready(self) -> None:
        """Get the files, once; who is cancelled meanwhile leaves the others their transfer."""
        if self._remote:
            return
        if self._loading is None:
            self._loading = asyncio.create_task(self._load_files(), name="build context")
        await asyncio.shield(self._loading)

    async def _load_files(self) -> None:
        assert self._progress is not None
        session = self._session
        assert session is not None  # it has sent the Dockerfile
        key = f"{session.shared_key}\0{self._key}" if session.shared_key else ""
        tree = self._stack.enter_context(self._trees.held(key))
        with working(self._progress, "[internal] load build context", key=self._build_key) as work:
            index = await finished(self._executor, tree.begin)
            receiver = await session.sync(
                self._key,
                tree.path,
                index,
                exclude=self._patterns,
                follow=self.follow,
                work=work,
            )
            await finished(self._executor, partial(tree.settle, receiver.taken))
        self.digests = {path: sha for path, (_, sha) in receiver.taken.items() if sha}
        os.close(self.root_fd)
        self.root_fd = os.open(tree.path, _DIRECTORY)

    async def stop(self) -> None:
        """End a transfer that is under way; to be awaited before `close`."""
        if self._loading is not None:
            self._loading.cancel()
            await asyncio.wait([self._loading])
            if not self._loading.cancelled():
                self._loading.exception()  # looked at

    def close(self) -> None:
        super().close()
        self._stack.close()


def _read_first(place: str, names: Sequence[str]) -> tuple[bytes, bytes | None] | None:
    """Return the Dockerfile and its own ignore file, which may be none."""
    data = _read(place, names[0])
    if data is None and len(names) > 2:
        data = _read(place, names[2])
    return None if data is None else (data, _read(place, names[1]))


def _read(place: str, name: str) -> bytes | None:
    path = os.path.join(place, os.path.normpath(f"/{name}").lstrip("/"))
    try:
        with open(path, "rb") as file:
            data = file.read(MAX_BYTES + 1)
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        return None
    if len(data) > MAX_BYTES:
        raise InvalidParameter(f"{name} is larger than {MAX_BYTES} bytes")
    return data
