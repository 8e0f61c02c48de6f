"""Asking a registry whether it knows somebody: `POST /auth`, and what a tag is there."""

from pier.errors import Internal, Unauthorized
from pier.model.api_registry import (
    DistributionInspect,
    LoginAnswer,
    PlatformEntry,
    RemoteDescriptor,
)
from pier.model.oci import INDEXES, MAX_CONFIG, decode_config, decode_index
from pier.model.platform import Platform
from pier.model.reference import DEFAULT_DOMAIN, LEGACY_DOMAIN, Reference
from pier.registry.auth import fetch_token
from pier.registry.choice import image_manifest
from pier.registry.client import Link, Registries
from pier.registry.credentials import ANONYMOUS, Credentials
from pier.registry.errors import Refused, RegistryError, plain
from pier.registry.repository import Repository

_SCOPE = ("registry:catalog:search",)


def domain_of(address: str) -> str:
    """Return the domain of a `serveraddress`: a host, or a URL such as https://index.docker.io/v1/."""
    rest = address.partition("://")[2] or address
    host = rest.partition("/")[0]
    return DEFAULT_DOMAIN if host in ("", LEGACY_DOMAIN, DEFAULT_DOMAIN) else host


async def login(registries: Registries, who: Credentials) -> LoginAnswer:
    """Try credentials. Raises Unauthorized, RegistryError in Docker's words."""

    async def work(link: Link) -> LoginAnswer:
        challenges = registries.challenges(link.endpoint) or []
        for challenge in challenges:
            if challenge.scheme == "bearer":
                try:
                    token = await fetch_token(
                        link.send,
                        challenge,
                        who,
                        _SCOPE,
                        secure=link.endpoint.scheme == "https",
                        offline=True,
                    )
                except Refused as exc:
                    raise Unauthorized(exc.message) if exc.status == 401 else exc from exc
                return LoginAnswer(IdentityToken=token.refresh_token)
        url = f"{link.endpoint.scheme}://{link.endpoint.host}/v2/"
        headers = {"Authorization": who.basic} if challenges and who.username else {}
        async with link.send("GET", url, headers=headers) as response:
            if response.status != 200:
                raise Internal(
                    f"login attempt to {url} failed with status: {response.status} "
                    f"{response.reason}"
                )
        return LoginAnswer()

    # It may have been open to everybody a minute ago.
    domain = domain_of(who.serveraddress)
    return await registries.reach(domain, who, work, pull=False, anew=True)


async def inspect(
    registries: Registries, reference: Reference, who: Credentials = ANONYMOUS
) -> DistributionInspect:
    """Say what a tag or digest is in its registry, and for which platforms. Raises PierError."""

    async def work(link: Link) -> DistributionInspect:
        repository = Repository(link, reference.path)
        found = await repository.manifest(reference.digest or reference.tag)
        answer = DistributionInspect(
            RemoteDescriptor(found.media_type, found.digest, len(found.data)), []
        )
        if found.media_type in INDEXES:
            entries = [d.platform for d in decode_index(found.data).manifests if d.platform]
        else:
            manifest = image_manifest(found)
            config = await repository.small_blob(manifest.config.digest, MAX_CONFIG)
            entries = [decode_config(config).platform]
        answer.Platforms = [_entry(platform) for platform in entries]
        return answer

    try:
        return await registries.reach(reference.domain, who, work, pull=True)
    except RegistryError as exc:
        raise plain(exc) from exc


def _entry(platform: Platform) -> PlatformEntry:
    return PlatformEntry(
        architecture=platform.architecture,
        os=platform.os,
        variant=platform.variant,
        os_version=platform.os_version,
        os_features=list(platform.os_features),
    )
