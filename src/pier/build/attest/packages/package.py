"""A package as some database in an image names it."""

from collections.abc import Mapping
from urllib.parse import quote, urlencode

from msgspec import Struct


class Package(Struct, frozen=True):
    """`kind` is the package URL's type: deb, apk, rpm, pypi. `found_in` is the database's path.

    `license` is as the database has it, which need not be SPDX's expression.
    """

    kind: str
    name: str
    version: str
    found_in: str
    architecture: str = ""
    license: str = ""
    supplier: str = ""
    homepage: str = ""
    source: str = ""
    epoch: str = ""


class Distribution(Struct, frozen=True):
    """What os-release(5) says: `id` is `debian`, `version` is `13`."""

    id: str = ""
    version: str = ""
    name: str = ""

    @property
    def tag(self) -> str:
        return f"{self.id}-{self.version}" if self.id and self.version else self.id


def purl(package: Package, distribution: Distribution) -> str:
    """Return its package URL (github.com/package-url/purl-spec)."""
    if package.kind == "pypi":
        return f"pkg:pypi/{quote(normalized(package.name))}@{quote(package.version, safe='')}"
    qualifiers: dict[str, str] = {}
    if package.architecture:
        qualifiers["arch"] = package.architecture
    if distribution.tag:
        qualifiers["distro"] = distribution.tag
    if package.epoch:
        qualifiers["epoch"] = package.epoch
    if package.source and package.source != package.name:
        qualifiers["upstream"] = package.source
    namespace = f"{distribution.id}/" if distribution.id else ""
    query = "?" + urlencode(sorted(qualifiers.items())) if qualifiers else ""
    name, version = quote(package.name, safe="+"), quote(package.version, safe="+~")
    return f"pkg:{package.kind}/{namespace}{name}@{version}{query}"


def normalized(name: str) -> str:
    """Return a Python project's name as PEP 503 compares it."""
    lowered = name.lower()
    for mark in "_.":
        lowered = lowered.replace(mark, "-")
    while "--" in lowered:
        lowered = lowered.replace("--", "-")
    return lowered


def parse_os_release(text: str) -> Distribution:
    values: dict[str, str] = {}
    for line in text.splitlines():
        key, equals, value = line.strip().partition("=")
        if equals and not key.startswith("#"):
            values[key] = value.strip().strip("\"'")
    return Distribution(
        values.get("ID", ""), values.get("VERSION_ID", ""), values.get("PRETTY_NAME", "")
    )


def parse_fields(paragraph: str) -> Mapping[str, str]:
    """Read the fields of a Debian paragraph or of a Python package's metadata; the first one counts.

    Lines that begin with a space go on with the one before; an empty line ends the fields.
    """
    found: dict[str, str] = {}
    key = ""
    for line in paragraph.splitlines():
        if not line.strip():
            break
        if line[0] in " \t":
            if key:
                found[key] += "\n" + line.strip()
            continue
        name, colon, value = line.partition(":")
        key = ""
        if colon and name not in found:
            key = name
            found[key] = value.strip()
    return found
