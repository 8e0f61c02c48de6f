"""What a build takes from elsewhere: files of URLs and git repositories, with the client's rights."""

import base64
import contextlib
from urllib.parse import urlsplit

from msgspec import Struct

from pier.build.context import Context
from pier.build.git import Checkout, GitSource, check_out
from pier.build.remote import fetch
from pier.build.session import ClientSession
from pier.build.step_secrets import open_agent
from pier.errors import PierError

_WEB = ("http://", "https://")


class Fetched(Struct, frozen=True):
    """`name` is in `directory`, "" for all that is in it. `identity` says what it is, "" where only
    its content does.
    """

    directory: str
    name: str
    identity: str = ""


class Fetcher:
    """`private` is a directory for sockets; what is fetched goes with `context`."""

    def __init__(self, context: Context, session: ClientSession | None, private: str) -> None:
        self._context = context
        self._session = session
        self._private = private

    async def file(self, url: str, checksum: str, name: str = "") -> Fetched:
        """Fetch a file, called as in the URL unless it has a name. Raises PierError, OSError."""
        directory = self._context.directory()
        return Fetched(directory, await fetch(url, directory, checksum, name))

    async def repository(
        self, source: GitSource, *, keep_git_dir: bool = False, commit: str = ""
    ) -> Fetched:
        """Raises PierError, OSError."""
        found = await self.checkout(source, keep_git_dir=keep_git_dir, commit=commit)
        kept = "+git" if keep_git_dir else ""
        return Fetched(found.path, "", f"git:{found.commit}{kept}:{source.directory}")

    async def checkout(
        self, source: GitSource, *, keep_git_dir: bool = False, commit: str = ""
    ) -> Checkout:
        """Raises PierError, OSError."""
        async with contextlib.AsyncExitStack() as stack:
            agent = header = ""
            if self._session is not None:
                if source.url.startswith(_WEB):
                    header = await self._header(self._session, source.url)
                else:
                    agent = await self._agent(stack, self._session)
            return await check_out(
                source,
                self._context.directory(),
                keep_git_dir=keep_git_dir,
                commit=commit,
                agent=agent,
                header=header,
            )

    async def _agent(self, stack: contextlib.AsyncExitStack, session: ClientSession) -> str:
        try:
            await session.check_ssh("default")
        except PierError:
            return ""  # a repository may be readable without one
        return await open_agent(stack, session, "default", self._private)

    async def _header(self, session: ClientSession, url: str) -> str:
        """The secrets GIT_AUTH_HEADER and GIT_AUTH_TOKEN, those of the host first, as BuildKit."""
        host = urlsplit(url).hostname or ""
        for suffix in (f".{host}", ""):
            header = await session.secret(f"GIT_AUTH_HEADER{suffix}")
            if header:
                return "Authorization: " + header.decode("utf-8", "replace").strip()
            token = await session.secret(f"GIT_AUTH_TOKEN{suffix}")
            if token:
                words = base64.b64encode(b"x-access-token:" + token.strip()).decode()
                return f"Authorization: basic {words}"
        return ""
