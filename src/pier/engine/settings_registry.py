"""The settings about registries, images and builds: where they come from, who may pull them, what they take."""

import os
import re
from collections.abc import Callable
from typing import Any

from pier.engine.settings_builder import parse_builder
from pier.engine.settings_option import Option
from pier.errors import InvalidParameter
from pier.registry.endpoints import parse_entries, parse_insecure, parse_mirror

OPTIONS = (
    Option(
        *("insecure-registry", "", "insecure-registries", "insecure_registries", "list"),
        "Registries that need not verify, or speak plain HTTP",
    ),
    Option(
        *("max-concurrent-downloads", "", "max-concurrent-downloads", "max_concurrent_downloads"),
        *("number", "Layers pulled at once (3)"),
    ),
    Option(
        *("max-concurrent-uploads", "", "max-concurrent-uploads", "max_concurrent_uploads"),
        *("number", "Layers pushed at once (5)"),
    ),
    Option(
        *("max-download-attempts", "", "max-download-attempts", "max_download_attempts"),
        *("number", "Attempts for each layer (5)"),
    ),
    Option(
        "registry-htpasswd",
        "",
        "registry-htpasswd",
        "registry_htpasswd",
        "string",
        "Who may pull, and push, an htpasswd file with bcrypt hashes",
    ),
    Option(
        "registry-listen",
        "",
        "registry-listen",
        "registry_listen",
        "list",
        "Serve the images as a registry at HOST:PORT",
    ),
    Option(
        *("registry-push", "", "registry-push", "registry_push", "bool"),
        "Let others push images to that registry, and delete them",
    ),
    Option(
        "registry-tls-cert",
        "",
        "registry-tls-cert",
        "registry_tls_cert",
        "string",
        "Certificate chain of that registry",
    ),
    Option(
        "registry-tls-key",
        "",
        "registry-tls-key",
        "registry_tls_key",
        "string",
        "Private key of that certificate",
    ),
    Option("", "", "builder", "builder", "object", ""),
    Option("", "", "registries", "registries", "object", ""),
    Option(
        *("registry-certificates", "", "registry-certificates", "registry_certificates", "string"),
        "Directory of registries' certificates (/etc/docker/certs.d)",
    ),
    Option(
        *("image-budget", "", "image-budget", "image_budget", "string"),
        "What images may take on the disk (50GB); those unused for longest go",
    ),
    Option(
        *("registry-mirror", "", "registry-mirrors", "registry_mirrors", "list"),
        "Preferred mirrors of Docker Hub",
    ),
)

# What 0 means, which dockerd takes for "not set".
_DEFAULT_LIMITS = {
    "max concurrent downloads": 3,
    "max concurrent uploads": 5,
    "max download attempts": 5,
}


def _mirrors(value: Any) -> tuple[str, ...]:
    return tuple(parse_mirror(mirror).url for mirror in value)


def _insecure(value: Any) -> tuple[str, ...]:
    return tuple(parse_insecure(entry) for entry in value)


def _positive(what: str) -> Callable[[Any], int]:
    def check(value: Any) -> int:
        text = str(value)
        if not (text.isascii() and text.isdecimal()):
            raise InvalidParameter(f"invalid {what}: {text}")
        return int(text) or _DEFAULT_LIMITS[what]

    return check


def _bytes(text: str) -> int:
    """Read a size, "" and "0" for none, in decimal units as `pier images` shows them."""
    found = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?) ?([kmgt]?)b?", text.lower() or "0", re.ASCII)
    if found is None:
        raise InvalidParameter(f"invalid size: '{text}'")
    return int(float(found[1]) * 1000 ** " kmgt".index(found[2] or " "))


def _path(value: Any) -> str:
    return os.path.realpath(str(value))


CHECKS: dict[str, Callable[[Any], Any]] = {
    "image-budget": _bytes,
    "insecure-registries": _insecure,
    "max-concurrent-downloads": _positive("max concurrent downloads"),
    "max-concurrent-uploads": _positive("max concurrent uploads"),
    "max-download-attempts": _positive("max download attempts"),
    "registry-listen": tuple,
    "builder": parse_builder,
    "registries": parse_entries,
    "registry-certificates": _path,
    "registry-mirrors": _mirrors,
}
