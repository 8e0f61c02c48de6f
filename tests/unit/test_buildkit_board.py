"""What builds tell, for those who listen from the beginning and those who come later."""

import asyncio

from pier.build.progress import Log, Place, Source, Status, Vertex, Warned
from pier.buildkit.board import MAX_LOG_BYTES, Board
from pier.buildkit.messages import control


async def _heard(board: Board) -> list[control.StatusResponse]:
    return [response async for response in board.listen()]


def test_everybody_hears_all_of_it() -> None:
    async def run() -> None:
        board = Board()
        early = asyncio.ensure_future(_heard(board))
        board.vertex(Vertex("sha256:1", "[1/1] RUN true", started=5))
        await asyncio.sleep(0)
        board.log(Log("sha256:1", b"out\n", 1, 6))
        board.status(Status("part", "sha256:1", current=3, timestamp=7, started=6))
        board.warn(
            Warned("sha256:1", "Rule: x", ["d"], "u", 1, Source("Dockerfile", b"x"), [Place(1, 2)])
        )
        board.vertex(Vertex("sha256:1", "[1/1] RUN true", started=5, completed=9, error="e"))
        board.close()
        for found in (await early, await _heard(board)):
            assert [v.completed for r in found for v in r.vertexes] == [0, 9]
            assert [log.msg for r in found for log in r.logs] == [b"out\n"]
            assert [(s.ID, s.current) for r in found for s in r.statuses] == [("part", 3)]
            (warning,) = [w for r in found for w in r.warnings]
            assert warning.info is not None
            assert (warning.short, warning.info.filename) == (b"Rule: x", "Dockerfile")
            assert warning.ranges[0].end is not None
            assert warning.ranges[0].end.line == 2
        assert control.StatusResponse.decode(board.whole().encode()) == board.whole()

    asyncio.run(run())


def test_failures_are_in_buildkits_words() -> None:
    async def run() -> None:
        board = Board()
        text = "The command '/bin/sh -c false' returned a non-zero code: 1"
        board.vertex(Vertex("sha256:1", "x", error=text))
        words = 'process "/bin/sh -c false" did not complete successfully: exit code: 1'
        assert board.vertexes()["sha256:1"].error == words

    asyncio.run(run())


def test_a_steps_log_is_clipped() -> None:
    async def run() -> None:
        board = Board()
        for _ in range(5):
            board.log(Log("sha256:1", b"x" * (1 << 20)))
        board.log(Log("sha256:2", b"other"))
        logs = board.whole().logs
        said = b"".join(log.msg for log in logs if log.vertex == "sha256:1")
        assert said.count(b"x") == MAX_LOG_BYTES
        assert said.endswith(b"[output clipped, log limit 2MiB reached]\n")
        assert logs[-1].msg == b"other"

    asyncio.run(run())
