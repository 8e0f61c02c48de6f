"""What containers use: one answer, or one a second.

CPU shares are differences, so an answer needs two samples. dockerd waits for the ticks of its
collector, which takes it up to two seconds; here the last sample of a run is kept, and one that is
fresh serves as the earlier of the two.
"""

import asyncio
from collections.abc import AsyncIterator

from msgspec import UNSET
from msgspec.structs import astuple

from pier.engine.container import Container, Run
from pier.engine.services import Services
from pier.engine.states import ALIVE
from pier.engine.stats_sample import Sample, take
from pier.model.api_stats import NetShape, StatsResponse
from pier.model.gotime import SECOND, now_ns
from pier.network.shaping import Shape, parse_shape

PERIOD_S = 1.0
# The host's time comes in ticks of 10 ms a CPU: over half a second that is 2 % of a share.
WINDOW_S = 0.5
FRESH_S = 10.0


class Stats:
    def __init__(self, services: Services) -> None:
        self._services = services

    async def once(self, ref: str) -> StatsResponse:
        """Return how it is now, with a sample from a moment before. Raises NotFound."""
        container = self._services.store.get(ref)
        before = self._fresh(container)
        if before is None:
            before = self._sample(container)
        if before is None:
            return _empty(container)
        age_s = (now_ns() - before.at_ns) / SECOND
        if age_s < WINDOW_S:
            await asyncio.sleep(WINDOW_S - age_s)
        return self._answer(container, before)

    def one_shot(self, ref: str) -> StatsResponse:
        """Return how it is now, without an earlier sample. Raises NotFound."""
        return self._answer(self._services.store.get(ref), None)

    def stream(self, ref: str) -> AsyncIterator[StatsResponse]:
        """Return an answer every second until the container is removed; zeros when it is stopped.

        Raises NotFound before there is an answer.
        """
        return self._every_second(self._services.store.get(ref))

    async def _every_second(self, container: Container) -> AsyncIterator[StatsResponse]:
        before = self._fresh(container)
        while not container.is_removed:
            answer = self._answer(container, before)
            before = container.run.sample if container.run is not None else None
            yield answer
            await asyncio.sleep(PERIOD_S)

    def _answer(self, container: Container, before: Sample | None) -> StatsResponse:
        sample = self._sample(container)
        if sample is None:
            return _empty(container)
        answer = StatsResponse(
            name=f"/{container.name}",
            id=container.id,
            read=sample.read,
            pids_stats=sample.pids,
            blkio_stats=sample.blkio,
            cpu_stats=sample.cpu,
            memory_stats=sample.memory,
            networks=sample.networks,
            pressure_stats=sample.pressure,
        )
        shape = parse_shape(container.record.HostConfig.Annotations)
        if shape != Shape():
            answer.net_shape = NetShape(*astuple(shape))
        if before is not None:
            answer.preread, answer.precpu_stats = before.read, before.cpu
        return answer

    def _fresh(self, container: Container) -> Sample | None:
        """The last sample of the run that is under way, if it is not too old to say `now`."""
        run = container.run
        if run is None or run.sample is None or run.exited:
            return None
        return run.sample if now_ns() - run.sample.at_ns < FRESH_S * SECOND else None

    def _sample(self, container: Container) -> Sample | None:
        """Take a sample and keep it; None for a container without processes."""
        run: Run | None = container.run
        record = container.record
        if run is None or run.exited or record.State.Status not in ALIVE:
            return None
        try:
            run.sample = take(
                self._services.hierarchies,
                run.cgroup,
                pid=record.State.Pid,
                own_network=record.HostConfig.NetworkMode != "host",
            )
        except OSError:
            return None  # it is ending at this moment
        return run.sample


def _empty(container: Container) -> StatsResponse:
    return StatsResponse(name=f"/{container.name}", id=container.id, networks=UNSET)
