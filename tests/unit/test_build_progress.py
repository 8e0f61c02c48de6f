"""Vertexes as their makers tell them."""

import asyncio

import pytest

from pier.build.failures import BuildFailed
from pier.build.progress import Log, Silent, Status, Vertex, Warned, Work, working
from pier.build.session import need


class Heard(Silent):
    def __init__(self) -> None:
        self.vertexes: list[Vertex] = []
        self.logs: list[Log] = []
        self.statuses: list[Status] = []
        self.warnings: list[Warned] = []

    def vertex(self, vertex: Vertex) -> None:
        self.vertexes.append(vertex)

    def log(self, log: Log) -> None:
        self.logs.append(log)

    def status(self, status: Status) -> None:
        self.statuses.append(status)


def test_a_vertex_begins_and_ends() -> None:
    heard = Heard()
    with working(heard, "[1/2] FROM a") as work:
        work.log(b"x", is_error=True)
        with work.part("extracting"):
            pass
    begun, ended = heard.vertexes
    assert begun.started
    assert not begun.completed
    assert ended.started == begun.started
    assert ended.completed >= ended.started
    assert not ended.error
    assert not ended.cached
    assert heard.logs[0].stream == 2
    assert heard.logs[0].vertex == begun.digest
    first, second = heard.statuses
    assert (first.id, first.completed) == ("extracting", 0)
    assert second.started == first.started
    assert second.completed


def test_the_end_is_told_once() -> None:
    heard = Heard()
    with working(heard, "[2/2] RUN true") as work:
        work.done(cached=True)
    assert [v.cached for v in heard.vertexes] == [False, True]


@pytest.mark.parametrize(
    ("failure", "text"),
    [(BuildFailed("no such file"), "no such file"), (asyncio.CancelledError(), "context canceled")],
)
def test_a_failure_is_the_vertexs_error(failure: BaseException, text: str) -> None:
    heard = Heard()
    with pytest.raises(type(failure)), working(heard, "x"):
        raise failure
    assert heard.vertexes[-1].error == text


def test_keys_tell_vertexes_of_one_name_apart() -> None:
    heard = Heard()
    for key in ("a", "b"):
        with working(heard, "RUN true", key=key) as work:
            assert isinstance(work, Work)
    assert len({v.digest for v in heard.vertexes}) == 2


def test_without_a_session_a_secret_cannot_be_had() -> None:
    with pytest.raises(BuildFailed, match="secret token: no active sessions"):
        need(None, "secret token")
