"""Draws curves as PNG files; matplotlib is installed by `make bench` alone."""

import importlib
import os
import re

from growth import Curve


def draw(curves: "list[Curve]", directory: str) -> "list[tuple[Curve, str]]":
    """Draw each into a file of `directory`; returns the files' names beside the curves."""
    matplotlib = importlib.import_module("matplotlib")
    matplotlib.use("Agg")
    pyplot = importlib.import_module("matplotlib.pyplot")
    drawn = []
    for curve in curves:
        figure, axes = pyplot.subplots(figsize=(5, 3.2), dpi=110)
        for side, points in curve.points.items():
            axes.plot(*zip(*points, strict=True), marker="o", label=side)
        axes.set_title(curve.name.replace("`", ""), fontsize=10)
        axes.set_xlabel(curve.along)
        axes.set_ylabel(curve.unit)
        axes.set_ylim(bottom=0)
        axes.grid(visible=True, alpha=0.3)
        axes.legend()
        words = re.findall(r"[a-z0-9]+", f"{curve.name} {curve.along}".lower())
        name = "-".join(words) + ".png"
        figure.tight_layout()
        # Without the date and the version that would change the file each time.
        figure.savefig(os.path.join(directory, name), metadata={"Software": None})
        pyplot.close(figure)
        drawn.append((curve, name))
    return drawn
