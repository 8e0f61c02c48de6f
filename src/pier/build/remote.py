"""ADD of a URL: fetched each time, since only its content tells whether it changed."""

import hashlib
import os
import posixpath
from email.utils import parsedate_to_datetime
from urllib.parse import unquote, urlsplit

import aiohttp

from pier.build.failures import BuildFailed
from pier.errors import InvalidParameter
from pier.model.digest import parse_digest
from pier.registry.transport import in_go_words

REMOTE = ("http://", "https://")
_CHUNK = 1 << 18
_TIMEOUT = aiohttp.ClientTimeout(total=None, sock_connect=30, sock_read=60)


async def fetch(url: str, directory: str, checksum: str, name: str = "") -> str:
    """Fetch into a file of `directory`; return its name. Raises BuildFailed, InvalidParameter.

    Without `name` it is called as in the URL. Its mode is 0600 and its time the server's Last-Modified, or the epoch, as with Docker.
    """
    name = name or posixpath.basename(unquote(urlsplit(url).path))
    if name in ("", ".", "..") or "/" in name or "\0" in name:
        raise InvalidParameter(f"cannot determine filename from url: {url}")
    wanted = parse_digest(checksum) if checksum else ""
    hasher = hashlib.new(wanted.partition(":")[0] or "sha256")
    path = os.path.join(directory, name)
    try:
        async with (
            aiohttp.ClientSession(timeout=_TIMEOUT, auto_decompress=False) as session,
            session.get(url, headers={"Accept-Encoding": "identity"}) as answer,
        ):
            if answer.status >= 400:
                raise BuildFailed(
                    f"ADD failed: failed to GET {url} with status {answer.status} {answer.reason}"
                )
            fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            try:
                async for chunk in answer.content.iter_chunked(_CHUNK):
                    hasher.update(chunk)
                    view = memoryview(chunk)
                    while view:
                        view = view[os.write(fd, view) :]
            finally:
                os.close(fd)
            modified = answer.headers.get("Last-Modified", "")
    except (aiohttp.ClientError, TimeoutError) as exc:
        why = await in_go_words(url, exc)
        raise BuildFailed(f"ADD failed: failed to GET {url}: {why}") from exc
    except ValueError as exc:
        raise BuildFailed(f"ADD failed: failed to GET {url}: {exc}") from exc
    found = f"{hasher.name}:{hasher.hexdigest()}"
    if wanted and found != wanted:
        raise BuildFailed(f"ADD failed: digest mismatch {found}: {wanted}")
    os.utime(path, (_seconds(modified),) * 2)
    return name


def _seconds(modified: str) -> float:
    try:
        return parsedate_to_datetime(modified).timestamp()
    except ValueError:
        return 0
