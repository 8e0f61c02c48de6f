"""Image references: the grammar of distribution/reference and Docker's short ("familiar") names.

    reference      := name [ ":" tag ] [ "@" digest ]
    name           := [ domain "/" ] path
    domain         := host [ ":" port ]        host is a domain name, an IPv4 or "[" IPv6 "]"
    path           := component *( "/" component ), lower case, at most 255 characters
    tag            := [A-Za-z0-9_][A-Za-z0-9_.-]{0,127}

`ubuntu` is short for `docker.io/library/ubuntu:latest`. The first component is a domain only when
it has a dot or a colon, is `localhost`, or holds an upper case letter, which no path may.
"""

import re
from typing import Self

from msgspec import Struct
from msgspec.structs import replace

from pier.errors import InvalidParameter
from pier.model.digest import Digest, parse_digest

DEFAULT_DOMAIN = "docker.io"
LEGACY_DOMAIN = "index.docker.io"
OFFICIAL_PREFIX = "library/"
DEFAULT_TAG = "latest"
MAX_PATH = 255

_LABEL = r"(?:[a-zA-Z0-9]|[a-zA-Z0-9][a-zA-Z0-9-]*[a-zA-Z0-9])"
_HOST = rf"(?:{_LABEL}(?:\.{_LABEL})*|\[(?:[a-fA-F0-9:]+)\])"
_COMPONENT = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_TAG = r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}"
_REFERENCE = re.compile(
    rf"(?P<domain>{_HOST}(?::[0-9]+)?)/(?P<path>{_COMPONENT}(?:/{_COMPONENT})*)"
    rf"(?::(?P<tag>{_TAG}))?"
    r"(?:@(?P<digest>[A-Za-z][A-Za-z0-9]*(?:[-_+.][A-Za-z][A-Za-z0-9]*)*:[0-9a-fA-F]{32,}))?",
    re.ASCII,
)
_TAG_ALONE = re.compile(_TAG, re.ASCII)
_IDENTIFIER = re.compile(r"[a-f0-9]{64}", re.ASCII)


class Reference(Struct, frozen=True):
    """A name that was made whole: `domain` is always there, `tag` and `digest` may be ""."""

    domain: str
    path: str
    tag: str = ""
    digest: str = ""

    @property
    def name(self) -> str:
        """The full repository name: `docker.io/library/ubuntu`."""
        return f"{self.domain}/{self.path}"

    @property
    def familiar_name(self) -> str:
        """The repository as users write it: `ubuntu`."""
        if self.domain != DEFAULT_DOMAIN:
            return self.name
        rest = self.path.removeprefix(OFFICIAL_PREFIX)
        return self.path if "/" in rest else rest

    @property
    def familiar(self) -> str:
        """The whole reference as users write it: `ubuntu:24.04`."""
        return self.familiar_name + self._suffix()

    def __str__(self) -> str:
        """Return the full form, the key under which references are stored."""
        return self.name + self._suffix()

    def _suffix(self) -> str:
        return (f":{self.tag}" if self.tag else "") + (f"@{self.digest}" if self.digest else "")

    def tagged(self) -> Self:
        """Return it with the tag `latest` when it has neither tag nor digest."""
        return self if self.tag or self.digest else replace(self, tag=DEFAULT_TAG)

    def with_tag(self, tag: str) -> Self:
        """Return the repository with this tag and no digest. Raises InvalidParameter."""
        if not _TAG_ALONE.fullmatch(tag):
            raise InvalidParameter("invalid tag format")
        return replace(self, tag=tag, digest="")

    def lookup_key(self) -> str:
        """Return what the store is asked for: a digest beats the tag beside it."""
        if self.digest:
            return f"{self.name}@{self.digest}"
        return str(self.tagged())


def parse_reference(text: str) -> Reference:
    """Parse a name as a user writes it. Raises InvalidParameter in Docker's words."""
    if _IDENTIFIER.fullmatch(text):
        raise InvalidParameter(
            f"invalid repository name ({text}), cannot specify 64-byte hexadecimal strings"
        )
    domain, remainder = _split_domain(text)
    remote = remainder.partition(":")[0]
    if remote.lower() != remote:
        raise InvalidParameter(
            f"invalid reference format: repository name ({remote}) must be lowercase"
        )
    found = _REFERENCE.fullmatch(f"{domain}/{remainder}")
    if found is None:
        raise InvalidParameter("invalid reference format")
    if len(found["path"]) > MAX_PATH:
        raise InvalidParameter(f"repository name must not be more than {MAX_PATH} characters")
    digest = parse_digest(found["digest"]) if found["digest"] else ""
    return Reference(found["domain"], found["path"], found["tag"] or "", digest)


def parse_any(text: str) -> Reference | Digest:
    """Parse what may be a whole ID (64 hex digits, with or without `sha256:`) or a name."""
    if _IDENTIFIER.fullmatch(text):
        return Digest("sha256:" + text)
    try:
        return parse_digest(text)
    except InvalidParameter:
        return parse_reference(text)


def parse_repo_tag(repo: str, tag: str) -> Reference:
    """Join the API's `repo` and `tag` parameters into the tagged reference that is to be made.

    A tag in `repo` counts when `tag` is empty. Raises InvalidParameter in Docker's words.
    """
    reference = parse_reference(repo)
    if reference.digest:
        raise InvalidParameter("refusing to create a tag with a digest reference")
    if tag:
        reference = reference.with_tag(tag)
    if reference.familiar_name in ("sha256", "sha384", "sha512"):
        raise InvalidParameter("refusing to create an ambiguous tag using digest algorithm as name")
    return reference.tagged()


def familiar_match(pattern: str, reference: Reference) -> bool:
    """Tell whether a shell pattern (Go's path.Match) fits the reference or its name alone."""
    compiled = _compile_pattern(pattern)
    return bool(
        compiled.fullmatch(reference.familiar) or compiled.fullmatch(reference.familiar_name)
    )


def _split_domain(text: str) -> tuple[str, str]:
    first, slash, rest = text.partition("/")
    if not slash:
        return DEFAULT_DOMAIN, OFFICIAL_PREFIX + text
    if first == LEGACY_DOMAIN:
        domain, remote = DEFAULT_DOMAIN, rest
    elif first == "localhost" or "." in first or ":" in first or first.lower() != first:
        domain, remote = first, rest
    else:
        domain, remote = DEFAULT_DOMAIN, text
    if domain == DEFAULT_DOMAIN and "/" not in remote:
        remote = OFFICIAL_PREFIX + remote
    return domain, remote


def _compile_pattern(pattern: str) -> re.Pattern[str]:
    """Translate path.Match: `*` and `?` stop at a slash, `[…]` is a class, a backslash escapes."""
    parts: list[str] = []
    position = 0
    while position < len(pattern):
        char = pattern[position]
        position += 1
        if char == "*":
            parts.append("[^/]*")
        elif char == "?":
            parts.append("[^/]")
        elif char == "[":
            end = pattern.find("]", position + 1)
            if end < 0:
                raise InvalidParameter("syntax error in pattern")
            body = pattern[position:end]
            negated = body.startswith("^")
            inside = re.sub(r"([\[\]^&~|\\])", r"\\\1", body[negated:])
            parts.append(f"[{'^' if negated else ''}{inside}]")
            position = end + 1
        elif char == "\\":
            if position == len(pattern):
                raise InvalidParameter("syntax error in pattern")
            parts.append(re.escape(pattern[position]))
            position += 1
        else:
            parts.append(re.escape(char))
    try:
        return re.compile("".join(parts), re.DOTALL)
    except re.error as exc:
        raise InvalidParameter("syntax error in pattern") from exc
