"""Credentials as docker keeps them: ~/.docker/config.json and credential helpers.

    {"auths": {"host": {"auth": base64("user:password"), "identitytoken": "…"}},
     "credsStore": "pass", "credHelpers": {"host": "ecr-login"}}

A helper is the program docker-credential-NAME; it is called with get, store, erase or list, speaks
JSON, and takes the server on stdin (github.com/docker/docker-credential-helpers).
"""

import os

from pier.cli import config_file
from pier.cli.errors import Failure

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

HUB = "https://index.docker.io/v1/"
_TOKEN_USER = "<token>"  # noqa: S105 - the helpers' word for "this is an identity token"
_NOT_FOUND = "credentials not found in native keychain"


def server_of(address: str) -> str:
    """The key under which a registry's credentials are kept: its host, Docker Hub's by a URL."""
    host = (address.partition("://")[2] or address).partition("/")[0]
    return HUB if host in ("", "docker.io", "index.docker.io", "registry-1.docker.io") else host


def server_of_image(name: str) -> str:
    from pier.cli.pull import full_name

    return server_of(full_name(name.partition("@")[0]).partition("/")[0])


def header(server: str) -> "dict[str, str]":
    """X-Registry-Auth for a registry: what is known of it, or nobody."""
    import base64
    import json

    known = load(server)
    document = json.dumps(known, separators=(",", ":")).encode()
    return {"X-Registry-Auth": base64.urlsafe_b64encode(document).decode()}


def servers() -> "list[str]":
    """Return the servers that something may be known of. Raises Failure."""
    config = _read()
    names = [*(config.get("auths") or {}), *(config.get("credHelpers") or {})]
    return list(dict.fromkeys(server_of(name) for name in names))


def load(server: str) -> "dict[str, str]":
    """What is known of a server, as the API's AuthConfig; {} when nothing is. Raises Failure."""
    config = _read()
    helper = _helper(config, server)
    if helper:
        return _from_helper(helper, server)
    for key, entry in (config.get("auths") or {}).items():
        if server_of(key) == server and isinstance(entry, dict):
            found = _decoded(entry)
            return {**found, "serveraddress": server} if found else {}
    return {}


def store(server: str, fields: "dict[str, str]") -> str:
    """Keep credentials; where, "" for a helper. Raises Failure."""
    import base64

    config = _read()
    helper = _helper(config, server)
    token = fields.get("identitytoken", "")
    if helper:
        secret = {
            "ServerURL": server,
            "Username": _TOKEN_USER if token else fields["username"],
            "Secret": token or fields["password"],
        }
        _call(helper, "store", _json(secret))
        config.setdefault("auths", {})[server] = {}
        _write(config)
        return ""
    pair = f"{fields['username']}:{'' if token else fields['password']}".encode()
    entry = {"auth": base64.b64encode(pair).decode()}
    if token:
        entry["identitytoken"] = token
    config.setdefault("auths", {})[server] = entry
    _write(config)
    return config_file.path()


def erase(server: str) -> bool:
    """Forget a server's credentials; whether there were any. Raises Failure."""
    config = _read()
    auths = config.get("auths") or {}
    keys = [key for key in auths if server_of(key) == server]
    helper = _helper(config, server)
    known = bool(keys)
    if helper:
        known = known or bool(_from_helper(helper, server))
        _call(helper, "erase", server)
    for key in keys:
        del auths[key]
    if keys:
        _write(config)
    return known


def _read() -> "dict[str, Any]":
    import json

    path = config_file.path()
    try:
        with open(path, encoding="utf-8") as file:
            found = json.load(file)
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise Failure(f"Error loading config file: {path}: {error}") from None
    return found if isinstance(found, dict) else {}


def _write(config: "dict[str, Any]") -> None:
    """Replace the file at once, with what pier does not know of it unchanged, for its owner alone."""
    import json

    path = os.path.realpath(config_file.path())
    temporary = f"{path}.{os.getpid()}"
    try:
        os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
        with open(
            os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8"
        ) as file:
            json.dump(config, file, indent="\t")
        os.replace(temporary, path)
    except OSError as error:
        raise Failure(f"error saving credentials: {error}") from None


def _helper(config: "dict[str, Any]", server: str) -> str:
    for key, name in (config.get("credHelpers") or {}).items():
        if server_of(key) == server:
            return str(name)
    return str(config.get("credsStore") or "")


def _from_helper(helper: str, server: str) -> "dict[str, str]":
    import json

    answer = _call(helper, "get", server, missing=True)
    if not answer:
        return {}
    try:
        found = json.loads(answer)
        user, secret = str(found["Username"]), str(found["Secret"])
    except (ValueError, KeyError, TypeError):
        raise Failure(f"error getting credentials - docker-credential-{helper}: no JSON") from None
    if user == _TOKEN_USER:
        return {"identitytoken": secret, "serveraddress": server}
    return {"username": user, "password": secret, "serveraddress": server}


def _call(helper: str, verb: str, text: str, *, missing: bool = False) -> str:
    """Run a helper; "" for credentials that it has not, if that may be."""
    import subprocess

    program = f"docker-credential-{helper}"
    what = {"get": "getting", "store": "storing", "erase": "erasing"}[verb]
    try:
        done = subprocess.run(
            [program, verb], input=text, capture_output=True, text=True, check=False
        )
    except OSError as error:
        raise Failure(
            f'error {what} credentials - err: exec: "{program}": {error.strerror}, out: ``'
        ) from None
    if done.returncode == 0:
        return done.stdout
    said = done.stdout.strip() or done.stderr.strip()
    if _NOT_FOUND in said and (missing or verb == "erase"):
        return ""
    raise Failure(f"error {what} credentials - err: exit status {done.returncode}, out: `{said}`")


def _decoded(entry: "dict[str, Any]") -> "dict[str, str]":
    """An entry of `auths` as fields; "auth" taken apart."""
    import base64
    import binascii

    found = {
        key: str(entry[key])
        for key in ("username", "password", "identitytoken", "registrytoken")
        if entry.get(key)
    }
    if entry.get("auth"):
        try:
            pair = base64.b64decode(str(entry["auth"])).decode()
        except (binascii.Error, ValueError):
            return found
        found["username"], _, password = pair.partition(":")
        found["password"] = password.rstrip("\0")
    return found


def _json(value: "Any") -> str:
    import json

    return json.dumps(value)
