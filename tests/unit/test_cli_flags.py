"""Cutting a command line as pflag does, and the grammars of values."""

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pier.cli import kinds
from pier.cli.flags import Flag, FlagError, describe, parse
from pier.cli.units import binary_size, human_duration, human_size, query_time

FLAGS = (
    Flag("interactive", kinds.BOOL, "Keep it open", short="i"),
    Flag("tty", kinds.BOOL, "A terminal", short="t"),
    Flag("env", kinds.ENV, "Variables", short="e"),
    Flag("name", kinds.STRING, "Its name"),
    Flag("memory", kinds.BYTES, "Limit", short="m"),
    Flag("old", kinds.STRING, "", deprecated="use --name instead", alias="name"),
)


@pytest.mark.parametrize(
    ("line", "expected", "args"),
    [
        ("-it x", {"interactive": True, "tty": True}, ["x"]),
        ("-it=false", {"interactive": True, "tty": False}, []),
        ("-ieA=1", {"interactive": True, "env": ["A=1"]}, []),
        ("-e A=1 -e=B=2 --env C=3 --env=D=4", {"env": ["A=1", "B=2", "C=3", "D=4"]}, []),
        ("--name= x", {"name": ""}, ["x"]),
        ("--name -- x", {"name": "--"}, ["x"]),
        ("--interactive=false", {"interactive": False}, []),
        ("-- -i", {"interactive": False}, ["-i"]),
        ("a -i b", {"interactive": False}, ["a", "-i", "b"]),
        ("- -i", {"interactive": False}, ["-", "-i"]),
        ("-m1g --old y", {"memory": 1 << 30, "name": "y"}, []),
    ],
)
def test_cuts(line, expected, args):
    options = parse(FLAGS, line.split(), interspersed=False)
    values = {name: options._values[name] for name in expected}
    assert values == expected
    assert options.args == args


def test_interspersed_flags_follow_arguments():
    options = parse(FLAGS, ["a", "-i", "b", "--", "-t"])
    assert options.on("interactive")
    assert not options.on("tty")
    assert options.args == ["a", "b", "-t"]


def test_deprecated_flag_is_noted():
    options = parse(FLAGS, ["--old", "x"])
    assert options.text("name") == "x"
    assert options.notes == ["Flag --old has been deprecated, use --name instead"]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("--foo", "unknown flag: --foo"),
        ("--foo=1", "unknown flag: --foo"),
        ("-x", "unknown shorthand flag: 'x' in -x"),
        ("-ix", "unknown shorthand flag: 'x' in -ix"),
        ("--name", "flag needs an argument: --name"),
        ("-e", "flag needs an argument: 'e' in -e"),
        ("-ie", "flag needs an argument: 'e' in -ie"),
        ("---x", "bad flag syntax: ---x"),
        ("--=x", "bad flag syntax: --=x"),
        ("-m x", 'invalid argument "x" for "-m, --memory" flag: invalid size: \'x\''),
        (
            "-i=maybe",
            (
                'invalid argument "maybe" for "-i, --interactive" flag: '
                'strconv.ParseBool: parsing "maybe": invalid syntax'
            ),
        ),
    ],
)
def test_refuses(line, message):
    with pytest.raises(FlagError) as caught:
        parse(FLAGS, line.split())
    assert str(caught.value) == message


@given(st.lists(st.text(max_size=8)))
def test_any_line_is_cut_or_refused(words):
    with suppress(FlagError):
        parse(FLAGS, words)


def test_help_wraps():
    text = describe((Flag("name", kinds.STRING, "word " * 30, short="n"),), 60)
    first, *rest = text.rstrip("\n").split("\n")
    assert first.startswith("  -n, --name string   word word")
    assert all(line.startswith(" " * 22 + "word") for line in rest)
    assert all(len(line) <= 60 for line in [first, *rest])


@pytest.mark.parametrize(
    ("text", "nanoseconds"),
    [
        ("1s", 10**9),
        ("1m30s", 90 * 10**9),
        ("1.5h", 5400 * 10**9),
        ("10us", 10_000),
        ("0", 0),
        ("-2ms", -2_000_000),
        ("1h2m3s4ms", 3723004 * 10**6),
    ],
)
def test_durations(text, nanoseconds):
    assert kinds.parse_duration(text) == nanoseconds


@given(st.text(max_size=12))
def test_durations_never_crash(text):
    with suppress(ValueError):
        kinds.parse_duration(text)


@given(st.integers(min_value=-(2**63), max_value=2**63 - 1))
def test_integers_round_trip(value):
    assert kinds.parse_integer(str(value)) == value
    assert kinds.parse_integer(hex(value)) == value


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "Less than a second"),
        (1, "1 second"),
        (59, "59 seconds"),
        (60, "About a minute"),
        (120, "2 minutes"),
        (3599, "59 minutes"),
        (3600, "About an hour"),
        (5399, "About an hour"),
        (5400, "2 hours"),
        (47 * 3600, "47 hours"),
        (48 * 3600, "2 days"),
        (14 * 86400, "2 weeks"),
        (60 * 86400, "2 months"),
        (730 * 86400, "2 years"),
    ],
)
def test_human_durations(seconds, text):
    assert human_duration(seconds) == text


@pytest.mark.parametrize(
    ("size", "decimal", "binary"),
    [
        (0, "0B", "0B"),
        (999, "999B", "999B"),
        (1000, "1kB", "1000B"),
        (1234, "1.23kB", "1.205KiB"),
        (123456, "123kB", "120.6KiB"),
        (5678901, "5.68MB", "5.416MiB"),
        (4123456789, "4.12GB", "3.84GiB"),
    ],
)
def test_human_sizes(size, decimal, binary):
    assert human_size(size) == decimal
    assert binary_size(size) == binary


def test_query_times():
    assert query_time("1748606834.5") == "1748606834.5"
    assert query_time("2025-01-01T10:00:00.5+02:00") == "1735718400.500000000"
    assert query_time("2025-01-01T10:00:00Z") == "1735725600.000000000"
    with pytest.raises(ValueError, match="failed to parse value as time or duration"):
        query_time("yesterday")
