"""Events as `GET /events` sends them (docker-engine-api-v1.51.yaml, `EventMessage`)."""

from msgspec import Struct


class Actor(Struct):
    """`ID` is the object's; `Attributes` are its labels, and what the action adds."""

    ID: str
    Attributes: dict[str, str]


class Event(Struct, omit_defaults=True, rename={"from_": "from"}):
    """One event; `time` is in seconds, `timeNano` in nanoseconds since the epoch.

    `status`, `id` and `from` repeat the action, the actor and the image of container and image
    events: clients older than API 1.22 know only those, and current ones still get them.
    """

    Type: str
    Action: str
    Actor: "Actor"
    scope: str
    time: int
    timeNano: int
    status: str = ""
    id: str = ""
    from_: str = ""
