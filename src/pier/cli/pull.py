"""`pier pull`, and the pull of an image before a container is made of it."""

import sys

from pier.cli import kinds
from pier.cli.command import Command
from pier.cli.config_file import platform
from pier.cli.errors import Failure
from pier.cli.flags import Flag

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import TextIO

    from pier.cli.command import Context
    from pier.cli.flags import Options
    from pier.cli.http import Client


def familiar(name: str) -> str:
    """`x` → `x:latest`, as the user sees it."""
    return name if "@" in name or ":" in name.rpartition("/")[2] else name + ":latest"


def split_reference(name: str) -> tuple[str, str]:
    """Repository and tag or digest, with Docker's defaults: `x` → docker.io/library/x, latest.

    Raises Failure for a name with capitals in it.
    """
    repository, at, tag = name.partition("@")
    if not at:
        head, colon, last = name.rpartition(":")
        repository, tag = (head, last) if colon and "/" not in last else (name, "latest")
    elif ":" in repository.rpartition("/")[2]:
        repository = repository.rpartition(":")[0]
    return full_name(repository), tag


def full_name(repository: str) -> str:
    """`x` → docker.io/library/x, `a/b` → docker.io/a/b, `host.io/a` as it is."""
    domain, slash, rest = repository.partition("/")
    known = slash and ("." in domain or ":" in domain or domain == "localhost")
    if not known:
        domain, rest = "docker.io", repository if slash else "library/" + repository
    if domain == "index.docker.io":
        domain = "docker.io"
    if domain == "docker.io" and "/" not in rest:
        rest = "library/" + rest
    if rest != rest.lower():
        raise Failure(
            f"invalid reference format: repository name ({rest}) must be lowercase",
        )
    return f"{domain}/{rest}"


def pull(client: "Client", name: str, *, platform: str, quiet: bool) -> None:
    """Pull `name`, progress to stderr. Raises Failure with the engine's words."""
    repository, tag = split_reference(name)
    _pull(client, repository, tag, platform=platform, out=None if quiet else sys.stderr)


def _pull(
    client: "Client", repository: str, tag: str, *, platform: str, out: "TextIO | None"
) -> None:
    import io

    from pier.cli import credentials
    from pier.cli.progress import show

    query = {"fromImage": repository, "tag": tag or None, "platform": platform or None}
    auth = credentials.header(credentials.server_of(repository.partition("/")[0]))
    response = client.request("POST", "/images/create", query, headers=auth)
    show(response.json_lines(), out or io.StringIO())


def _pull_command(context: "Context", options: "Options") -> None:
    name = options.args[0]
    repository, tag = split_reference(name)
    quiet = options.on("quiet")
    every = options.on("all-tags")
    if every and familiar(name) == name:
        raise Failure("tag can't be used with --all-tags/-a")
    if every:
        tag = ""
    elif familiar(name) != name and not quiet:
        sys.stdout.write(f"Using default tag: {tag}\n")
        sys.stdout.flush()
    wanted = platform(options)
    out = None if quiet else sys.stdout
    _pull(context.client, repository, tag, platform=wanted, out=out)
    joint = "@" if ":" in tag else ":"
    sys.stdout.write(f"{repository}{joint + tag if tag else ''}\n")


PULL = Command(
    "pull [OPTIONS] NAME[:TAG|@DIGEST]",
    "Download an image from a registry",
    _pull_command,
    arity=(1, 1),
    options=(
        Flag("all-tags", kinds.BOOL, "Download all tagged images in the repository", short="a"),
        Flag("platform", kinds.STRING, "Set platform if server is multi-platform capable"),
        Flag("quiet", kinds.BOOL, "Suppress verbose output", short="q"),
    ),
    aliases="image pull, pull",
)
