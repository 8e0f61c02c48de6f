"""--chmod as chmod(1) has it."""

import os
import shutil
import stat
import subprocess

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pier.build.chmod import parse_chmod
from pier.build.git import GitSource, parse_git
from pier.errors import InvalidParameter

CLAUSE = st.builds(
    lambda who, actions: who + "".join(actions),
    st.text("ugoa", min_size=1, max_size=3),
    st.lists(
        st.one_of(
            st.tuples(st.sampled_from("-+="), st.text("rwxXst", max_size=4)).map("".join),
            st.tuples(st.sampled_from("-+="), st.sampled_from("ugo")).map("".join),
        ),
        min_size=1,
        max_size=2,
    ),
)


@given(st.lists(CLAUSE, min_size=1, max_size=3).map(",".join), st.integers(0, 0o777))
@settings(max_examples=60, deadline=None)
def test_like_the_command(tmp_path_factory, text, mode):
    if not shutil.which("chmod"):
        pytest.skip("no chmod command")
    path = tmp_path_factory.mktemp("x") / "f"
    path.touch()
    os.chmod(path, mode)
    subprocess.run(("chmod", "--", text, path), check=True)
    change = parse_chmod(text)
    assert change is not None
    assert oct(change(mode, False)) == oct(stat.S_IMODE(path.stat().st_mode))


@pytest.mark.parametrize(
    ("text", "mode", "is_directory", "wanted"),
    [
        ("755", 0, False, 0o755),
        ("04711", 0, True, 0o4711),
        ("a+X", 0o600, True, 0o711),
        ("a+X", 0o600, False, 0o600),
        ("=r", 0o777, False, 0o444),
        ("g=u", 0o640, False, 0o660),
    ],
)
def test_modes(text, mode, is_directory, wanted):
    change = parse_chmod(text)
    assert change is not None
    assert change(mode, is_directory) == wanted


@pytest.mark.parametrize("text", ["8", "10000", "u+", "u", "+q", "u+r,", "a=rw,x", "-1", "0x1"])
def test_wrong(text):
    if text == "u+":
        assert parse_chmod(text) is not None  # as chmod(1): nothing is added
        return
    with pytest.raises(InvalidParameter, match="invalid chmod parameter"):
        parse_chmod(text)


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("https://h/x.git", GitSource("https://h/x.git")),
        ("https://h/x.git#v1:sub/d", GitSource("https://h/x.git", "v1", "sub/d")),
        ("http://h/x.git#:sub", GitSource("http://h/x.git", "", "sub")),
        ("git@h.example:u/x", GitSource("git@h.example:u/x")),
        ("ssh://git@h/x#b", GitSource("ssh://git@h/x", "b")),
        ("git://h/x", GitSource("git://h/x")),
        ("github.com/u/x", GitSource("https://github.com/u/x")),
        ("https://h/x.tar.gz", None),
        ("https://h/x", None),
        ("file.git", None),
        ("./github.com/x", None),
    ],
)
def test_repositories(text, wanted):
    assert parse_git(text) == wanted
