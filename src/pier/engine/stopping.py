"""Signals to containers: kill, stop, restart.

No lock is held while waiting for an exit: the exit itself is a step of the loop (`exits`), and
whoever else acts meanwhile sees the state as it is.
"""

import asyncio
import signal

from pier.engine.container import Container
from pier.engine.exits import Exits
from pier.engine.launch import Launcher
from pier.engine.services import Services
from pier.engine.signals import parse_signal
from pier.engine.states import RUNNING, Move, move
from pier.errors import Conflict, NotModified, PierError


class Stopper:
    def __init__(self, services: Services, exits: Exits, launcher: Launcher) -> None:
        self._services = services
        self._exits = exits
        self._launcher = launcher

    async def kill(self, container: Container, number: int) -> None:
        """Send a signal; after SIGKILL, wait until the exit was recorded. Raises Conflict."""
        if number == signal.SIGKILL:
            await self.kill_and_wait(container)
        else:
            await self._send(container, number)

    async def kill_and_wait(self, container: Container) -> None:
        """Send SIGKILL and wait until the exit was recorded. Raises Conflict when not running."""
        exited = container.wait_exit()
        try:
            await self._send(container, signal.SIGKILL)
            if _is_running(container):
                await exited
        finally:
            exited.cancel()

    async def stop(self, container: Container, number: int | None, timeout_s: int | None) -> None:
        """Stop as asked, as the container says, or with SIGTERM and 10 s; then with SIGKILL.

        A negative time is for ever. Raises NotModified when it does not run.
        """
        await _settle(container)
        if not _is_running(container):
            raise NotModified("Container is already stopped")
        await self._stop(container, number, timeout_s)

    async def stop_by_limit(self, container: Container) -> None:
        """Stop it as `stop` does, but for its restart policy, which sees an exit like any other."""
        await self._stop(container, None, None, by_user=False)

    async def kill_by_limit(self, container: Container) -> None:
        """Send SIGKILL; its restart policy sees an exit like any other."""
        await _settle(container)
        await container.keeper.kill(signal.SIGKILL)

    async def restart(
        self, container: Container, number: int | None, timeout_s: int | None
    ) -> None:
        """Stop it when it runs, and start it. Neither --rm nor a restart policy gets in between."""
        container.is_restarted_by_user = True
        try:
            if _is_running(container):
                await self._stop(container, number, timeout_s)
        finally:
            container.is_restarted_by_user = False
        await self._launcher.start(container)
        self._services.events.container(container.record, "restart")

    async def _stop(
        self,
        container: Container,
        number: int | None,
        timeout_s: int | None,
        *,
        by_user: bool = True,
    ) -> None:
        if timeout_s is None:
            configured = container.record.Config.StopTimeout
            default = self._services.settings.default_stop_timeout
            timeout_s = default if configured is None else configured
        exited = container.wait_exit()
        try:
            number = number or _stop_signal(container)
            await self._send(container, number, is_stop=True, by_user=by_user)
            if _is_running(container):
                async with asyncio.timeout(None if timeout_s < 0 else timeout_s):
                    await asyncio.shield(exited)
        except TimeoutError:
            if by_user:
                await self._kill_unless_ended(container)
            else:
                await self.kill_by_limit(container)
        finally:
            exited.cancel()
        self._services.events.container(container.record, "stop")

    async def _kill_unless_ended(self, container: Container) -> None:
        try:
            await self.kill_and_wait(container)
        except Conflict:
            if _is_running(container):
                raise

    async def _send(
        self, container: Container, number: int, *, is_stop: bool = False, by_user: bool = True
    ) -> None:
        """Send a signal. One that means the end also ends restarts and pauses."""
        means_end = is_stop or number in (signal.SIGKILL, _stop_signal(container))
        await _settle(container)
        if not _is_running(container):
            raise Conflict(f"container {container.id} is not running")
        if means_end and by_user and not container.record.stopped_by_user:
            container.record.stopped_by_user = True
            self._exits.save(container)
        if container.record.State.Status == "restarting":
            if means_end:
                container.cancel_restart()
                move(container.record.State, Move.GAVE_UP)
                self._exits.save(container)
                container.tell_exit()
            return
        was_paused = container.record.State.Paused
        try:
            with container.ending():
                await container.keeper.kill(number)
                if was_paused and means_end:
                    # Frozen processes get the signal when they are thawed.
                    await container.keeper.resume()
        except Conflict:
            if not means_end:
                raise
            return  # it ended by itself: its exit is on its way
        record = container.record
        if was_paused and means_end and record.State.Status == "paused":
            move(record.State, Move.RESUMED)
            self._services.events.container(record, "unpause")
        self._services.events.container(record, "kill", {"signal": str(int(number))})


async def _settle(container: Container) -> None:
    """Wait until a start or a pause that is under way has come to its end."""
    async with container.lock:
        pass


def _is_running(container: Container) -> bool:
    return container.record.State.Status in RUNNING


def _stop_signal(container: Container) -> int:
    try:
        return parse_signal(container.record.Config.StopSignal or "SIGTERM")
    except PierError:
        return signal.SIGTERM
