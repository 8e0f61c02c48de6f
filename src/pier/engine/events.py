"""What happens, told to those who listen, and the last of it to those who come late.

Actions and attributes are dockerd's (docs.docker.com/reference/cli/docker/system/events): a
container's events carry its labels, image and name. Nothing here blocks or fails: a listener that
does not keep up loses its oldest events rather than hold up the engine.
"""

import asyncio
import re
from collections import deque
from collections.abc import AsyncIterator, Mapping

from pier.model.container import ContainerRecord
from pier.model.events import Actor, Event
from pier.model.filters import Filters
from pier.model.gotime import SECOND, now_ns

KEPT = 256
QUEUED = 4096
FILTERS = frozenset(
    {
        *("config", "container", "daemon", "event", "image", "label", "network", "node", "plugin"),
        *("scope", "secret", "service", "type", "volume"),
    }
)
_ACTION_HEAD = re.compile(r"^(exec_\w+|health_status):")


class Events:
    def __init__(self) -> None:
        self._kept: deque[Event] = deque(maxlen=KEPT)
        self._listeners: set[_Listener] = set()

    @property
    def listener_count(self) -> int:
        return len(self._listeners)

    def publish(self, type_: str, action: str, actor_id: str, attributes: dict[str, str]) -> None:
        """Tell an event that happens now."""
        at = now_ns()
        event = Event(
            Type=type_,
            Action=action,
            Actor=Actor(ID=actor_id, Attributes=attributes),
            scope="local",
            time=at // SECOND,
            timeNano=at,
        )
        if type_ in ("container", "image"):
            event.status, event.id = action, actor_id
            event.from_ = attributes.get("image", "")
        self._kept.append(event)
        for listener in self._listeners:
            listener.offer(event)

    def container(
        self, record: ContainerRecord, action: str, more: Mapping[str, str] | None = None
    ) -> None:
        """Tell an event of a container, with the attributes that all of them have."""
        attributes = dict(record.Config.Labels)
        if record.Config.Image:
            attributes["image"] = record.Config.Image
        attributes["name"] = record.Name
        if more:
            attributes.update(more)
        self.publish("container", action, record.Id, attributes)

    def subscribe(
        self, *, since: int | None, until: int | None, filters: Filters
    ) -> AsyncIterator[Event]:
        """Return the events from now on, after those kept since `since`, until `until`.

        With `until` alone all those kept come first, as dockerd has it.
        Both are nanoseconds since the epoch, None when open. Listening begins with this call, not
        with the first iteration.
        """
        listener = _Listener(filters)
        if since is not None or until is not None:
            for event in self._kept:
                if event.timeNano >= (since or 0) and (until is None or event.timeNano <= until):
                    listener.offer(event)
        self._listeners.add(listener)
        return self._listen(listener, until)

    async def _listen(self, listener: "_Listener", until: int | None) -> AsyncIterator[Event]:
        try:
            while True:
                timeout = None if until is None else max(0.0, (until - now_ns()) / SECOND)
                event = await listener.take(timeout)
                if event is None or (until is not None and event.timeNano > until):
                    return
                yield event
        finally:
            self._listeners.discard(listener)


class _Listener:
    """The queue of one subscriber, with what it wants."""

    def __init__(self, filters: Filters) -> None:
        self._filters = filters
        self._queue: deque[Event] = deque(maxlen=QUEUED)
        self._arrived = asyncio.Event()

    def offer(self, event: Event) -> None:
        if matches(self._filters, event):
            self._queue.append(event)
            self._arrived.set()

    async def take(self, timeout_s: float | None) -> Event | None:
        """Wait for the next event; None when the time is up and none is queued."""
        while not self._queue:
            self._arrived.clear()
            try:
                async with asyncio.timeout(timeout_s):
                    await self._arrived.wait()
            except TimeoutError:
                return None
        return self._queue.popleft()


def matches(filters: Filters, event: Event) -> bool:
    """Tell whether an event is wanted. Filters by object ("container=x") match names and IDs."""
    if not filters:
        return True
    attributes = event.Actor.Attributes
    return (
        filters.exact("type", event.Type)
        and filters.exact("scope", event.scope)
        and _matches_action(filters, event)
        and filters.labels(attributes)
        and all(
            _matches_object(filters, kind, event)
            for kind in ("container", "daemon", "network", "plugin", "volume")
        )
        and _matches_image(filters, event)
    )


def _matches_action(filters: Filters, event: Event) -> bool:
    """`event=exec_start` also means "exec_start: sh -c …"."""
    head = _ACTION_HEAD.match(event.Action)
    return filters.exact("event", event.Action) or (
        head is not None and filters.exact("event", head[1])
    )


def _matches_object(filters: Filters, kind: str, event: Event) -> bool:
    wanted = filters.get(kind)
    if not wanted:
        return True
    if event.Type != kind:
        return False
    name = event.Actor.Attributes.get("name", "")
    return any(event.Actor.ID.startswith(value) or name == value for value in wanted)


def _matches_image(filters: Filters, event: Event) -> bool:
    """An image's name matches with and without its tag, and also its containers' events."""
    wanted = filters.get("image")
    if not wanted:
        return True
    if event.Type not in ("image", "container"):
        return False
    key = "name" if event.Type == "image" else "image"
    name = event.Actor.Attributes.get(key, "")
    known = {name, _without_tag(name)}
    if event.Type == "image":
        known |= {event.Actor.ID, _without_tag(event.Actor.ID)}
    return not known.isdisjoint(wanted)


def _without_tag(reference: str) -> str:
    name, colon, tag = reference.rpartition(":")
    return name if colon and "/" not in tag else reference
