import pytest

from pier.engine.names import check_name, random_name
from pier.engine.signals import parse_signal
from pier.errors import InvalidParameter


@pytest.mark.parametrize("name", ["web", "/web", "a1", "Web_1.x-y", "0a", "a" * 300])
def test_names_that_are_allowed(name):
    assert check_name(name) == name.removeprefix("/")


@pytest.mark.parametrize(
    "name", ["", "/", "a", "-a", "_a", "a b", "a/b", "//ab", "ä1", "ab\n", "a:"]
)
def test_names_that_are_not(name):
    with pytest.raises(InvalidParameter) as failure:
        check_name(name)
    assert failure.value.message == (
        f"Invalid container name ({name}), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed"
    )


def test_random_names_are_names_and_free():
    taken = set()
    for _ in range(500):
        name = random_name(taken)
        assert check_name(name) == name
        assert name not in taken
        taken.add(name)


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("SIGKILL", 9),
        ("kill", 9),
        ("Term", 15),
        ("9", 9),
        ("15", 15),
        ("USR1", 10),
        ("SIGRTMIN", 34),
        ("RTMIN+3", 37),
        ("SIGRTMAX-2", 62),
        ("rtmax", 64),
        ("37", 37),
    ],
)
def test_signals(text, number):
    assert parse_signal(text) == number


@pytest.mark.parametrize(
    "text", ["", "0", "65", "-1", "FOO", "SIG", "SIG9", "RTMIN-1", "RTMIN+31", "RTMINx", "1.5", "²"]
)
def test_signals_that_do_not_exist(text):
    with pytest.raises(InvalidParameter, match=r"^invalid signal: "):
        parse_signal(text)
