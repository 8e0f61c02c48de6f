"""The lean stand-ins of `pier.kernel.lean` do what the standard library's do."""

import json as real
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pier.kernel.lean import json, suppress

VALUES: Any = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@given(VALUES)
def test_what_is_written_is_what_json_writes(value: Any) -> None:
    assert json.dumps(value) == real.dumps(value)
    tight = json.dumps(value, separators=(",", ":"))
    assert tight == real.dumps(value, separators=(",", ":"))
    assert json.loads(tight) == json.loads(tight.encode()) == value


def test_what_python_reads_beside_the_standard() -> None:
    assert json.loads(" [1, Infinity] \n") == [1, math.inf]
    assert math.isnan(json.loads("NaN"))


@pytest.mark.parametrize("text", ["", " ", "{", "[1,]", "1 2", "nul", '"\\x"', b"\xff", "{1:2}"])
def test_what_is_no_json_is_a_value_error(text: str | bytes) -> None:
    with pytest.raises(ValueError):  # noqa: PT011
        real.loads(text)
    with pytest.raises(ValueError):  # noqa: PT011
        json.loads(text)


def test_what_json_has_no_words_for() -> None:
    with pytest.raises(TypeError, match="Object of type bytes is not JSON serializable"):
        json.dumps({"a": b""})


def test_suppress() -> None:
    with suppress(KeyError, OSError):
        raise FileNotFoundError
    with pytest.raises(ValueError, match="x"), suppress(OSError):
        raise ValueError("x")
    with suppress(OSError):
        pass
