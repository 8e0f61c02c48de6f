"""Contexts as docker keeps them, in its own directory, so that both clients see the same ones.

    ~/.docker/config.json                                {"currentContext": "NAME"}
    ~/.docker/contexts/meta/<sha256 of the name>/meta.json
        {"Name": …, "Metadata": {"Description": …},
         "Endpoints": {"docker": {"Host": "tcp://…", "SkipTLSVerify": false}}}
    ~/.docker/contexts/tls/<sha256 of the name>/docker/{ca,cert,key}.pem

The context "default" is not stored: it is what there is without one.
"""

import json
import os
import re

from pier.cli import config_file
from pier.cli.errors import Failure

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

DEFAULT = "default"
TLS_FILES = ("ca.pem", "cert.pem", "key.pem")
_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.+-]+", re.ASCII)


def directory() -> str:
    return os.path.join(os.path.dirname(config_file.path()), "contexts")


def _key(name: str) -> str:
    import hashlib

    return hashlib.sha256(name.encode()).hexdigest()


def meta_path(name: str) -> str:
    return os.path.join(directory(), "meta", _key(name))


def tls_path(name: str) -> str:
    return os.path.join(directory(), "tls", _key(name))


def check_name(name: str) -> None:
    """Raise Failure for a name that docker would not take either."""
    if name == DEFAULT:
        raise Failure('"default" is a reserved context name')
    if not _NAME.fullmatch(name):
        raise Failure(
            f'context name "{name}" is invalid, names are validated against regexp '
            f'"^{_NAME.pattern}$"'
        )


def load(name: str) -> "dict[str, Any]":
    """The document of a stored context. Raises Failure when there is none."""
    try:
        with open(os.path.join(meta_path(name), "meta.json"), encoding="utf-8") as file:
            found: dict[str, Any] = json.load(file)
    except FileNotFoundError:
        raise Failure(f'context "{name}": context not found: no such context') from None
    except (OSError, ValueError) as error:
        raise Failure(f'context "{name}": {error}') from None
    return found


def exists(name: str) -> bool:
    return os.path.exists(os.path.join(meta_path(name), "meta.json"))


def names() -> list[str]:
    """The stored contexts, sorted by name."""
    found = []
    base = os.path.join(directory(), "meta")
    for entry in os.listdir(base) if os.path.isdir(base) else ():
        try:
            with open(os.path.join(base, entry, "meta.json"), encoding="utf-8") as file:
                found.append(str(json.load(file)["Name"]))
        except (OSError, ValueError, KeyError):
            continue
    return sorted(found)


def save(document: "dict[str, Any]", tls: "dict[str, bytes] | None") -> None:
    """Store a context, with its TLS files by name; None leaves those that there are."""
    name = document["Name"]
    os.makedirs(meta_path(name), mode=0o755, exist_ok=True)
    _write(os.path.join(meta_path(name), "meta.json"), json.dumps(document).encode(), 0o644)
    if tls is None:
        return
    import shutil

    shutil.rmtree(tls_path(name), ignore_errors=True)
    if tls:
        base = os.path.join(tls_path(name), "docker")
        os.makedirs(base, mode=0o700)
        for file, data in tls.items():
            _write(os.path.join(base, file), data, 0o600)


def tls_files(name: str) -> "dict[str, str]":
    """The paths of a context's TLS files, by name."""
    base = os.path.join(tls_path(name), "docker")
    paths = {file: os.path.join(base, file) for file in TLS_FILES}
    return {file: path for file, path in paths.items() if os.path.exists(path)}


def remove(name: str) -> None:
    import shutil

    shutil.rmtree(meta_path(name), ignore_errors=True)
    shutil.rmtree(tls_path(name), ignore_errors=True)


def current() -> str:
    """The context that is in use when neither flag nor variable names one."""
    try:
        with open(config_file.path(), encoding="utf-8") as file:
            return str(json.load(file).get("currentContext") or DEFAULT)
    except (OSError, ValueError, AttributeError):
        return DEFAULT


def use(name: str) -> None:
    """Write the current context into docker's config.json; everything else in it stays."""
    path = config_file.path()
    try:
        with open(path, encoding="utf-8") as file:
            config: dict[str, Any] = json.load(file)
    except FileNotFoundError:
        config = {}
    if name == DEFAULT:
        config.pop("currentContext", None)
    else:
        config["currentContext"] = name
    os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
    _write(path, (json.dumps(config, indent="\t") + "\n").encode(), 0o600)


def chosen(flag: str, hosts: "list[str]") -> str:
    """The context of this call: --context, else none with -H, PIER_HOST or DOCKER_HOST, else
    DOCKER_CONTEXT, else the current one. Raises Failure for a flag beside -H.
    """
    if flag and hosts:
        raise Failure("conflicting options: cannot specify both --host and --context")
    if flag:
        return flag
    if hosts or os.environ.get("PIER_HOST") or os.environ.get("DOCKER_HOST"):
        return DEFAULT
    return os.environ.get("DOCKER_CONTEXT") or current()


def _write(path: str, data: bytes, mode: int) -> None:
    partial = f"{path}.{os.getpid()}.tmp"
    fd = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, mode)
    try:
        os.write(fd, data)
    finally:
        os.close(fd)
    os.rename(partial, path)
