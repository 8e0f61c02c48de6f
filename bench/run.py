"""Pier beside its peers, in one run: the same work, turn by turn.

    .venv/bin/python bench/run.py [--runs 15] [--minutes 16] [--only NAME ...] [--no-save]

Prints tables and writes them to bench/results/, with plots, and the most asked for rows to the
README. Ratios are what counts: absolute figures are this machine's. Everything that is started is
stopped again. On a slow machine the last measurements are left out, by name, when the minutes are
over.
"""

import argparse
import contextlib
import datetime as dt
import os
import signal
import sys
import time
from collections.abc import Callable, Iterable, Iterator

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
for _room in ("tests", "tests/client"):
    sys.path.insert(0, os.path.join(ROOT, _room))

import archives  # noqa: E402 - what it imports is found by the lines above
import builds  # noqa: E402
import files  # noqa: E402
import growth  # noqa: E402
import images  # noqa: E402
import network  # noqa: E402
import plots  # noqa: E402
import report  # noqa: E402
import runtime  # noqa: E402
import starts  # noqa: E402
import streams  # noqa: E402
from disk import fresh_disk  # noqa: E402
from dockerd import find_root  # noqa: E402
from growth import Curve  # noqa: E402
from rows import Row, table  # noqa: E402
from sides import Bench, absent, open_bench  # noqa: E402

MEASUREMENTS: "dict[str, Callable[[Bench], Iterable[Row | Curve]]]" = {
    "fresh": growth.fresh,
    "run": starts.run_none,
    "api": starts.by_api,
    "bridge": starts.run_bridge,
    "published": starts.run_published,
    "detached": starts.run_detached,
    "exec": starts.execute,
    "start-stop": starts.start_stop,
    "parallel": starts.parallel,
    "stream": streams.attached,
    "logs": streams.logged,
    "build": builds.classic,
    "buildx": builds.buildx,
    "load": images.load,
    "registry": images.registry,
    "running": growth.running,
    "commit": starts.commit,
    "volume": files.volume,
    "dns": network.names,
    "throughput": network.throughput,
    "copy": files.copy,
    "stopped": growth.stopped,
    "layers": growth.layers,
    "images": growth.images,
    "networks": growth.networks,
    "attached": growth.attached,
}


FAILED: "list[str]" = []
LEFT_OUT: "list[str]" = []


def measure(
    bench: Bench, names: Iterable[str], minutes: float, rows: "list[Row]", curves: "list[Curve]"
) -> None:
    """Do the named measurements; one that fails is told, and the others go on."""
    over = time.monotonic() + 60 * minutes
    for name in names:
        begun = time.monotonic()
        if begun > over:
            LEFT_OUT.append(name)
            continue
        try:
            for found in MEASUREMENTS[name](bench):
                if isinstance(found, Row):
                    rows.append(found)
                    print(*table([found]), sep="\n", file=sys.stderr)
                else:
                    curves.append(found)
        except (RuntimeError, AssertionError, OSError) as exc:
            absent(f"{name} failed: {exc}")
            FAILED.append(name)
        taken = time.monotonic() - begun
        print(f"{name}: {taken:.0f} s", file=sys.stderr, flush=True)


@contextlib.contextmanager
def told_at_the_end() -> Iterator[None]:
    """What an engine left behind is a failure, but no reason to lose the figures."""
    try:
        yield
    except AssertionError as exc:
        absent(f"at the end: {exc}")
        FAILED.append("the engines' ends")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--runs", type=int, default=15)
    parser.add_argument("--minutes", type=float, default=16)
    parser.add_argument("--only", choices=MEASUREMENTS, action="append")
    parser.add_argument("--no-save", action="store_true")
    options = parser.parse_args()
    # As an interrupt: everything that was started is stopped again.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    today = dt.datetime.now(dt.UTC).date().isoformat()
    load = os.getloadavg()[0]
    root = find_root(os.path.join(ROOT, ".cache"))
    lines: list[str] = []
    rows: list[Row] = []
    curves: list[Curve] = []
    with told_at_the_end(), fresh_disk() as disk, open_bench(options.runs, root) as bench:
        lines += [
            f"# Pier beside its peers, {today}",
            "",
            *report.machine(bench),
            f"- data on {disk}",
            f"- load average before the run: {load:.2f}",
            "",
            "Medians, with the fastest and the slowest; the sides took turns.",
            "",
        ]
        measure(bench, options.only or MEASUREMENTS, options.minutes, rows, curves)
        lines += [*table(rows), "", *starts.own_client(bench), *starts.floor(bench), *bench.notes]
        lines += [
            f"- the most memory that pierd had resident: {archives.peak_mb(bench.engine.pid):.0f} MB"
        ]
    if not options.only:
        lines += ["", "## The OCI runtime alone", "", *runtime.table(runtime.measure(options.runs))]
    if LEFT_OUT:
        lines += ["", f"Not measured, the time was over: {', '.join(LEFT_OUT)}."]
    if FAILED:
        lines += ["", f"Not measured, failed: {', '.join(FAILED)}."]
    save = not options.only and not options.no_save
    results = os.path.join(ROOT, "bench", "results")
    if save:
        lines += ["", "## Growth", "", *report.growth_table(plots.draw(curves, results))]
        with open(os.path.join(results, f"{today}.md"), "w") as file:
            file.write("\n".join(lines) + "\n")
        report.into_readme(os.path.join(ROOT, "README.md"), rows, today)
    else:
        lines += ["", *report.growth_table((curve, "") for curve in curves)]
    print("\n".join(lines))
    sys.exit(1 if FAILED else 0)


if __name__ == "__main__":
    main()
