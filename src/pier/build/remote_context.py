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
    if (git := parse_git(url)) is not None:
        found = await fetcher.checkout(git, keep_git_dir=keep_git_dir)
        context.take_directory(found.path)
        return
    if not url.startswith(REMOTE):
        raise BuildFailed(f"unable to prepare context: {url} is neither a git repository nor a URL")
    thing = await fetcher.file(url, "", "context")
    path = os.path.join(thing.directory, thing.name)
    await finished(executor, partial(_fill, context, path))


def _fill(context: Context, path: str) -> None:
    with open(path, "rb") as file:
        packed = is_archive(file)
    with open(path, "rb") as file:
        (context.unpack if packed else context.put_dockerfile)(file)
