"""SourceOp: where files come from (buildkit source/types, docs.docker.com/build/… "Sources").

docker-image://REF   git://HOST/PATH#REF:DIR   http(s)://…   local://NAME   oci-layout://REF@DIGEST
"""

import os
from collections.abc import Mapping
from contextlib import ExitStack
from functools import partial

import msgspec

from pier.build.fetching import Fetcher
from pier.build.git import GitSource
from pier.build.kept_contexts import KeptContexts
from pier.build.layouts import OCI_LAYOUT, Layout, layout_image
from pier.build.progress import Work
from pier.build.threads import finished
from pier.buildkit.llb.files import Files, Solving
from pier.buildkit.messages import ops
from pier.buildkit.session import Session
from pier.errors import InvalidParameter, NotFound, Unsupported
from pier.images.image import Image
from pier.model.platform import Platform

IMAGE, GIT, LOCAL = "docker-image://", "git://", "local://"
_WEB = ("http://", "https://")
_KNOWN = {
    "image": {"image.resolvemode", "image.recordtype"},
    "git": {
        *("git.keepgitdir", "git.fullurl", "git.authtokensecret", "git.authheadersecret"),
        *("git.mountsshsock", "git.knownsshhosts", "git.checksum"),
    },
    "http": {"http.checksum", "http.filename", "http.perm", "http.uid", "http.gid"},
    "oci": {"oci.session", "oci.store"},
    "local": {
        *("local.session", "local.includepattern", "local.followpaths", "local.excludepatterns"),
        *("local.sharedkeyhint", "local.unique", "local.differ"),
    },
}
_SECRETS = {"git.authtokensecret": "GIT_AUTH_TOKEN", "git.authheadersecret": "GIT_AUTH_HEADER"}


class Sources:
    """`stack` keeps the clients' directories until the solve is over."""

    def __init__(self, solving: Solving, trees: KeptContexts, stack: ExitStack) -> None:
        self._solving = solving
        self._trees = trees
        self._stack = stack
        shop = solving.shop
        self._fetcher = Fetcher(solving.scratch, solving.session, shop.private)

    async def get(self, source: ops.SourceOp, platform: Platform, work: Work) -> Files:
        """Raises PierError, OSError."""
        name, attributes = source.identifier, source.attrs
        if name.startswith(IMAGE):
            _check("image", attributes)
            return Files(await self._image(name.removeprefix(IMAGE), attributes, platform, work))
        if name.startswith(GIT):
            _check("git", attributes)
            return await self._git(name.removeprefix(GIT), attributes)
        if name.startswith(_WEB):
            _check("http", attributes)
            return await self._web(name, attributes)
        if name.startswith(LOCAL):
            _check("local", attributes)
            return await self._local(name.removeprefix(LOCAL), attributes, work)
        if name.startswith(OCI_LAYOUT):
            _check("oci", attributes)
            return Files(await self._layout(name, attributes, platform))
        scheme = name.partition("://")[0]
        raise InvalidParameter(f"unknown source identifier scheme: {scheme}")

    async def _image(
        self, name: str, attributes: Mapping[str, str], platform: Platform, work: Work
    ) -> Image:
        shop = self._solving.shop
        mode = attributes.get("image.resolvemode", "default")
        if mode not in ("default", "pull", "local"):
            raise InvalidParameter(f"invalid image resolve mode: {mode}")
        if mode != "pull":
            try:
                return self._solving.held(shop.store.get(name, platform))
            except NotFound:
                if mode == "local":
                    raise
        with work.part(f"resolve {name}"):
            await shop.runner.pull(name, platform, lambda _record: None)
        return self._solving.held(shop.store.get(name, platform))

    async def _layout(self, name: str, attributes: Mapping[str, str], platform: Platform) -> Image:
        """An image of a layout of the client's: the reference's name is for the eye alone."""
        solving = self._solving
        session = solving.session
        if session is None:
            raise InvalidParameter(f"source {name} requires a session")
        if attributes.get("oci.session") not in (None, "", session.id):
            raise Unsupported("OCI layouts of other sessions are not supported by pierd")
        layout = Layout(attributes.get("oci.store", ""), "", name.rpartition("@")[2])
        if not layout.store:
            raise InvalidParameter("oci-layout source requires a store")
        image = await layout_image(
            layout,
            platform,
            session=session,
            store=solving.shop.store,
            pins=solving.pins,
            executor=solving.shop.executor,
            directory=solving.scratch.directory,
        )
        return solving.held(image)

    async def _git(self, name: str, attributes: Mapping[str, str]) -> Files:
        where, _, fragment = name.partition("#")
        ref, _, directory = fragment.partition(":")
        for key, usual in _SECRETS.items():
            if attributes.get(key, usual) != usual:
                raise Unsupported(f"{key} other than {usual} is not supported by pierd")
        url = attributes.get("git.fullurl") or f"https://{where}"
        keep = attributes.get("git.keepgitdir") == "true"
        source = GitSource(url.partition("#")[0], ref, directory.strip("/"))
        found = await self._fetcher.repository(
            source, keep_git_dir=keep, commit=attributes.get("git.checksum", "")
        )
        return Files(directory=found.directory, identity=found.identity)

    async def _web(self, url: str, attributes: Mapping[str, str]) -> Files:
        checksum = attributes.get("http.checksum", "")
        name = attributes.get("http.filename", "")
        found = await self._fetcher.file(url, checksum, name)
        path = os.path.join(found.directory, found.name)
        os.chmod(path, _number(attributes, "http.perm", 8, 0o600))
        os.chown(path, _number(attributes, "http.uid", 10), _number(attributes, "http.gid", 10))
        return Files(directory=found.directory)

    async def _local(self, name: str, attributes: Mapping[str, str], work: Work) -> Files:
        session = self._solving.session
        if not isinstance(session, Session):
            raise InvalidParameter(f"local source {name} requires a session")
        if attributes.get("local.session", session.id) != session.id:
            raise Unsupported("local sources of other sessions are not supported by pierd")
        include = _strings(attributes, "local.includepattern")
        exclude = _strings(attributes, "local.excludepatterns")
        follow = _strings(attributes, "local.followpaths")
        hint = attributes.get("local.sharedkeyhint", "")
        key = f"{session.shared_key}\0{name}\0{hint}" if session.shared_key else ""
        executor = self._solving.shop.executor
        tree = self._stack.enter_context(self._trees.held(key))
        index = await finished(executor, tree.begin)
        receiver = await session.sync(
            *(name, tree.path, index), include=include, exclude=exclude, follow=follow, work=work
        )
        await finished(executor, partial(tree.settle, receiver.taken))
        return Files(directory=tree.path)


def _check(kind: str, attributes: Mapping[str, str]) -> None:
    """An attribute that is not known may change what is meant: it is refused."""
    for name in attributes:
        if name not in _KNOWN[kind]:
            raise Unsupported(f"source attribute {name} is not supported by pierd")


def _number(attributes: Mapping[str, str], key: str, base: int, default: int = 0) -> int:
    text = attributes.get(key, "")
    try:
        number = int(text, base) if text else default
    except ValueError:
        raise InvalidParameter(f"invalid {key}: {text}") from None
    if not 0 <= number < 1 << 31:
        raise InvalidParameter(f"invalid {key}: {text}")
    return number


def _strings(attributes: Mapping[str, str], key: str) -> list[str]:
    text = attributes.get(key, "")
    if not text:
        return []
    try:
        return msgspec.json.decode(text, type=list[str] | None) or []
    except msgspec.DecodeError as exc:
        raise InvalidParameter(f"invalid {key}: {exc}") from exc
