import asyncio
from concurrent.futures import ThreadPoolExecutor

import pytest

from pier.engine.progress import stream_progress
from pier.errors import InvalidParameter


def collect(work):
    async def main():
        lines = []
        with ThreadPoolExecutor(1) as executor:
            stream = stream_progress(work, executor)
            try:
                while True:
                    lines.append(await anext(stream))
            except StopAsyncIteration:
                return lines
            except InvalidParameter as exc:
                return [*lines, exc]

    return asyncio.run(main())


def test_lines_in_order():
    def work(tell):
        for number in range(1000):
            tell({"n": number})

    assert collect(work) == [b'{"n":%d}\r\n' % number for number in range(1000)]


def test_a_failure_comes_last():
    failure = InvalidParameter("no")

    def work(tell):
        tell({"status": "so far"})
        raise failure

    assert collect(work) == [b'{"status":"so far"}\r\n', failure]


@pytest.mark.parametrize("count", [0, 1])
def test_work_goes_on_without_a_reader(count):
    finished = []

    def work(tell):
        for number in range(3):
            tell(number)
        finished.append(True)

    async def main():
        with ThreadPoolExecutor(1) as executor:
            stream = stream_progress(work, executor)
            for _ in range(count):
                await anext(stream)
            await stream.aclose()

    asyncio.run(main())
    assert finished == [True] * count
