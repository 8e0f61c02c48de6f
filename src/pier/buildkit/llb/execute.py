"""ExecOp: a command in a container of some files, with others mounted; what it wrote are its outputs."""

import contextlib
import os
import posixpath
import stat
from collections.abc import Sequence
from functools import partial

from msgspec import Struct
from msgspec.structs import replace

from pier.build.context import INSIDE
from pier.build.failures import BuildFailed, StepFailed, foreign
from pier.build.mounts import StepMount
from pier.build.options import INSECURE, NETWORK_HOST, SANDBOX, Limits
from pier.build.progress import Work
from pier.build.runner import Step
from pier.build.snapshot import Made, open_image, save
from pier.build.step_mounts import Ready, Surroundings, prepare
from pier.build.threads import finished
from pier.buildkit.llb.files import (
    DIRECTORY,
    SCRATCH,
    Files,
    Solving,
    as_image,
    open_files,
    save_layer,
)
from pier.buildkit.messages import ops
from pier.errors import Forbidden, InvalidParameter, Unsupported
from pier.images.image import Image
from pier.images.store import Pins
from pier.kernel.openat2 import openat2
from pier.model.container import ContainerConfig, ImageOptions, Mount
from pier.model.container import Ulimit as StepUlimit
from pier.storage.copy import copy_tree

NO_INPUT, NO_OUTPUT = -1, -1
BIND, SECRET, SSH, CACHE, TMPFS = range(5)
_NETWORKS = {0: "", 1: "host", 2: "none"}
_SHARING = {0: "shared", 1: "private", 2: "locked"}
_PROXIES = ("http_proxy", "https_proxy", "ftp_proxy", "no_proxy", "all_proxy")


class _Written(Struct, frozen=True):
    """A directory that a mount was a copy of, which is an output."""

    output: int
    directory: str


class Execution:
    """One ExecOp with its inputs. Raises InvalidParameter for what is wrong with it."""

    def __init__(
        self, solving: Solving, op: ops.ExecOp, inputs: Sequence[Files], name: str
    ) -> None:
        self._solving = solving
        self._op = op
        self._inputs = inputs
        self._name = name
        if op.meta is None or not op.meta.args:
            raise InvalidParameter("invalid exec op with no meta")
        self._meta = op.meta
        roots = [mount for mount in op.mounts if _target(mount) == "/"]
        if len(roots) != 1 or roots[0].mountType != BIND:
            raise InvalidParameter("invalid exec op with no rootfs")
        self._root = roots[0]
        if _selects(self._root):
            raise Unsupported("a root that is part of an input is not supported by pierd")
        if op.cdiDevices:
            raise Unsupported("devices in a build are not supported by pierd")

    @staticmethod
    def outputs(op: ops.ExecOp) -> int:
        """Return how many outputs it has."""
        return max([mount.output for mount in op.mounts], default=NO_OUTPUT) + 1

    async def run(self, work: Work) -> list[Files]:
        """Run it; return its outputs. Raises PierError, OSError."""
        solving, meta = self._solving, self._meta
        root = await as_image(solving, self._input(self._root), self._name)
        network = self._rights()
        found = [SCRATCH] * self.outputs(self._op)
        async with contextlib.AsyncExitStack() as stack:
            image = await self._container_image(stack, root)
            ready, written = await self._mounts(stack)
            step = Step(
                image=image,
                command=meta.args,
                environment=[*meta.env, *_proxies(meta)],
                network=network,
                extra_hosts=[f"{host.Host}:{host.IP}" for host in meta.extraHosts],
                security_opts=(),
                mounts=ready.mounts,
                tmpfs=ready.tmpfs,
                limits=Limits(
                    cgroup_parent=meta.cgroupParent,
                    ulimits=[StepUlimit(u.Name, u.Hard, u.Soft) for u in meta.ulimit],
                ),
                secrets=ready.environment,
                privileged=self._op.security == 1,
                hostname=meta.hostname or SANDBOX,
                read_only=self._root.readonly,
            )
            upper = await self._run(step, work)
            if self._root.output != NO_OUTPUT:
                made = await save_layer(solving, root, upper, self._name, ready.targets)
                found[self._root.output] = Files(made)
            for one in written:
                made = await save_layer(solving, None, one.directory, self._name)
                found[one.output] = Files(made)
        for mount in self._op.mounts:
            # What nobody could write to is as it was.
            if mount.readonly and mount.output != NO_OUTPUT:
                found[mount.output] = self._input(mount)
        return found

    def _rights(self) -> str:
        """Return the network. Raises Forbidden, InvalidParameter."""
        op, allowed = self._op, self._solving.allowed
        if op.network not in _NETWORKS or op.security not in (0, 1):
            raise InvalidParameter("invalid network or security mode of an exec op")
        network = _NETWORKS[op.network]
        if network == "host" and NETWORK_HOST not in allowed:
            raise Forbidden(f"{NETWORK_HOST} is not allowed")
        if op.security == 1 and INSECURE not in allowed:
            raise Forbidden(f"{INSECURE} is not allowed")
        return network

    def _input(self, mount: ops.Mount) -> Files:
        if mount.input == NO_INPUT:
            return SCRATCH
        if not 0 <= mount.input < len(self._inputs):
            raise InvalidParameter(f"invalid input index {mount.input} of a mount")
        return self._inputs[mount.input]

    async def _container_image(self, stack: contextlib.AsyncExitStack, root: Image | None) -> Image:
        """An image of the root with the user and directory, which goes when the step is over."""
        solving, meta = self._solving, self._meta
        made = Made(
            parent=root,
            config=ContainerConfig(User=meta.user, WorkingDir=meta.cwd or "/"),
            created_by=self._name,
            platform=root.config.platform if root else solving.platform,
            epoch=0,
        )
        shop = solving.shop
        pins = stack.enter_context(shop.store.pinned())
        image = await finished(shop.executor, partial(save, shop.store, made, pins))
        stack.callback(self._discard, image, pins)
        return image

    def _discard(self, image: Image, pins: Pins) -> None:
        store = self._solving.shop.store
        pins.release()
        if image.id in store and not store.children(image.id) and not store.is_pinned(image.id):
            self._solving.shop.runner.discard(image)

    async def _run(self, step: Step, work: Work) -> str:
        wanted = self._meta.validExitCodes or [0]
        async with self._solving.shop.runner.container(step) as container:
            try:
                code = await container.run(lambda data, is_error: work.log(data, is_error=is_error))
            except Exception as exc:
                command = " ".join(step.command)
                if (said := foreign(exc, command, step.image.config.platform)) is not None:
                    raise said from exc
                raise
            if code not in wanted:
                raise StepFailed(" ".join(step.command), code)
            return await container.take_changes(self._solving.scratch.directory(), copy=False)

    # Mounts

    async def _mounts(self, stack: contextlib.AsyncExitStack) -> tuple[Ready, list[_Written]]:
        """Make all mounts but the root ready, in their order."""
        solving, executor = self._solving, self._solving.shop.executor
        plain: list[StepMount] = []
        images: dict[str, Image | None] = {}
        ready = Ready([], {}, [], [])
        written: list[_Written] = []
        for number, mount in enumerate(self._op.mounts):
            if mount is self._root:
                continue
            if mount.mountType == BIND:
                bind = partial(self._bind, mount, written)
                ready.mounts.append(await finished(executor, bind))
                ready.targets.append(_target(mount))
                continue
            name = str(number) if mount.mountType == CACHE and mount.input != NO_INPUT else ""
            if name:
                images[name] = await as_image(solving, self._input(mount), self._name)
            plain.append(_step_mount(mount, name))
        plain += [
            StepMount("secret", "", id=secret.ID, env=secret.name, required=not secret.optional)
            for secret in self._op.secretenv
        ]
        around = Surroundings(
            context=solving.scratch,
            images=images,
            open_image=partial(open_image, solving.shop.store),
            caches=solving.shop.cache_mounts,
            session=solving.session,
            private=solving.shop.private,
            executor=executor,
        )
        others = await prepare(stack, plain, around, self._meta.cwd or "/")
        return (
            Ready(
                [*ready.mounts, *others.mounts],
                others.tmpfs,
                [*ready.targets, *others.targets],
                others.environment,
            ),
            written,
        )

    def _bind(self, mount: ops.Mount, written: list[_Written]) -> Mount:
        """A bind of an input: read only where it lies, to be written to as a copy. Blocking."""
        files = self._input(mount)
        if mount.readonly and files.directory:
            return _mount(_resolve(files.directory, mount.selector), _target(mount), read_only=True)
        if mount.readonly and files.image is not None and not files.is_scratch:
            subpath = posixpath.normpath("/" + mount.selector.lstrip("/")).strip("/")
            selected = ImageOptions(Subpath=subpath) if subpath else None
            return Mount("image", files.image.id, _target(mount), ImageOptions=selected)
        place = self._solving.scratch.directory()
        source_fd, target_fd = open_files(self._solving, files), os.open(place, DIRECTORY)
        try:
            copy_tree(source_fd, target_fd)
            found = os.fstat(source_fd)
            os.fchmod(target_fd, stat.S_IMODE(found.st_mode) if not files.is_scratch else 0o755)
        finally:
            os.close(source_fd)
            os.close(target_fd)
        if mount.output != NO_OUTPUT and not mount.readonly:
            written.append(_Written(mount.output, place))
        path = _resolve(place, mount.selector)
        return _mount(path, _target(mount), read_only=mount.readonly)


def check_outputs(op: ops.ExecOp) -> None:
    """Raise InvalidParameter for outputs that are twice the same, or that do not follow each other."""
    given = sorted(mount.output for mount in op.mounts if mount.output != NO_OUTPUT)
    if given != list(range(len(given))):
        raise InvalidParameter("invalid outputs of an exec op")


def _target(mount: ops.Mount) -> str:
    return posixpath.normpath("/" + mount.dest.lstrip("/"))


def _selects(mount: ops.Mount) -> bool:
    return posixpath.normpath("/" + mount.selector.lstrip("/")) != "/"


def _proxies(meta: ops.Meta) -> list[str]:
    if meta.proxy_env is None:
        return []
    values = [(name, getattr(meta.proxy_env, name)) for name in _PROXIES]
    return [f"{n}={value}" for name, value in values if value for n in (name.upper(), name)]


def _step_mount(mount: ops.Mount, image: str) -> StepMount:
    """Raises InvalidParameter."""
    target = _target(mount)
    match mount.mountType:
        case 1:
            secret = mount.secretOpt or ops.SecretOpt()
            given = StepMount("secret", target, id=secret.ID, uid=secret.uid, gid=secret.gid)
            return replace(given, mode=secret.mode, required=not secret.optional)
        case 2:
            ssh = mount.sSHOpt or ops.SSHOpt()
            given = StepMount("ssh", target, id=ssh.ID or "default", uid=ssh.uid, gid=ssh.gid)
            return replace(given, mode=ssh.mode, required=not ssh.optional)
        case 3:
            cache = mount.cacheOpt or ops.CacheOpt()
            if cache.sharing not in _SHARING:
                raise InvalidParameter(f"unrecognized cache sharing mode: {cache.sharing}")
            given = StepMount("cache", target, id=cache.ID or target, stage=image)
            selected = mount.selector if image else ""
            sharing = _SHARING[cache.sharing]
            return replace(given, sharing=sharing, source=selected, read_only=mount.readonly)
        case 4:
            return StepMount("tmpfs", target, size=mount.tmpfsOpt.size if mount.tmpfsOpt else 0)
        case _:
            raise InvalidParameter(f"mount type {mount.mountType} not implemented")


def _resolve(directory: str, selector: str) -> str:
    """Return the real path of something in a directory, whose links may lead anywhere in it."""
    path = posixpath.normpath("/" + selector.lstrip("/")).lstrip("/") or "."
    root_fd = os.open(directory, DIRECTORY)
    try:
        fd = openat2(root_fd, os.fsencode(path), os.O_PATH, resolve=INSIDE)
    except OSError as exc:
        raise BuildFailed(f"stat {path}: {os.strerror(exc.errno or 0).lower()}") from exc
    finally:
        os.close(root_fd)
    try:
        return os.readlink(f"/proc/self/fd/{fd}")
    finally:
        os.close(fd)


def _mount(path: str, target: str, *, read_only: bool) -> Mount:
    # It lies in the data root, where the engine chooses the propagation.
    return Mount(Type="bind", Source=path, Target=target, ReadOnly=read_only)
