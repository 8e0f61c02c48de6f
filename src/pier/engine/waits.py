"""Waiting for a container: `not-running`, `next-exit`, `removed`."""

import asyncio

from pier.engine.container import Container
from pier.engine.states import RUNNING
from pier.errors import InvalidParameter
from pier.model.api_containers import WaitResponse


def wait_for(container: Container, condition: str) -> "asyncio.Future[WaitResponse]":
    """Return a future for the condition. It listens from this call on.

    Raises InvalidParameter for a condition that does not exist.
    """
    match condition:
        case "" | "not-running":
            if container.record.State.Status not in RUNNING:
                return done(container.exit_response())
            return container.wait_exit()
        case "next-exit":
            return container.wait_exit()
        case "removed":
            return container.wait_removed()
        case _:
            raise InvalidParameter(f'invalid condition: "{condition}"')


def done(response: WaitResponse) -> "asyncio.Future[WaitResponse]":
    """Return a future that has its result already."""
    future: asyncio.Future[WaitResponse] = asyncio.get_running_loop().create_future()
    future.set_result(response)
    return future
