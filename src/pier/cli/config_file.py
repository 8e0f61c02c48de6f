"""What docker's ~/.docker/config.json says of other things than credentials and contexts.

    {"psFormat": "table {{.ID}}", "imagesFormat": …,       how a list looks without --format
     "detachKeys": "ctrl-x,x",                             without --detach-keys
     "HttpHeaders": {"X-Team": "a"},                       sent with every request
     "proxies": {"default": {"httpProxy": …, "httpsProxy": …, "ftpProxy": …, "allProxy": …,
                             "noProxy": …}}}               for containers and steps of builds

Most files have none of it, and most commands need one key at most: a key is looked for among the
bytes first, so that a short command does not pay for reading JSON.
"""

import os

from pier.cli.errors import Failure

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from pier.cli.flags import Options

_PROXIES = {
    "HTTP_PROXY": "httpProxy",
    "HTTPS_PROXY": "httpsProxy",
    "NO_PROXY": "noProxy",
    "FTP_PROXY": "ftpProxy",
    "ALL_PROXY": "allProxy",
}
_HEADERS_VARIABLE = "DOCKER_CUSTOM_HEADERS"


def path() -> str:
    directory = os.environ.get("DOCKER_CONFIG") or os.path.join(os.path.expanduser("~"), ".docker")
    return os.path.join(directory, "config.json")


def setting(key: str) -> "Any":
    """The value of a key, None without one. Raises Failure for a file that is no JSON."""
    try:
        with open(path(), "rb") as file:
            data = file.read()
    except OSError:
        return None
    if f'"{key}"'.encode() not in data:
        return None
    import json

    try:
        found = json.loads(data)
    except ValueError as error:
        raise Failure(f"Error loading config file: {path()}: {error}") from None
    return found.get(key) if isinstance(found, dict) else None


def _mapping(key: str) -> "dict[str, Any]":
    """The object that a key has, empty without one. Raises Failure for anything else."""
    found = setting(key)
    if found is None:
        return {}
    if not isinstance(found, dict):
        raise Failure(f"Error loading config file: {path()}: {key} is not an object")
    return found


def list_format(options: "Options", key: str) -> str:
    """The template of a list: --format, or what the file says; -q asks for no template at all."""
    given = options.text("format")
    quiet = key != "statsFormat" and options.on("quiet")
    return given or ("" if quiet else str(setting(key) or ""))


def platform(options: "Options") -> str:
    """--platform, or what DOCKER_DEFAULT_PLATFORM has for those who give none."""
    return options.text("platform") or os.environ.get("DOCKER_DEFAULT_PLATFORM", "")


def detach_keys(options: "Options") -> str:
    return options.text("detach-keys") or str(setting("detachKeys") or "")


def headers() -> "dict[str, str]":
    """What to send with every request; DOCKER_CUSTOM_HEADERS counts before the file.

    Raises Failure, in Docker's words, for a variable that is not `name=value,…`.
    """
    if text := os.environ.get(_HEADERS_VARIABLE, ""):
        return _headers(text)
    found = _mapping("HttpHeaders")
    return {str(name): str(value) for name, value in found.items() if name != "User-Agent"}


def _headers(text: str) -> "dict[str, str]":
    import csv

    found = {}
    problem = (
        f"Failed to initialize: failed to set custom headers from {_HEADERS_VARIABLE} "
        "environment variable"
    )
    for field in next(csv.reader([text])):
        name, equals, value = field.partition("=")
        name = name.strip()
        if not name:
            raise Failure(
                f"{problem}: value contains a key=value pair with an empty key: '{field}'"
            )
        if not equals:
            raise Failure(f"{problem}: missing \"=\" in key=value pair: '{field}'")
        found[name] = value
    return found


def proxies(host: str, given: "dict[str, Any]") -> "dict[str, str]":
    """The variables of proxies for containers of the engine at `host`, but for those `given`."""
    configured = _mapping("proxies")
    proxy = configured.get(host) or configured.get("default") or {}
    if not isinstance(proxy, dict):
        raise Failure(f"Error loading config file: {path()}: proxies has no object for {host}")
    found: dict[str, str] = {}
    for name, key in _PROXIES.items():
        if value := proxy.get(key):
            found |= {n: str(value) for n in (name, name.lower()) if n not in given}
    return found
