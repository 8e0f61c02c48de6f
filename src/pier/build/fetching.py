"""What a build takes from elsewhere: files of URLs and git repositories, with the client's rights."""

import asyncio
import base64
import contextlib
import hashlib
import os
from collections.abc import AsyncIterator
from typing import Protocol, runtime_checkable
from urllib.parse import urlsplit

from msgspec import Struct

from pier.build.attest.provenance import without_secrets
from pier.build.context import Context
from pier.build.git import Checkout, GitSource, check_out
from pier.build.remote import fetch
from pier.build.result import Material
from pier.build.session import ClientSession
from pier.build.step_secrets import open_agent
from pier.errors import PierError

# Where BuildKit's clients say that a context is which they read from their standard input.
UPLOADS = "http://buildkit-session/"
_SHA256 = 64
_WEB = ("http://", "https://")


class Fetched(Struct, frozen=True):
    """`name` is in `directory`, "" for all that is in it. `identity` says what it is, "" where only
    its content does.
    """

    directory: str
    name: str
    identity: str = ""


@runtime_checkable
class Uploader(Protocol):
    """A client that has files to be taken, each once: a session of BuildKit's."""

    def upload(self, path: str) -> AsyncIterator[bytes]: ...


class Fetcher:
    """`private` is a directory for sockets; what is fetched goes with `context`.

    `uploader` has what the client offers, the session itself without one.
    """

    def __init__(
        self,
        context: Context,
        session: ClientSession | None,
        private: str,
        *,
        uploader: object = None,
    ) -> None:
        self._context = context
        self._session = session
        self._private = private
        self._uploader = uploader if uploader is not None else session

    async def file(self, url: str, checksum: str, name: str = "") -> Fetched:
        """Fetch a file, called as in the URL unless it has a name. Raises PierError, OSError."""
        directory = self._context.directory()
        if url.startswith(UPLOADS) and isinstance(self._uploader, Uploader):
            return await self._uploaded(self._uploader, url, os.path.join(directory, "upload"))
        found = await fetch(url, directory, checksum, name)
        digest = await asyncio.to_thread(_digest, os.path.join(directory, found))
        self._note(Material(without_secrets(url), {"sha256": digest}))
        return Fetched(directory, found)

    async def _uploaded(self, uploader: Uploader, url: str, path: str) -> Fetched:
        """Take what the client offers: its next build offers it under another URL."""
        file = await asyncio.to_thread(open, path, "xb")
        with file:
            async for piece in uploader.upload(urlsplit(url).path):
                await asyncio.to_thread(file.write, piece)
        return Fetched(*os.path.split(path))

    def _note(self, material: Material) -> None:
        """Remember it for provenance."""
        self._context.materials[material.uri] = material

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
            found = await check_out(
                source,
                self._context.directory(),
                keep_git_dir=keep_git_dir,
                commit=commit,
                agent=agent,
                header=header,
            )
        ref = f"#{source.ref}" if source.ref else ""
        kind = "sha256" if len(found.commit) == _SHA256 else "sha1"
        self._note(Material(without_secrets(source.url) + ref, {kind: found.commit}))
        return found

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


def _digest(path: str) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
