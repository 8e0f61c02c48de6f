"""Git repositories as contexts and as sources of ADD.

A reference is as BuildKit's: `https://host/path.git#ref:directory`, `git@host:path`, `ssh://…`,
`git://…`, or `github.com/…` without a scheme. The repository is another's: nothing of it is executed,
no hook, no filter, no configuration; what is checked out is only read below its root.
"""

import asyncio
import contextlib
import os
import re
import shutil
from collections.abc import Mapping

from msgspec import Struct

from pier.build.failures import BuildFailed
from pier.errors import InvalidParameter

_SCP = re.compile(r"[a-zA-Z0-9._-]+@[a-zA-Z0-9.-]+:(?!//)")
_SCHEMES = ("git://", "ssh://")
_WEB = ("http://", "https://")
_HEX = re.compile(r"[0-9a-fA-F]{7,64}\Z")


class GitSource(Struct, frozen=True):
    """`ref` "" is what HEAD names; `directory` is below the repository's root, "" for all of it."""

    url: str
    ref: str = ""
    directory: str = ""


class Checkout(Struct, frozen=True):
    """`path` is the directory that was asked for; `commit` in hex."""

    path: str
    commit: str


def parse_git(text: str) -> GitSource | None:
    """Return what a text names, None when it names no repository."""
    url, _, fragment = text.partition("#")
    if url.startswith(_WEB):
        if not url.partition("?")[0].endswith(".git"):
            return None
    elif url.startswith("github.com/"):
        url = "https://" + url
    elif not url.startswith(_SCHEMES) and not _SCP.match(url):
        return None
    ref, _, directory = fragment.partition(":")
    return GitSource(url, ref, directory.strip("/"))


async def check_out(
    source: GitSource,
    into: str,
    *,
    keep_git_dir: bool = False,
    commit: str = "",
    agent: str = "",
    header: str = "",
) -> Checkout:
    """Fetch and check a repository out below the empty directory `into`.

    `commit` is what it has to be, or a beginning of it; `agent` the path of an ssh agent's socket,
    `header` an HTTP header with credentials.
    Raises BuildFailed, InvalidParameter; when cancelled, git is killed.
    """
    if commit and not _HEX.match(commit):
        raise InvalidParameter(f"invalid checksum {commit} for a git source")
    if ".." in source.directory.split("/"):
        raise BuildFailed(f"invalid subdirectory {source.directory}")
    if source.ref.startswith("-") or source.url.startswith("-"):
        raise BuildFailed(f"invalid git reference {source.ref or source.url}")
    place = os.path.join(into, "checkout")
    os.mkdir(place, 0o755)
    git = _Git(place, _environment(agent, header))
    await git.run("init", "-q", "--template=", "-b", "main")
    await git.run("remote", "add", "origin", source.url)
    await _fetch(git, source)
    found = (await git.run("rev-parse", "FETCH_HEAD^{commit}")).strip()
    if commit and not found.startswith(commit.lower()):
        raise BuildFailed(f"expected checksum to match {commit}, got {found}")
    await git.run("checkout", "-q", "-B", "main", "FETCH_HEAD")
    if os.path.exists(os.path.join(place, ".gitmodules")):  # noqa: ASYNC240 - one stat
        await git.run("submodule", "update", "-q", "--init", "--recursive", "--depth=1")
    path = _inside(place, source)
    if not keep_git_dir:
        _forget(place)
    return Checkout(path, found)


async def _fetch(git: "_Git", source: GitSource) -> None:
    """Fetch one commit, without its past where the server can do that."""
    ref = source.ref or "HEAD"
    tag = "--no-tags"
    try:
        await git.run("fetch", "-q", tag, "--depth=1", "origin", ref)
    except BuildFailed as first:
        # A server may know no shallow clones, or give commits away only by the names they have.
        try:
            await git.run("fetch", "-q", tag, "origin", ref)
        except BuildFailed:
            if not _HEX.match(ref):
                raise first from None
            await git.run("fetch", "-q", "--tags", "origin", "+refs/heads/*:refs/remotes/origin/*")
            found = await git.run("rev-parse", "--verify", f"{ref}^{{commit}}")
            await git.run("fetch", "-q", ".", found.strip())


class _Git:
    def __init__(self, place: str, environment: Mapping[str, str]) -> None:
        self._place = place
        self._environment = environment

    async def run(self, *words: str) -> str:
        """Return what it prints. Raises BuildFailed."""
        command = [
            *("git", "-c", "core.hooksPath=/dev/null", "-c", "protocol.ext.allow=never"),
            *("-c", "protocol.file.allow=never", "-c", "safe.directory=*"),
            *("-c", "core.fsmonitor=false", *words),
        ]
        try:
            process = await asyncio.create_subprocess_exec(
                *command,
                cwd=self._place,
                env=self._environment,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
            )
        except FileNotFoundError as exc:
            raise BuildFailed("a git repository needs the git command, which is missing") from exc
        try:
            out, err = await process.communicate()
        except BaseException:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()
            raise
        if process.returncode:
            text = err.decode("utf-8", "replace").strip()
            raise BuildFailed(f"git {words[0]} failed: {text or process.returncode}")
        return out.decode("utf-8", "replace")


def _environment(agent: str, header: str) -> Mapping[str, str]:
    kept = {k: v for k, v in os.environ.items() if k in ("PATH", "SSL_CERT_FILE", "SSL_CERT_DIR")}
    kept |= {k: v for k, v in os.environ.items() if k.lower().endswith("_proxy")}
    ssh = "ssh -o BatchMode=yes -o StrictHostKeyChecking=accept-new -o UserKnownHostsFile=/dev/null"
    kept |= {
        "GIT_TERMINAL_PROMPT": "0",
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_CONFIG_GLOBAL": "/dev/null",
        "GIT_SSH_COMMAND": ssh + ("" if agent else " -o IdentityFile=/dev/null"),
        "HOME": "/nonexistent",
        "LC_ALL": "C",
    }
    if agent:
        kept["SSH_AUTH_SOCK"] = agent
    if header:  # not on the command line, which anybody can read
        kept |= {
            "GIT_CONFIG_COUNT": "1",
            "GIT_CONFIG_KEY_0": "http.extraHeader",
            "GIT_CONFIG_VALUE_0": header,
        }
    return kept


def _inside(place: str, source: GitSource) -> str:
    """Return the directory that was asked for. A link of the repository's is not followed."""
    path = place
    for part in source.directory.split("/"):
        path = os.path.join(path, part) if part else path
        if os.path.islink(path) or not os.path.isdir(path):
            raise BuildFailed(f"subdir {source.directory} of {source.url} is no directory")
    return path


def _forget(place: str) -> None:
    """Remove the repository's own data, of submodules as well."""
    for top, directories, names in os.walk(place):
        if ".git" in directories:
            directories.remove(".git")
            shutil.rmtree(os.path.join(top, ".git"))
        if ".git" in names:
            os.unlink(os.path.join(top, ".git"))
