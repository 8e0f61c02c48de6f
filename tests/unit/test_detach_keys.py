import pytest

from pier.errors import InvalidParameter
from pier.model.detach_keys import parse_detach_keys


@pytest.mark.parametrize(
    ("text", "keys"),
    [
        ("", b"\x10\x11"),
        ("ctrl-p,ctrl-q", b"\x10\x11"),
        ("a", b"a"),
        ("ctrl-a,a", b"\x01a"),
        ("ctrl-@", b"\0"),
        ("ctrl-\\", b"\x1c"),
        ("CTRL-_", b"\x1f"),
        ("DEL", b"\x7f"),
    ],
)
def test_keys(text, keys):
    assert parse_detach_keys(text) == keys


@pytest.mark.parametrize("text", ["ctrl-", "ctrl-1", "ab", "é", "a,,b"])
def test_what_is_no_key_is_refused(text):
    with pytest.raises(InvalidParameter, match="Invalid detach keys"):
        parse_detach_keys(text)
