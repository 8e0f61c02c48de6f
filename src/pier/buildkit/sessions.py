"""The sessions that clients have open, by the identities they chose."""

import asyncio
from collections.abc import Callable

from pier.buildkit.session import Session
from pier.errors import Conflict, NotFound

# A client opens its session beside the call that names it.
WAIT_S = 5.0


class Sessions:
    """For pierd's loop."""

    def __init__(self) -> None:
        self._sessions: dict[str, Session] = {}
        self._waiting: dict[str, asyncio.Future[Session]] = {}

    def add(self, session: Session) -> Callable[[], None]:
        """Take a session in; call what is returned when it is over. Raises Conflict."""
        if session.id in self._sessions:
            raise Conflict(f"session {session.id} already exists")
        self._sessions[session.id] = session
        waiter = self._waiting.pop(session.id, None)
        if waiter is not None and not waiter.done():
            waiter.set_result(session)

        def over() -> None:
            if self._sessions.get(session.id) is session:
                del self._sessions[session.id]

        return over

    def find(self, session_id: str) -> Session | None:
        return self._sessions.get(session_id)

    async def wait(self, session_id: str) -> Session:
        """Return a session that is there or comes soon. Raises NotFound."""
        if (session := self._sessions.get(session_id)) is not None:
            return session
        if session_id not in self._waiting:
            self._waiting[session_id] = asyncio.get_running_loop().create_future()
        try:
            async with asyncio.timeout(WAIT_S):
                return await asyncio.shield(self._waiting[session_id])
        except TimeoutError:
            self._waiting.pop(session_id, None)
            raise NotFound(
                f"no active session for {session_id}: context deadline exceeded"
            ) from None

    def close(self) -> None:
        for session in list(self._sessions.values()):
            session.close()
