"""A context that the engine fetches: a git repository, or an archive or a Dockerfile by its URL."""

import os
from concurrent.futures import Executor
from functools import partial

from pier.build.context import Context
from pier.build.copying import is_archive
from pier.build.failures import BuildFailed
from pier.build.fetching import Fetcher
from pier.build.git import parse_git
from pier.build.remote import REMOTE
from pier.build.threads import finished


async def load_remote(
    url: str, context: Context, fetcher: Fetcher, executor: Executor, *, keep_git_dir: bool
) -> None:
    """Fill an empty context. Raises PierError, OSError."""
    path = await fetch_remote(url, context, fetcher, keep_git_dir=keep_git_dir)
    if path:
        await fill(context, path, executor)


async def fetch_remote(url: str, context: Context, fetcher: Fetcher, *, keep_git_dir: bool) -> str:
    """Fetch it; return the file that is to fill the context, "" where a repository has.

    Raises PierError, OSError.
    """
    if (git := parse_git(url)) is not None:
        found = await fetcher.checkout(git, keep_git_dir=keep_git_dir)
        context.take_directory(found.path)
        return ""
    if not url.startswith(REMOTE):
        raise BuildFailed(f"unable to prepare context: {url} is neither a git repository nor a URL")
    thing = await fetcher.file(url, "", "context")
    return os.path.join(thing.directory, thing.name)


async def fill(context: Context, path: str, executor: Executor) -> None:
    """Unpack an archive into the context, or take a file for its Dockerfile."""
    await finished(executor, partial(_fill, context, path))


def is_packed(path: str) -> bool:
    with open(path, "rb") as file:
        return is_archive(file)


def _fill(context: Context, path: str) -> None:
    packed = is_packed(path)
    with open(path, "rb") as file:
        (context.unpack if packed else context.put_dockerfile)(file)
