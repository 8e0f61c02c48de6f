"""COPY and ADD into a tree whose links lead where its maker likes."""

import os
from pathlib import Path

import pytest

from pier.build.copying import Placement, place
from pier.build.ignore import Ignore
from pier.build.sources import Item


@pytest.mark.parametrize(
    "link", ["missing/../..", "missing/..", "../../missing/../..", "missing/."]
)
def test_a_link_that_ends_above_the_tree_leads_into_it(tmp_path: Path, link: str) -> None:
    beside = tmp_path / "beside"
    beside.write_text("the host's")
    tree, source = tmp_path / "tree", tmp_path / "source"
    tree.mkdir()
    (tree / "inner").mkdir()
    source.mkdir()
    (source / "file").write_text("new")
    (tree / "link").symlink_to(link)
    root_fd, source_fd = (os.open(path, os.O_RDONLY | os.O_DIRECTORY) for path in (tree, source))
    try:
        items = [(Item(source_fd, b"file", Ignore(())), b"")]
        place(root_fd, items, Placement("/link", replace=True))
    finally:
        os.close(root_fd)
        os.close(source_fd)
    assert beside.read_text() == "the host's"
    assert (tree / "inner").is_dir()
    assert [path.read_text() for path in tree.rglob("*") if path.is_file()] == ["new"]
