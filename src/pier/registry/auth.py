"""Showing a registry who asks: Basic, or a token got from where its challenge says.

The token protocol is the distribution project's: GET with the credentials as Basic, or POST
(OAuth2) with a refresh token. Credentials go to the registry and to the realm that it names, and
over plain HTTP only when the registry itself is spoken to that way.
"""

import time
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

import aiohttp
import msgspec
from msgspec import Struct

from pier.registry.challenge import Challenge, merge_scopes
from pier.registry.credentials import Credentials
from pier.registry.errors import RegistryError, refused

CLIENT_ID = "docker"
MAX_TOKEN_BYTES = 1 << 20
# The protocol's own default for a token that does not say how long it lives.
MIN_LIFE_S = 60
_SPARE_S = 5

Send = Callable[..., AbstractAsyncContextManager[aiohttp.ClientResponse]]
Scopes = tuple[str, ...]


class NoCredentials(RegistryError):
    """The registry wants Basic, and there is nobody to be."""

    bare = "no basic auth credentials"


class Tokens:
    """Tokens that still live, by whom and what they are for."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, Credentials, Scopes], tuple[str, float]] = {}

    def get(self, realm: str, who: Credentials, scopes: Scopes) -> str:
        token, until = self._known.get((realm, who, scopes), ("", 0.0))
        return token if until > time.monotonic() else ""

    def put(self, realm: str, who: Credentials, scopes: Scopes, *, token: "Token") -> None:
        now = time.monotonic()
        self._known = {key: item for key, item in self._known.items() if item[1] > now}
        life = max(token.expires_in, MIN_LIFE_S) - _SPARE_S
        self._known[realm, who, scopes] = token.text, now + life

    def forget(self, realm: str, who: Credentials, scopes: Scopes) -> None:
        self._known.pop((realm, who, scopes), None)


class Token(Struct):
    """A token server's answer."""

    token: str = ""
    access_token: str = ""
    refresh_token: str = ""
    expires_in: int = MIN_LIFE_S

    @property
    def text(self) -> str:
        return self.token or self.access_token


async def fetch_token(
    send: Send,
    challenge: Challenge,
    who: Credentials,
    scopes: Scopes,
    *,
    secure: bool,
    offline: bool = False,
) -> Token:
    """Ask the realm of a challenge for a token.

    `secure` says that the registry is spoken to by HTTPS; `offline` asks for a refresh token as
    well. Raises RegistryError.
    """
    realm = challenge.parameters.get("realm", "")
    service = challenge.parameters.get("service", "")
    parts = urlsplit(realm)
    if parts.scheme not in ("http", "https") or not parts.netloc:
        raise RegistryError(f'invalid realm "{realm}" in the challenge of the registry')
    has_secret = bool(who.identitytoken or who.username)
    if secure and has_secret and parts.scheme != "https":
        raise RegistryError(f'refusing to send credentials over plain HTTP to "{realm}"')
    if who.identitytoken:
        form = {
            "grant_type": "refresh_token",
            "service": service,
            "client_id": CLIENT_ID,
            "scope": " ".join(scopes),
            "refresh_token": who.identitytoken,
        }
        headers = {"Content-Type": "application/x-www-form-urlencoded"}
        method, url, body = "POST", realm, urlencode(form).encode()
    else:
        query = parse_qsl(parts.query, keep_blank_values=True)
        query += [("service", service)] if service else []
        query += [("scope", scope) for scope in scopes]
        if who.username:
            query += [("account", who.username)]
        if offline:
            query += [("client_id", CLIENT_ID), ("offline_token", "true")]
        headers = {"Authorization": who.basic} if who.username else {}
        method, body = "GET", None
        url = urlunsplit(parts._replace(query=urlencode(query)))
    async with send(method, url, headers=headers, body=body) as response:
        data = await read_limited(response, MAX_TOKEN_BYTES)
        if response.status != 200:
            is_json = response.content_type == "application/json"
            raise refused(response.status, response.reason or "", data, is_json=is_json)
    try:
        token = msgspec.json.decode(data, type=Token)
    except (msgspec.DecodeError, UnicodeDecodeError) as exc:
        raise RegistryError(f"unable to decode token response: {exc}") from exc
    if not token.text:
        raise RegistryError("authorization server did not include a token in the response")
    return token


async def read_limited(response: aiohttp.ClientResponse, limit: int) -> bytes:
    """Return a whole body. Raises RegistryError for one of more than `limit` bytes."""
    parts, size = [], 0
    async for part in response.content.iter_any():
        size += len(part)
        if size > limit:
            raise RegistryError(f"answer of {response.url} is larger than {limit} bytes")
        parts.append(part)
    return b"".join(parts)


class Authorizer:
    """Authorization headers for one registry and one user."""

    def __init__(self, send: Send, who: Credentials, tokens: Tokens, *, secure: bool) -> None:
        self._send = send
        self._who = who
        self._tokens = tokens
        self._secure = secure
        self._challenges: list[Challenge] = []

    def learn(self, challenges: list[Challenge]) -> None:
        self._challenges = challenges

    async def header(self, scopes: Scopes, prefix: str) -> str:
        """Return the value for a request that needs `scopes`, "" while nothing was asked for.

        Raises NoCredentials, and RegistryError with `prefix` before what a token server said.
        """
        if self._who.registrytoken:
            return f"Bearer {self._who.registrytoken}"
        for challenge in self._challenges:
            if challenge.scheme == "bearer":
                return f"Bearer {await self._token(challenge, scopes, prefix)}"
            if challenge.scheme == "basic":
                if not self._who.username:
                    raise NoCredentials(f"{prefix}: {NoCredentials.bare}")
                return self._who.basic
        return ""

    async def _token(self, challenge: Challenge, scopes: Scopes, prefix: str) -> str:
        realm = challenge.parameters.get("realm", "")
        wanted = merge_scopes((*scopes, challenge.parameters.get("scope", "")))
        if known := self._tokens.get(realm, self._who, wanted):
            return known
        try:
            token = await fetch_token(self._send, challenge, self._who, wanted, secure=self._secure)
        except RegistryError as exc:
            exc.bare = exc.message
            exc.args = (f"{prefix}: {exc.message}", *exc.args[1:])
            raise
        self._tokens.put(realm, self._who, wanted, token=token)
        return token.text

    def forget(self, scopes: Scopes) -> None:
        """Drop the tokens for these scopes: the registry took them for worthless."""
        for challenge in self._challenges:
            wanted = merge_scopes((*scopes, challenge.parameters.get("scope", "")))
            self._tokens.forget(challenge.parameters.get("realm", ""), self._who, wanted)
