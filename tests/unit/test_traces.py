"""Traces of starts: which are kept, and what Perfetto reads."""

import asyncio
import json
import time
from pathlib import Path
from typing import Any

from pier.engine.traces import Traces

KEEPER_MARKS: dict[str, Any] = {
    "marks": [[10_000, "clone3"], [30_000, "runs"]],
    "marks_inside": [[12_000, "mount"]],
}


def complete(document: dict[str, Any] | None) -> list[dict[str, Any]]:
    assert document is not None
    return [e for e in document["traceEvents"] if e["ph"] == "X"]


def document_of(traces: Traces, container: str) -> dict[str, Any] | None:
    return asyncio.run(traces.document(container, until_over=False))


def test_what_nobody_asked_for_is_not_traced() -> None:
    traces = Traces("")
    traces.begin("a", wanted=False)
    traces.start("a", wanted=False)
    traces.mark("a", "phase")
    traces.take("a", KEEPER_MARKS)
    traces.end("a")
    assert document_of(traces, "a") is None


def test_a_mark_lasts_until_the_next() -> None:
    traces = Traces("")
    traces.begin("a", wanted=True)
    traces.mark("a", "one")
    traces.mark("a", "two")
    traces.mark("a", "")
    traces.mark("a", "three")
    found = {e["name"]: e for e in complete(document_of(traces, "a"))}
    assert list(found) == ["one", "two", "three"]
    end = found["one"]["ts"] + found["one"]["dur"]
    assert abs(end - found["two"]["ts"]) < 0.01
    assert found["three"]["dur"] == 0


def test_tracks_of_other_processes_and_requests_that_overlap() -> None:
    traces = Traces("")
    traces.begin("a", wanted=True)
    began = time.monotonic_ns()
    traces.take("a", KEEPER_MARKS)
    traces.request("a", "wait", began)
    traces.request("a", "start", began)
    document = document_of(traces, "a")
    assert document is not None
    names = {
        e["pid"]: e["args"]["name"] for e in document["traceEvents"] if e["name"] == "process_name"
    }
    found = {e["name"]: e for e in complete(document)}
    assert names[found["clone3"]["pid"]] == "keeper"
    assert found["clone3"]["ts"] == 10
    assert found["clone3"]["dur"] == 20
    assert names[found["mount"]["pid"]] == "container's first process"
    assert found["wait"]["tid"] != found["start"]["tid"]
    assert json.loads(json.dumps(document)) == document


def test_a_restart_begins_anew_and_a_start_goes_on() -> None:
    traces = Traces("")
    traces.begin("a", wanted=True)
    made = traces.get("a")
    traces.start("a", wanted=True)
    assert traces.get("a") is made
    traces.end("a")
    traces.start("a", wanted=True)
    assert traces.get("a") is not made


def test_only_the_latest_are_kept() -> None:
    traces = Traces("")
    for number in range(100):
        traces.begin(f"c{number}", wanted=True)
    assert traces.get("c0") is None
    assert traces.get("c99") is not None


def test_a_directory_gets_every_trace_and_its_loss_does_no_harm(tmp_path: Path) -> None:
    traces = Traces(str(tmp_path))
    traces.begin("a", wanted=False)
    traces.mark("a", "phase")
    traces.end("a")
    assert json.loads((tmp_path / "a.json").read_text())["otherData"]["container"] == "a"
    gone = Traces(str(tmp_path / "gone"))
    gone.begin("b", wanted=False)
    gone.end("b")
    lost = gone.get("b")
    assert lost is not None
    assert lost.over.is_set()
