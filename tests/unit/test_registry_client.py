"""The registry client's pure parts: challenges, scopes, endpoints, credentials, errors, bars."""

import asyncio
import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pier.errors import InvalidParameter, NotFound, PierError, Unauthorized
from pier.model.oci import DOCKER_MANIFEST, Descriptor, Index
from pier.model.platform import parse_platform
from pier.model.reference import parse_reference
from pier.registry.challenge import Challenge, merge_scopes, parse_challenges
from pier.registry.choice import NoMatch, suited
from pier.registry.credentials import ANONYMOUS, parse_header
from pier.registry.endpoints import Endpoint, RegistrySettings, lookup, parse_entries, parse_mirror
from pier.registry.errors import plain, refused, translate_pull
from pier.registry.login import domain_of
from pier.registry.progress import bar
from pier.registry.transport import origin, proxy_for


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ('Basic realm="r"', [Challenge("basic", {"realm": "r"})]),
        (
            'Bearer realm="https://a/t",service="s",scope="repository:x:pull,push"',
            [
                Challenge(
                    "bearer",
                    {"realm": "https://a/t", "service": "s", "scope": "repository:x:pull,push"},
                )
            ],
        ),
        ('Bearer realm="a\\"b"', [Challenge("bearer", {"realm": 'a"b'})]),
        (
            'Basic realm=a, Bearer realm="b"',
            [Challenge("basic", {"realm": "a"}), Challenge("bearer", {"realm": "b"})],
        ),
        ("Negotiate", [Challenge("negotiate")]),
        ("", []),
    ],
)
def test_challenges(text: str, found: list[Challenge]) -> None:
    assert parse_challenges([text]) == found


@given(st.text(max_size=60))
def test_any_challenge_is_parsed_or_passed_over(text: str) -> None:
    parse_challenges([text])


def test_scopes_of_one_resource_are_joined() -> None:
    scopes = ("repository:x:pull", "repository:x:pull,push", "repository:y:pull", "")
    assert merge_scopes(scopes) == ("repository:x:pull,push", "repository:y:pull")


@pytest.mark.parametrize(
    ("domain", "settings", "urls"),
    [
        ("docker.io", RegistrySettings(), ["https://registry-1.docker.io"]),
        (
            "docker.io",
            RegistrySettings(mirrors=("https://m.example",)),
            ["https://m.example", "https://registry-1.docker.io"],
        ),
        ("127.0.0.1:5000", RegistrySettings(), ["https://127.0.0.1:5000", "http://127.0.0.1:5000"]),
        ("10.1.2.3", RegistrySettings(), ["https://10.1.2.3"]),
        (
            "10.1.2.3",
            RegistrySettings(insecure=("10.0.0.0/8",)),
            ["https://10.1.2.3", "http://10.1.2.3"],
        ),
        (
            "10.1.2.3",
            RegistrySettings(registries=parse_entries({"*": {"mirrors": ["http://10.9.9.9/a/"]}})),
            ["http://10.9.9.9/a", "https://10.1.2.3"],
        ),
        (
            "10.1.2.3:1",
            RegistrySettings(registries=parse_entries({"10.1.2.3:1": {"insecure": True}})),
            ["https://10.1.2.3:1", "http://10.1.2.3:1"],
        ),
    ],
)
def test_endpoints(domain: str, settings: RegistrySettings, urls: list[str]) -> None:
    found = asyncio.run(lookup(settings, domain, pull=True))
    assert [endpoint.url for endpoint in found] == urls
    pushed = asyncio.run(lookup(settings, domain, pull=False))
    assert not any(endpoint.mirror for endpoint in pushed)


@pytest.mark.parametrize("text", ["mirror.example", "ftp://x", "https://u:p@x", "https://x?y"])
def test_mirrors_refused(text: str) -> None:
    with pytest.raises(InvalidParameter, match="invalid mirror"):
        parse_mirror(text)


def test_unknown_words_in_registries_are_refused() -> None:
    with pytest.raises(InvalidParameter, match="invalid registries"):
        parse_entries({"x": {"mirror": ["https://y"]}})


def test_credentials() -> None:
    text = base64.urlsafe_b64encode(b'{"Username":"a","password":"b"}').decode().rstrip("=")
    assert parse_header(text).basic == "Basic " + base64.b64encode(b"a:b").decode()
    pair = base64.b64encode(b"a:b:c").decode()
    auth = base64.b64encode(f'{{"auth":"{pair}"}}'.encode()).decode()
    assert (parse_header(auth).username, parse_header(auth).password) == ("a", "b:c")
    for nobody in ("", "%%%", "e30=", "bnVsbA=="):
        assert parse_header(nobody) == ANONYMOUS


@pytest.mark.parametrize(
    ("status", "body", "kind", "words"),
    [
        (
            404,
            b'{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest unknown"}]}',
            NotFound,
            "manifest for x:1 not found: manifest unknown: manifest unknown",
        ),
        (
            404,
            b'{"errors":[{"code":"NAME_UNKNOWN","message":"m"}]}',
            NotFound,
            "repository x not found: name unknown: m",
        ),
        (
            403,
            b"",
            NotFound,
            (
                "pull access denied for x, repository does not exist or may require "
                "'docker login': denied: requested access to the resource is denied"
            ),
        ),
        (502, b"<html>", PierError, "received unexpected HTTP status: 502 Reason"),
        (429, b"", PierError, "toomanyrequests: too many requests"),
    ],
)
def test_refusals(status: int, body: bytes, kind: type[PierError], words: str) -> None:
    translated = translate_pull(refused(status, "Reason", body), parse_reference("x:1"))
    assert isinstance(translated, kind)
    assert translated.message == words


def test_token_servers_write_errors_in_their_own_ways() -> None:
    body = b'{"errors": [{"Code": "UNAUTHORIZED", "message": "not you"}]}'
    assert refused(401, "", body).message == "unauthorized: not you"
    broken = refused(403, "", b"no way", is_json=True).message
    assert broken.startswith("error parsing HTTP 403 response body: ")
    assert broken.endswith(': "no way"')
    assert refused(403, "", b"no way").message.startswith("denied: ")


def test_unauthorized_has_its_own_status() -> None:
    assert isinstance(plain(refused(401, "", b"")), Unauthorized)


def test_platform_choice() -> None:
    def entry(digest: str, platform: str) -> Descriptor:
        return Descriptor(DOCKER_MANIFEST, digest, 1, platform=parse_platform(platform))

    index = Index(manifests=[entry("a", "linux/arm/v6"), entry("b", "linux/arm/v7")])
    assert suited(index, parse_platform("linux/arm/v7")).digest == "b"
    assert suited(index, parse_platform("linux/arm64")).digest == "b"
    assert suited(index, parse_platform("linux/arm/v6")).digest == "a"
    with pytest.raises(NoMatch, match="no matching manifest for linux/s390x in the manifest list"):
        suited(index, parse_platform("linux/s390x"))


def test_bars_are_dockers() -> None:
    assert bar(104, 104) == "[" + "=" * 50 + ">]     104B/104B"
    assert bar(40448, 1984302) == "[=>" + " " * 49 + "]  40.45kB/1.984MB"
    assert bar(512, 1) == "[" + "=" * 50 + ">]     512B"


def test_origins_and_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    assert origin("https://a/x") == ("https", "a", 443)
    assert origin("http://a:443") != origin("https://a")
    monkeypatch.setenv("https_proxy", "http://proxy:3128")
    monkeypatch.setenv("no_proxy", "inside.example")
    assert proxy_for("https://outside.example/v2/") == "http://proxy:3128"
    assert proxy_for("https://inside.example/v2/") is None
    assert proxy_for("https://127.0.0.1:5000/v2/") is None


def test_login_addresses() -> None:
    assert domain_of("https://index.docker.io/v1/") == domain_of("") == "docker.io"
    assert domain_of("localhost:5000") == domain_of("http://localhost:5000/v2/") == "localhost:5000"
    assert Endpoint("http", "h", "/p").url == "http://h/p"
