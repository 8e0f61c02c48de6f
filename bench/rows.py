"""One measurement of several sides: its figures, its ratio, and whether the goal is reached."""

import statistics
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

PIER, DOCKERD, PODMAN = "Pier", "dockerd", "podman"
WARM_UP = 3


@dataclass
class Row:
    """`goal` is how many times better than dockerd the project asks Pier to be, 0 when it asks
    nothing; `most` is an absolute bound in `unit`. Less is better unless `more`.
    """

    name: str
    unit: str = "ms"
    goal: float = 0
    most: float = 0
    more: bool = False
    values: dict[str, list[float]] = field(default_factory=dict)

    def add(self, side: str, value: float) -> None:
        self.values.setdefault(side, []).append(value)

    def median(self, side: str) -> float | None:
        values = self.values.get(side)
        return statistics.median(values) if values else None

    @property
    def ratio(self) -> float | None:
        """How many times better Pier's median is than dockerd's."""
        ours, theirs = self.median(PIER), self.median(DOCKERD)
        if not ours or not theirs:
            return None
        return ours / theirs if self.more else theirs / ours

    @property
    def holds(self) -> bool | None:
        """Whether the goal is reached; None without one, or without figures for it."""
        if self.most:
            ours = self.median(PIER)
            return None if ours is None else ours <= self.most
        if not self.goal or self.ratio is None:
            return None
        return self.ratio >= self.goal

    def cells(self, sides: "list[str]") -> list[str]:
        ratio = self.ratio
        goal = f"≤ {self.most:g} {self.unit}" if self.most else f"≥ {self.goal:g} x"
        return [
            self.name,
            self.unit,
            *(spread(self.values.get(side, [])) for side in sides),
            "-" if ratio is None else f"{ratio:.1f} x",
            goal if self.goal or self.most else "-",
            {True: "yes", False: "**no**", None: "-"}[self.holds],
            str(len(self.values.get(PIER, []))),
        ]


def spread(values: "list[float]") -> str:
    """Median, fastest and slowest."""
    if not values:
        return "-"
    if len(values) == 1:
        return f"{values[0]:.1f}"
    return f"{statistics.median(values):.1f} ({min(values):.1f} to {max(values):.1f})"


def table(rows: "list[Row]") -> Iterator[str]:
    """Yield the lines of a Markdown table, a column for every side that was there."""
    sides = [s for s in (PIER, DOCKERD, PODMAN) if any(s in row.values for row in rows)]
    heads = ["what", "unit", *sides, "dockerd : Pier", "goal", "holds", "runs"]
    yield "| " + " | ".join(heads) + " |"
    yield "| --- " * len(heads) + "|"
    for row in rows:
        yield "| " + " | ".join(row.cells(sides)) + " |"


def take_turns(
    row: Row, runs: int, sides: Mapping[str, Callable[[], float]], *, warm_up: int = WARM_UP
) -> Row:
    """Measure A B A B …, after a warm-up, so that what the machine does meets all alike."""
    for _ in range(min(warm_up, runs)):
        for measure in sides.values():
            measure()
    for _ in range(runs):
        for side, measure in sides.items():
            row.add(side, measure())
    return row
