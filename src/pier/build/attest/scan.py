"""What is installed in an image: its package databases, found by walking its files once."""

import os
import re
import stat
from collections.abc import Callable, Iterator, Sequence

from msgspec import Struct

from pier.build.attest.packages.apk import parse_installed
from pier.build.attest.packages.dpkg import parse_status
from pier.build.attest.packages.package import Distribution, Package, parse_os_release
from pier.build.attest.packages.python import parse_metadata
from pier.build.attest.packages.rpm import parse_database
from pier.storage.merged import MergedDirectory

# A database of 10,000 packages is some 10 MB; what is larger is none, or meant to do harm.
MAX_BYTES = 256 << 20
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC

_OS_RELEASE = re.compile(r"(?:usr/lib|etc)/os-release")


def _text(parse: Callable[[str, str], Iterator[Package]]) -> Callable[[bytes, str], list[Package]]:
    return lambda data, path: list(parse(data.decode("utf-8", "replace"), path))


# By their real paths: links are not followed, and what they lead to is walked as well.
_DATABASES: tuple[tuple[re.Pattern[str], Callable[[bytes, str], list[Package]]], ...] = (
    (re.compile(r"var/lib/dpkg/status"), _text(parse_status)),
    (re.compile(r"var/lib/dpkg/status\.d/(?!.*\.md5sums$)[^/]+"), _text(parse_status)),
    (re.compile(r"(?:usr/)?lib/apk/db/installed"), _text(parse_installed)),
    (
        re.compile(r"(?:var/lib/rpm|usr/lib/sysimage/rpm|usr/share/rpm)/rpmdb\.sqlite"),
        lambda data, path: list(parse_database(data, path)),
    ),
    (re.compile(r"(?:.*/)?[^/]+\.dist-info/METADATA"), _text(parse_metadata)),
    (re.compile(r"(?:.*/)?[^/]+\.egg-info(?:/PKG-INFO)?"), _text(parse_metadata)),
)


class Scanned(Struct, frozen=True):
    """`packages` are sorted, each once."""

    distribution: Distribution
    packages: Sequence[Package]


def scan(layers: Sequence[str]) -> Scanned:
    """Read the databases in a tree of layers' directories, uppermost first. Raises OSError."""
    distribution = Distribution()
    found: dict[tuple[str, str, str, str], Package] = {}
    if not layers:
        return Scanned(distribution, [])
    with MergedDirectory.open(layers) as root:
        for path_bytes, name, node in root.walk():
            if not stat.S_ISREG(node.found.st_mode):
                continue
            path = os.fsdecode(path_bytes)
            parse = next((p for pattern, p in _DATABASES if pattern.fullmatch(path)), None)
            is_release = _OS_RELEASE.fullmatch(path) is not None
            if (parse is None and not is_release) or node.found.st_size > MAX_BYTES:
                continue
            with open(os.open(name, _READ, dir_fd=node.parent_fd), "rb") as file:
                data = file.read(MAX_BYTES)
            if is_release:
                distribution = parse_os_release(data.decode("utf-8", "replace"))
            elif parse is not None:
                for package in parse(data, path):
                    key = (package.kind, package.name, package.version, package.architecture)
                    found.setdefault(key, package)
    return Scanned(distribution, [found[key] for key in sorted(found)])
