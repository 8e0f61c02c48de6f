from typing import get_args

import pytest

from pier.engine.states import ALIVE, RUNNING, TRANSITIONS, Move, move
from pier.errors import Internal
from pier.model.container import ContainerState, Status

STATUSES = get_args(Status)


@pytest.mark.parametrize("status", STATUSES)
@pytest.mark.parametrize("what", list(Move))
def test_every_move_from_every_state(status, what):
    """Legal moves set the flags that Docker shows; illegal ones change nothing."""
    state = ContainerState(Status=status, Pid=7)
    after = TRANSITIONS.get((status, what))
    if after is None:
        with pytest.raises(Internal):
            move(state, what)
        assert state == ContainerState(Status=status, Pid=7)
        return
    move(state, what)
    assert state.Status == after
    assert (state.Running, state.Paused) == (after in RUNNING, after == "paused")
    assert (state.Restarting, state.Dead) == (after == "restarting", after == "dead")
    assert bool(state.Pid) == (after in ALIVE)


def test_every_state_can_be_reached_and_left():
    assert set(TRANSITIONS.values()) == set(STATUSES)
    assert {before for before, _ in TRANSITIONS} == set(STATUSES)
