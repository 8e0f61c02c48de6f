"""RUN in a container like any other: the same isolation, limits, networks and clean-up.

A build's container is marked as one (`ContainerRecord.for_build`): what a pierd that was killed has
left of it, the next one removes.
"""

import asyncio
import contextlib
import os
import shutil
import socket
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Self

import msgspec

from pier.build.options import Limits
from pier.build.runner import Step, Tell
from pier.build.threads import finished
from pier.engine.container import HeldClient
from pier.engine.containers import Containers
from pier.engine.registries import Registries
from pier.engine.services import Services
from pier.errors import Internal, NotFound, PierError
from pier.images.image import Image
from pier.model.container import CreateRequest, HealthConfig, HostConfig, LogConfig
from pier.model.platform import Platform
from pier.model.reference import parse_reference
from pier.registry.credentials import Credentials
from pier.storage.copy import copy_tree

_HEADER = 8
_READ = 64 << 10
_STDERR = 2

Output = Callable[[bytes, bool], None]
CredentialsFor = Callable[[str], Awaitable[Credentials]]


class BuildSteps:
    """What one build needs of the engine: `build.runner.StepRunner`.

    `credentials` finds those of a registry among what the client sent.
    """

    def __init__(
        self,
        services: Services,
        containers: Containers,
        registries: Registries,
        credentials: CredentialsFor,
    ) -> None:
        self._services = services
        self._containers = containers
        self._registries = registries
        self._credentials = credentials

    def container(self, step: Step) -> "StepContainer":
        return StepContainer(self._services, self._containers, step)

    def discard(self, image: Image) -> None:
        layers = {layer for c in self._services.store for layer in c.record.kept_layers}
        self._services.images.delete(image, in_use=layers)

    async def pull(self, name: str, platform: Platform | None, tell: Tell) -> None:
        """Raises PierError."""
        reference = parse_reference(name).tagged()
        who = await self._credentials(reference.domain)
        lines = self._registries.pull(reference, who, platform)
        try:
            async for line in lines:
                tell(msgspec.json.decode(line))
        finally:
            await lines.aclose()  # type: ignore[attr-defined]


class StepContainer:
    """`build.runner.Running`: see there."""

    def __init__(self, services: Services, containers: Containers, step: Step) -> None:
        self._services = services
        self._containers = containers
        self._step = step
        self._kept = False
        self.id = ""

    async def __aenter__(self) -> Self:
        created = await self._containers.create(_request(self._step), name="", platform="")
        self.id = created.Id
        container = self._services.store.get(self.id)
        container.record.for_build = True
        container.unrecorded_env = self._step.secrets
        self._services.store.save(container)
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._kept:
            container = self._services.store.get(self.id)
            container.record.for_build = False
            self._services.store.save(container)
            self._services.directories.sync_later()
            return
        removal = asyncio.ensure_future(self._remove())
        try:
            await asyncio.shield(removal)
        except asyncio.CancelledError:
            await removal  # a build that is cancelled leaves nothing
            raise

    async def run(self, output: Output) -> int:
        container = self._services.store.get(self.id)
        ours, theirs = socket.socketpair()
        with ours:
            ours.setblocking(False)
            held = HeldClient(
                theirs.detach(), stdin=False, stdout=True, stderr=True, detach_keys=b"", pending=b""
            )
            container.held.append(held)
            over = container.wait_exit()
            await self._containers.start(self.id)
            run = container.run
            await _read(ours, output)
            code = (await over).StatusCode
            if run is not None:
                await run.gone  # its overlay is nobody's any more
        return code

    async def lend(self) -> None:
        container = self._services.store.get(self.id)
        await container.wait_exit()
        if container.run is not None:
            await container.run.gone

    async def take_changes(self, directory: str, *, copy: bool) -> str:
        upper = f"{self._services.directories.data(self.id)}/upper"
        target = os.path.join(directory, "upper")
        if copy:
            await finished(self._services.executor, partial(_copy, upper, target))
        else:
            os.rename(upper, target)
        return target

    def keep(self) -> None:
        self._kept = True

    async def _remove(self) -> None:
        with contextlib.suppress(NotFound):
            await self._containers.remove(self.id, force=True, volumes=True, link=False)


async def clear_left(services: Services, containers: Containers) -> None:
    """Remove the containers of builds whose pierd was killed."""
    for container in list(services.store):
        if container.record.for_build:
            with contextlib.suppress(PierError):
                await containers.remove(container.id, force=True, volumes=True, link=False)


async def _read(sock: socket.socket, output: Output) -> None:
    """Take Docker's frames apart to the end: stream, three zeros, length, data."""
    loop = asyncio.get_running_loop()
    raw = bytearray()
    while data := await loop.sock_recv(sock, _READ):
        raw += data
        while len(raw) >= _HEADER:
            end = _HEADER + int.from_bytes(raw[4:_HEADER], "big")
            if len(raw) < end:
                break
            output(bytes(raw[_HEADER:end]), raw[0] == _STDERR)
            del raw[:end]


def _request(step: Step) -> CreateRequest:
    return CreateRequest(
        Image=step.image.id,
        Cmd=list(step.command),
        Entrypoint=[""],  # none, and not the image's
        Env=[*(["HOSTNAME"] if step.hostname else []), *step.environment],  # it is taken away
        Hostname=step.hostname,
        AttachStdout=True,
        AttachStderr=True,
        AttachStdin=step.interactive,
        OpenStdin=step.interactive,
        StdinOnce=step.interactive,
        Tty=step.has_terminal,
        Healthcheck=HealthConfig(Test=["NONE"]),
        HostConfig=_host(step, step.limits),
    )


def _host(step: Step, limits: Limits) -> HostConfig:
    # A name that is not its own is known all the same, without a network too.
    itself = [f"{step.hostname}:127.0.0.1"] if step.hostname else []
    return HostConfig(
        NetworkMode=step.network,
        Privileged=step.privileged,
        ReadonlyRootfs=step.read_only,
        ExtraHosts=[*step.extra_hosts, *itself] or None,
        SecurityOpt=list(step.security_opts) or None,
        Mounts=list(step.mounts),
        Tmpfs=dict(step.tmpfs),
        LogConfig=LogConfig(Type="none"),
        Memory=limits.memory,
        MemorySwap=limits.memory_swap,
        CpuShares=limits.cpu_shares,
        CpuPeriod=limits.cpu_period,
        CpuQuota=limits.cpu_quota,
        CpusetCpus=limits.cpuset_cpus,
        CpusetMems=limits.cpuset_mems,
        CgroupParent=limits.cgroup_parent,
        ShmSize=limits.shm_size,
        Ulimits=list(limits.ulimits),
    )


def _copy(source: str, target: str) -> None:
    """Copy an upper directory; overlayfs's own marks go with it. Raises Internal."""
    os.mkdir(target)
    source_fd = os.open(source, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        target_fd = os.open(target, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            copy_tree(source_fd, target_fd, is_layer=True)
        finally:
            os.close(target_fd)
    except OSError as exc:
        shutil.rmtree(target, ignore_errors=True)
        raise Internal(f"keeping the container of a step: {exc}") from exc
    finally:
        os.close(source_fd)
