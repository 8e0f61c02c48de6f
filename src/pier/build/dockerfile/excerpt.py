"""The lines of a Dockerfile that a message is about, as BuildKit prints them."""

_LINE = "-" * 20


def excerpt(filename: str, text: str, first: int, last: int) -> str:
    """Return the lines with some around them, "" for lines that are not there.

    A single line has two more on each side, several have one; where the file ends on one side there
    are more on the other.
    """
    lines = text.split("\n")
    last = min(max(first, last), len(lines))
    if not 1 <= first <= len(lines):
        return ""
    start, end, shown = first, last, 0
    wanted = 4 if first == last else 2
    while shown < wanted:
        if start > 1:
            start -= 1
            shown += 1
        if end < len(lines):
            end += 1
            shown += 1
        shown += 1
    rows = [f"{filename}:{first}", _LINE]
    for number in range(start, end + 1):
        mark = ">>>" if first <= number <= last else "   "
        rows.append(f" {number:3d} | {mark} {lines[number - 1]}")
    return "\n".join([*rows, _LINE, ""])
