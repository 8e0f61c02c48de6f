"""`pier images --tree`: each image with the platforms that it has, and what they take.

Drawn as docker does it: the names one below another, the longest first, and beside the last one its
ID, the bytes of its unpacked layers, those of its content as it is kept, and a U when a container is
made of it. Where the terminal is narrow, columns are left out at the right.
"""

import sys

from pier.cli.errors import Failure
from pier.cli.tables import short_id
from pier.cli.terminal import is_terminal, size
from pier.cli.units import human_size

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from pier.cli.flags import Options

_SPACING = 3
_LEAST_NAME = 12
_LEAST_WIDTH = 20
_USUAL_WIDTH = 80
_WARNING = (
    "WARNING: This is an experimental feature. The output may change and shouldn't be depended on."
)
_LEGEND = "Info ->  U In Use "

# Title, width, and whether it is aligned at the right.
_COLUMNS = (
    ("ID", 12, False),
    ("DISK USAGE", 10, True),
    ("CONTENT SIZE", 12, True),
    ("EXTRA", 5, False),
)
_REFUSED = ("quiet", "no-trunc", "digests", "format")
_CALLED = {"digests": "show-digest"}


def refuse_beside_tree(options: "Options") -> None:
    """Raise Failure for the options that a tree cannot have, as docker does."""
    for name in _REFUSED:
        if options.text(name) if name == "format" else options.on(name):
            raise Failure(f"--{_CALLED.get(name, name)} is not yet supported with --tree")


def write_tree(images: "list[dict[str, Any]]", *, untagged: bool) -> None:
    """Write images as the API lists them with `manifests`; those without a name when asked for."""
    shown = [image for image in images if image.get("RepoTags") or untagged]
    shown.sort(key=lambda image: -image["Created"])
    bright = is_terminal(1)
    width = max(size()[1] or _USUAL_WIDTH, _LEAST_WIDTH) if bright else _USUAL_WIDTH
    for line in tree_lines(shown, width, _bold if bright else str):
        sys.stdout.write(line + "\n")


def tree_lines(
    images: "list[dict[str, Any]]", width: int, bold: "Callable[[str], str]" = str
) -> list[str]:
    """Return the lines for a terminal of `width` columns; `bold` makes titles and names stand out."""
    left, columns = width, []
    for column in _COLUMNS:
        left -= column[1] + _SPACING
        if left < _LEAST_NAME:
            left += column[1] + _SPACING
            break
        columns.append(column)
    names = [name for image in images for name in _names(image)]
    platforms = [_branch(image, child) for image in images for child in _children(image)]
    # Bytes, as docker counts: what a branch is drawn with takes seven of them.
    widest = max(len(text.encode()) for text in ("IMAGE", *names, *platforms))
    left = min(left, widest)

    def row(first: str, cells: "tuple[str, ...]") -> str:
        drawn = [first + " " * (left - len(first))]
        for (_, wide, right), cell in zip(columns, cells, strict=False):
            drawn.append(cell.rjust(wide) if right else cell.ljust(wide))
        return (" " * _SPACING).join(drawn)

    lines = [_WARNING, _LEGEND.rjust(width), ""]
    lines.append(bold(row("IMAGE", tuple(title for title, _, _ in _COLUMNS))))
    for image in images:
        children = _children(image)
        used = image.get("Containers", 0) > 0 or any(_is_used(child) for child in children)
        content = sum(child["Size"]["Content"] for child in children)
        *above, last = sorted(_names(image), key=len, reverse=True) or ["<untagged>"]
        lines += [bold(_cut(name, width)) for name in above]
        name = _cut(last, left)
        drawn = row(name, _cells(image["Id"], image["Size"], content, used=used))
        lines.append(bold(drawn[: len(name)]) + drawn[len(name) :])
        for child in children:
            total, content = child["Size"]["Total"], child["Size"]["Content"]
            cells = _cells(child["ID"], total, content, used=_is_used(child))
            lines.append(row(_cut(_branch(image, child), left), cells))
        lines.append("")
    return lines


def _names(image: "dict[str, Any]") -> list[str]:
    return image.get("RepoTags") or []


def _children(image: "dict[str, Any]") -> "list[dict[str, Any]]":
    return [m for m in image.get("Manifests") or () if m.get("Kind") == "image"]


def _is_used(child: "dict[str, Any]") -> bool:
    return bool(child["ImageData"].get("Containers"))


def _branch(image: "dict[str, Any]", child: "dict[str, Any]") -> str:
    platform = child["ImageData"]["Platform"]
    words = [platform.get(part) for part in ("os", "architecture", "variant")]
    corner = "└─ " if child is _children(image)[-1] else "├─ "
    return corner + "/".join(word for word in words if word)


def _cells(digest: str, disk: int, content: int, *, used: bool) -> tuple[str, ...]:
    return short_id(digest), human_size(disk), human_size(content), "U" if used else ""


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width else text[: width - 1] + "…"


def _bold(text: str) -> str:
    return f"\x1b[1m{text}\x1b[0m"
