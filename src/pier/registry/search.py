"""Searching a registry by the one API there ever was for it: `GET /v1/search` of Docker's index.

Docker Hub has it, few others do; one that has not answers 404, which is told as dockerd does.
"""

from collections.abc import Callable
from urllib.parse import urlencode

import msgspec
from msgspec import Struct

from pier.errors import InvalidParameter
from pier.model.api_registry import SearchResult
from pier.model.filters import Filters
from pier.model.reference import DEFAULT_DOMAIN, LEGACY_DOMAIN
from pier.registry.auth import read_limited
from pier.registry.client import Link, Registries
from pier.registry.credentials import Credentials
from pier.registry.endpoints import Endpoint, lookup
from pier.registry.errors import RegistryError, Unreachable

FILTERS = frozenset({"is-automated", "is-official", "stars"})
DEFAULT_LIMIT = 25
MAX_ANSWER = 8 << 20


class _Answer(Struct):
    results: list[SearchResult] | None = None


async def search(
    registries: Registries, term: str, who: Credentials, *, limit: int, filters: Filters
) -> list[SearchResult]:
    """Return what a registry's index finds. Raises InvalidParameter, RegistryError."""
    wanted = _predicate(filters)
    limit = limit or DEFAULT_LIMIT
    if not 1 <= limit <= 100:
        raise InvalidParameter(f"limit {limit} is outside the range of [1, 100]")
    if "://" in term:
        raise InvalidParameter(
            f"invalid repository name: repository name ({term}) should not have a scheme"
        )
    domain, rest = _split(term)
    failure: RegistryError = RegistryError(f"no endpoints found for {domain}")
    for endpoint in await _endpoints(registries, domain):
        query = urlencode({"q": rest, "n": limit})
        url = f"{endpoint.url}/v1/search?{query}"
        headers = {"X-Docker-Token": "true"}
        if who.username:
            headers["Authorization"] = who.basic
        try:
            async with Link(registries, endpoint, who).send(
                "GET", url, headers=headers
            ) as response:
                if response.status != 200:
                    raise RegistryError(f"Unexpected status code {response.status}")
                data = await read_limited(response, MAX_ANSWER)
        except Unreachable as exc:
            failure = exc
            continue
        try:
            found = msgspec.json.decode(data, type=_Answer).results or []
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as exc:
            raise RegistryError(f"error decoding registry search results: {exc}") from exc
        return [result for result in found if wanted(result)]
    raise failure


async def _endpoints(registries: Registries, domain: str) -> list[Endpoint]:
    if domain == DEFAULT_DOMAIN:
        return [Endpoint("https", LEGACY_DOMAIN)]
    return await lookup(registries.settings, domain, pull=False)


def _split(term: str) -> tuple[str, str]:
    """Take a registry off the front of what is searched for."""
    first, slash, rest = term.partition("/")
    if slash and ("." in first or ":" in first or first == "localhost"):
        domain = DEFAULT_DOMAIN if first in (DEFAULT_DOMAIN, LEGACY_DOMAIN) else first
        return domain, rest
    return DEFAULT_DOMAIN, term.removeprefix("library/")


def _predicate(filters: Filters) -> Callable[[SearchResult], bool]:
    """Check the filters and return what they let through. Raises InvalidParameter."""
    official = _boolean(filters, "is-official")
    automated = _boolean(filters, "is-automated")
    stars = 0
    for text in filters.get("stars"):
        if not text.isdigit():
            raise InvalidParameter(f"invalid filter 'stars={text}'")
        stars = max(stars, int(text))

    def wanted(result: SearchResult) -> bool:
        if official is not None and result.is_official != official:
            return False
        if automated is not None and result.is_automated != automated:
            return False
        return result.star_count >= stars

    return wanted


def _boolean(filters: Filters, key: str) -> bool | None:
    values = filters.get(key)
    if not values:
        return None
    if all(value in ("1", "true") for value in values):
        return True
    if all(value in ("0", "false") for value in values):
        return False
    raise InvalidParameter(f"invalid filter '{key}={values}'")
