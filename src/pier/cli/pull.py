"""Asking the engine to pull an image before a container is made of it."""

import sys

from pier.cli.errors import Failure

TYPE_CHECKING = False
if TYPE_CHECKING:
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
    query = {"fromImage": repository, "tag": tag, "platform": platform or None}
    auth = {"X-Registry-Auth": "e30="}
    response = client.request("POST", "/images/create", query, headers=auth)
    for record in response.json_lines():
        if record.get("error"):
            raise Failure(str(record["error"]))
        status = record.get("status", "")
        # Without a terminal Docker prints steps, not progress bars.
        if status and not quiet and not record.get("progressDetail"):
            lead = f"{record['id']}: " if record.get("id") else ""
            sys.stderr.write(f"{lead}{status}\n")
