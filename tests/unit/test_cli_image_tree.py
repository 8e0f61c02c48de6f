"""`pier images --tree` on terminals of any width."""

from typing import Any

import pytest

from pier.cli.image_tree import tree_lines


def image(*names: str, platforms: tuple[str, ...] = ("amd64",)) -> dict[str, Any]:
    children = [
        {
            "ID": "sha256:" + "b" * 64,
            "Kind": "image",
            "Size": {"Total": 3_000_000, "Content": 1_000_000},
            "ImageData": {"Platform": {"os": "linux", "architecture": name}, "Containers": []},
        }
        for name in platforms
    ]
    attestation = {"ID": "sha256:" + "c" * 64, "Kind": "attestation"}
    return {
        "Id": "sha256:" + "a" * 64,
        "RepoTags": list(names),
        "Created": 0,
        "Size": 2_000_000,
        "Containers": 1,
        "Manifests": [*children, attestation],
    }


def test_platforms_hang_below_their_image() -> None:
    lines = tree_lines([image("b:1", "longer/a:1", platforms=("amd64", "arm64"))], 80)[3:]
    assert lines == [
        "IMAGE                ID             DISK USAGE   CONTENT SIZE   EXTRA",
        "longer/a:1",
        "b:1                  aaaaaaaaaaaa          2MB            2MB   U    ",
        "├─ linux/amd64       bbbbbbbbbbbb          3MB            1MB        ",
        "└─ linux/arm64       bbbbbbbbbbbb          3MB            1MB        ",
        "",
    ]


@pytest.mark.parametrize(
    ("width", "title"),
    [
        (20, "IMAGE               "),
        (30, "IMAGE             ID          "),
        (45, "IMAGE               ID             DISK USAGE"),
    ],
)
def test_narrow_terminals_have_fewer_columns(width: int, title: str) -> None:
    lines = tree_lines([image("a-name/that-is:long", platforms=("amd64", "arm64"))], width)[3:]
    assert lines[0].split() == title.split()
    assert all(len(line) <= width for line in lines)


def test_a_name_without_room_is_cut_and_an_image_without_a_name_said_to_be_so() -> None:
    lines = tree_lines([image("a" * 40), image()], 30)
    assert [line.split()[0] for line in lines[4:] if line] == [
        "a" * 14 + "…",
        "└─",
        "<untagged>",
        "└─",
    ]
