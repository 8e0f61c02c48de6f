"""Output: through the client as it comes, into the log, and out of the log again."""

from collections.abc import Iterator

from rows import Row, take_turns
from sides import Bench

from busybox_image import NAME

STREAM_BYTES = 200_000_000
LINE = "0123456789" * 7 + "\n"
assert len(LINE) == 71
WRITER = ("sh", "-c", f"yes '{LINE.strip()}' | head -c {STREAM_BYTES}")
# Of a size that holds all of it: Pier's default keeps a log bounded.
KEPT = ("--log-driver", "json-file", "--log-opt", "max-size=1g")


def attached(bench: Bench) -> Iterator[Row]:
    """Without a log, so that the stream alone is what is compared."""
    row = Row("200 MB of 71-byte lines, `docker run … >/dev/null`", goal=3)
    command = ("run", "--rm", "--network", "none", NAME, *WRITER)
    yield take_turns(row, bench.few, bench.command(*command), warm_up=1)


def logged(bench: Bench) -> Iterator[Row]:
    """`docker wait` is part of it: from the start to the last byte in the log. Then reading."""
    names = ("create", "--network", "none", *KEPT, "--name", "writer", NAME, *WRITER)
    bench.both(*names)
    try:
        row = Row("200 MB of 71-byte lines into json-file's log", goal=5)
        sides = {}
        for side in bench.clients:

            def once(side: str = side) -> float:
                return sum(bench.command(*words)[side]() for words in WORDS)

            sides[side] = once
        yield take_turns(row, 1, sides, warm_up=0)
        row = Row("`docker logs` of it", goal=8)
        yield take_turns(row, 2, bench.command("logs", "writer"), warm_up=0)
    finally:
        bench.both("rm", "-f", "writer")


WORDS = (("start", "writer"), ("wait", "writer"))
