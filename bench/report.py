"""The run as Markdown: into bench/results/, and its table into the README."""

import os
import platform
import re
from collections.abc import Iterable, Iterator

from growth import Curve
from rows import Row, table
from sides import Bench

from pier import __version__

BEGIN, END = "<!-- bench: written by `make bench` -->", "<!-- /bench -->"
# What the README shows, by the beginning of the row's name.
SHOWN = (
    "`docker run --rm --network none", "create, start, wait until removed", "`docker version`",
    "`docker run --rm IMAGE true`", "`docker run -d`", "`docker exec", "an exec with its output", "20 `docker run --rm --network none`, 4", "200 MB of 71-byte lines, ",
    "`docker logs`", "`docker load`", "`docker push`", "`docker pull`", "`docker build`",
    "PSS of a keeper",
)  # fmt: skip


def machine(bench: Bench) -> Iterator[str]:
    """Yield lines about what ran where."""
    template = "{{.Server.Version}} (API {{.Server.APIVersion}})"
    docker = bench.pier("version", "--format", "{{.Client.Version}}").stdout.strip()
    announced = bench.pier("version", "--format", template).stdout.strip()
    theirs = bench.dockerd("version", "--format", template).stdout.strip()
    yield f"- Pier {__version__}, answering as {announced}"
    yield f"- dockerd {theirs}, out of Debian sid"
    yield f"- docker command line {docker}, the same for both"
    if bench.podman is not None:
        yield f"- {bench.podman('--version').strip()}, with crun, by its own command line"
    yield f"- Linux {platform.release()}, {platform.machine()}, {os.cpu_count()} CPUs"
    yield f"- Python {platform.python_version()}"


def growth_table(curves: "Iterable[tuple[Curve, str]]") -> Iterator[str]:
    """Yield a picture and a line of figures for every curve."""
    for curve, picture in curves:
        yield f"### {curve.name}, {curve.unit}, by {curve.along}"
        yield ""
        counts = sorted({count for points in curve.points.values() for count, _ in points})
        yield "| | " + " | ".join(map(str, counts)) + " |"
        yield "| --- " * (len(counts) + 1) + "|"
        for side, points in curve.points.items():
            values = dict(points)
            cells = [f"{values[c]:.1f}" if c in values else "-" for c in counts]
            yield f"| {side} | " + " | ".join(cells) + " |"
        yield ""
        yield f"![{curve.name.replace('`', '')}, by {curve.along}]({picture})"
        yield ""


def into_readme(path: str, rows: "list[Row]", today: str) -> None:
    """Put the most asked for rows between the README's marks. Raises ValueError without them."""
    with open(path) as file:
        text = file.read()
    shown = [row for start in SHOWN for row in rows if row.name.startswith(start)]
    where = f"{os.cpu_count()} CPUs of a virtual machine, Linux {platform.release()}"
    lines = [f"Measured on {today}, {where}, median of each:", "", *table(shown)]
    body = "\n".join([BEGIN, *lines, END])
    found = re.compile(re.escape(BEGIN) + ".*?" + re.escape(END), re.DOTALL)
    if not found.search(text):
        raise ValueError(f"{path} has no marks for the benchmark's table")
    with open(path, "w") as file:
        file.write(found.sub(lambda _: body, text))
