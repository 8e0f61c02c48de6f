"""The life cycle of a container: every state, every move, in one table.

Decides, and does not act: what a move does to the world is elsewhere (`lifecycle`, `exits`,
`removal`). An illegal move raises and changes nothing.

    created ──started──▶ running ──paused──▶ paused
       │  ▲                │ ▲ │ ◀──resumed──  │
       │  └─start failed   │ │ │               │
       │                   │ │ └──exited───────┴──▶ exited ──started──▶ running
       │     will restart──┘ └started──             │
       │              └▶ restarting ──gave up──────▶│
       └──────────────── removing ◀─────────────────┘  ──remove failed──▶ dead
"""

from enum import Enum

from pier.errors import Internal
from pier.model.container import ContainerState, Status


class Move(Enum):
    """What happens to a container. The value reads well in a message."""

    STARTED = "started"
    START_FAILED = "start failed"
    PAUSED = "paused"
    RESUMED = "resumed"
    EXITED = "exited"
    WILL_RESTART = "will restart"
    GAVE_UP = "gave up restarting"
    REMOVING = "removing"
    REMOVE_FAILED = "remove failed"


TRANSITIONS: dict[tuple[Status, Move], Status] = {
    ("created", Move.STARTED): "running",
    ("created", Move.START_FAILED): "created",
    ("created", Move.REMOVING): "removing",
    ("running", Move.PAUSED): "paused",
    ("running", Move.EXITED): "exited",
    ("running", Move.WILL_RESTART): "restarting",
    ("paused", Move.RESUMED): "running",
    ("paused", Move.EXITED): "exited",
    ("paused", Move.WILL_RESTART): "restarting",
    ("restarting", Move.STARTED): "running",
    ("restarting", Move.GAVE_UP): "exited",
    ("exited", Move.STARTED): "running",
    ("exited", Move.START_FAILED): "exited",
    ("exited", Move.REMOVING): "removing",
    ("removing", Move.REMOVE_FAILED): "dead",
    ("dead", Move.REMOVING): "removing",
}

ALIVE: frozenset[Status] = frozenset({"running", "paused"})
"""There are processes."""

RUNNING: frozenset[Status] = ALIVE | {"restarting"}
"""What Docker's `State.Running` is true for: a restarting container counts."""


def move(state: ContainerState, what: Move) -> None:
    """Apply a move: set `Status` and the flags that say the same. Raises Internal when illegal."""
    after = TRANSITIONS.get((state.Status, what))
    if after is None:
        raise Internal(f"a container that is {state.Status} cannot become {what.value}")
    state.Status = after
    state.Running = after in RUNNING
    state.Paused = after == "paused"
    state.Restarting = after == "restarting"
    state.Dead = after == "dead"
    if after not in ALIVE:
        state.Pid = 0
