"""Events: what is kept, who gets what, when listening ends."""

import asyncio

import pytest

from pier.engine.events import KEPT, Events, matches
from pier.model.events import Actor, Event
from pier.model.filters import Filters
from pier.model.gotime import SECOND, now_ns

ANY = Filters()


def publish(events, *actions):
    for action in actions:
        events.publish(
            "container", action, "c1", {"name": "web", "image": "busybox:1", "tier": "a"}
        )


async def collect(events, **query):
    options = {"since": None, "until": now_ns(), "filters": ANY} | query
    return [event.Action async for event in events.subscribe(**options)]


def test_only_what_happens_from_now_on_without_a_time():
    async def main():
        events = Events()
        publish(events, "create")
        stream = events.subscribe(since=None, until=None, filters=ANY)
        publish(events, "start")
        first = (await anext(stream)).Action
        await stream.aclose()
        return first

    assert asyncio.run(main()) == "start"


def test_until_alone_begins_with_all_that_is_kept():
    async def main():
        events = Events()
        publish(events, "create", "start")
        return await collect(events)

    assert asyncio.run(main()) == ["create", "start"]


def test_the_past_is_given_since():
    async def main():
        events = Events()
        for number in range(KEPT + 10):
            publish(events, f"a{number}")
        return await collect(events, since=0)

    assert asyncio.run(main()) == [f"a{number}" for number in range(10, KEPT + 10)]


def test_listening_begins_with_the_call():
    async def main():
        events = Events()
        stream = events.subscribe(since=None, until=None, filters=ANY)
        publish(events, "create", "start")
        assert events.listener_count == 1
        seen = [(await anext(stream)).Action, (await anext(stream)).Action]
        await stream.aclose()
        assert events.listener_count == 0
        return seen

    assert asyncio.run(main()) == ["create", "start"]


def test_listening_ends_at_until():
    async def main():
        events = Events()
        stream = events.subscribe(since=None, until=now_ns() + SECOND // 50, filters=ANY)
        publish(events, "create")
        return [event.Action async for event in stream]

    assert asyncio.run(main()) == ["create"]


def test_an_event_has_the_old_fields_too():
    async def main():
        events = Events()
        stream = events.subscribe(since=None, until=None, filters=ANY)
        publish(events, "die")
        event = await anext(stream)
        await stream.aclose()
        return event

    event = asyncio.run(main())
    assert (event.status, event.id, event.from_) == ("die", "c1", "busybox:1")
    assert event.scope == "local"
    assert event.time == event.timeNano // SECOND


CONTAINER = Event(
    Type="container",
    Action="exec_start: sh -c true",
    Actor=Actor(ID="abcdef", Attributes={"name": "web", "image": "busybox:1", "tier": "a"}),
    scope="local",
    time=0,
    timeNano=0,
)
IMAGE = Event(
    Type="image",
    Action="tag",
    Actor=Actor(ID="sha256:12", Attributes={"name": "busybox:1"}),
    scope="local",
    time=0,
    timeNano=0,
)


@pytest.mark.parametrize(
    ("filters", "container", "image"),
    [
        ({}, True, True),
        ({"type": ["container"]}, True, False),
        ({"event": ["exec_start"]}, True, False),
        ({"event": ["exec_start", "tag"]}, True, True),
        ({"event": ["exec"]}, False, False),
        ({"container": ["web"]}, True, False),
        ({"container": ["abc"]}, True, False),
        ({"container": ["we"]}, False, False),
        ({"image": ["busybox"]}, True, True),
        ({"image": ["busybox:1"]}, True, True),
        ({"image": ["busy"]}, False, False),
        ({"label": ["tier=a"]}, True, False),
        ({"label": ["tier=a", "x"]}, False, False),
        ({"scope": ["swarm"]}, False, False),
        ({"volume": ["v"]}, False, False),
    ],
)
def test_filters(filters, container, image):
    parsed = Filters({key: tuple(values) for key, values in filters.items()})
    assert matches(parsed, CONTAINER) is container
    assert matches(parsed, IMAGE) is image
