import pytest

from pier.engine.status import human_duration, status_text
from pier.model.container import ContainerState
from pier.model.gotime import SECOND, parse_rfc3339

MINUTE, HOUR, DAY = 60, 3600, 86400


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "Less than a second"),
        (1, "1 second"),
        (45, "45 seconds"),
        (60, "About a minute"),
        (119, "About a minute"),
        (3 * MINUTE, "3 minutes"),
        (59 * MINUTE, "59 minutes"),
        (60 * MINUTE, "About an hour"),
        (89 * MINUTE, "About an hour"),
        (90 * MINUTE, "2 hours"),
        (47 * HOUR, "47 hours"),
        (3 * DAY, "3 days"),
        (14 * DAY, "2 weeks"),
        (60 * DAY, "2 months"),
        (800 * DAY, "2 years"),
    ],
)
def test_durations(seconds, text):
    assert human_duration(seconds * SECOND) == text


AT = "2026-01-01T00:00:00Z"
LATER = parse_rfc3339("2026-01-01T00:00:05.9Z")


@pytest.mark.parametrize(
    ("state", "text"),
    [
        (ContainerState(), "Created"),
        (ContainerState(Status="running", StartedAt=AT), "Up 5 seconds"),
        (ContainerState(Status="paused", StartedAt=AT), "Up 5 seconds (Paused)"),
        (
            ContainerState(Status="restarting", ExitCode=1, StartedAt=AT, FinishedAt=AT),
            "Restarting (1) 5 seconds ago",
        ),
        (
            ContainerState(Status="exited", ExitCode=137, StartedAt=AT, FinishedAt=AT),
            "Exited (137) 5 seconds ago",
        ),
        (ContainerState(Status="removing"), "Removal In Progress"),
        (ContainerState(Status="dead"), "Dead"),
    ],
)
def test_status_texts(state, text):
    assert status_text(state, LATER) == text
