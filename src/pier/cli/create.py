"""`pier create`, and the making of a container that `run` shares."""

import os
import sys

from pier.cli.command import Command
from pier.cli.config_file import platform, proxies
from pier.cli.create_body import create_body
from pier.cli.create_flags import CREATE_FLAGS
from pier.cli.errors import ApiError, Failure
from pier.cli.pull import familiar, pull, split_reference

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from pier.cli.command import Context
    from pier.cli.flags import Options
    from pier.cli.http import Client

_PULLS = ("always", "missing", "never")


def usage_failure(command: str, message: str) -> Failure:
    """A failure of `run` or `create` before or instead of a container: status 125."""
    return Failure(f"pier: {message}\n\nRun 'pier {command} --help' for more information", 125)


def container_body(command: str, options: "Options", *, detached: bool = False) -> "dict[str, Any]":
    """The create body; wrong values raise Failure as `command` reports them."""
    if options.text("pull") not in _PULLS:
        raise usage_failure(
            command,
            f"invalid pull option: '{options.text('pull')}': "
            'must be one of "always", "missing" or "never"',
        )
    try:
        return create_body(options, detached=detached)
    except ValueError as error:
        raise usage_failure(command, str(error)) from None


def create_container(client: "Client", options: "Options", body: "dict[str, Any]") -> str:
    """Create, pulling the image when it is missing and that is wanted; the container's ID.

    Prints warnings, writes the --cidfile. Raises Failure.
    """
    image, wanted = body["Image"], platform(options)
    cid_path = options.text("cidfile")
    if cid_path and os.path.exists(cid_path):
        raise Failure(
            "container ID file found, make sure the other container isn't running or delete "
            + cid_path
        )
    _check_image(image)
    quiet = options.on("quiet")
    if options.text("pull") == "always":
        pull(client, image, platform=wanted, quiet=quiet)
    query = {"name": options.text("name") or None, "platform": wanted or None}
    named = {text.partition("=")[0]: text for text in options.list("env")}
    if variables := proxies(client.host, named):
        body["Env"] = [*(body["Env"] or ()), *(f"{k}={v}" for k, v in variables.items())]
    try:
        answer = client.post("/containers/create", query, body=body).json()
    except ApiError as error:
        missing = error.code == 404 and "no such image" in error.reason.lower()
        if not missing or options.text("pull") != "missing":
            raise
        if not quiet:
            sys.stderr.write(f"Unable to find image '{familiar(image)}' locally\n")
        pull(client, image, platform=wanted, quiet=quiet)
        answer = client.post("/containers/create", query, body=body).json()
    for warning in answer.get("Warnings") or ():
        sys.stderr.write(f"WARNING: {warning}\n")
    identifier = str(answer["Id"])
    if cid_path:
        _write_cid(cid_path, identifier)
    return identifier


def _check_image(image: str) -> None:
    # A bare ID of 64 digits is no repository's name, and none that could be wrong.
    if not (len(image) == 64 and set(image) <= set("0123456789abcdef")):
        split_reference(image)


def _write_cid(path: str, identifier: str) -> None:
    try:
        with open(path, "x", encoding="ascii") as file:
            file.write(identifier)
    except OSError as error:
        raise Failure(f"failed to write the container ID to {path}: {error.strerror}") from None


def _create(context: "Context", options: "Options") -> None:
    body = container_body("create", options)
    print(create_container(context.client, options, body))


CREATE = Command(
    "create [OPTIONS] IMAGE [COMMAND] [ARG...]",
    "Create a new container",
    _create,
    arity=(1, None),
    options=CREATE_FLAGS,
    aliases="container create, create",
    wraps_command=True,
)
