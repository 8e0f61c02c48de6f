"""Builds that are over: when, how long, how they ended, and each step's time and size.

What a build printed is not kept, nor values of its arguments: only what is told about steps anyway.
"""

import contextlib
import sqlite3
from collections.abc import Sequence

import msgspec

from pier.build.result import StepTimes
from pier.errors import NotFound
from pier.model.api_build import BuildRecord, BuildStepRecord
from pier.storage.database import Database

KEPT = 100


class BuildLog:
    """The newest KEPT builds, in the database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def add(self, record: BuildRecord) -> None:
        """A full disk loses the record and nothing else."""
        text = msgspec.json.encode(record).decode()
        with contextlib.suppress(sqlite3.Error), self._database.transaction() as db:
            db.execute("INSERT INTO builds VALUES (?, ?, ?)", (record.ID, record.Started, text))
            db.execute(
                "DELETE FROM builds WHERE id NOT IN "
                "(SELECT id FROM builds ORDER BY started DESC LIMIT ?)",
                (KEPT,),
            )

    def all(self) -> list[BuildRecord]:
        """Return them, the newest first."""
        rows = self._database.rows("SELECT record FROM builds ORDER BY started DESC")
        return [msgspec.json.decode(str(row[0]), type=BuildRecord) for row in rows]

    def get(self, ref: str) -> BuildRecord:
        """Return one by its ID, or the beginning of it. Raises NotFound."""
        found = [record for record in self.all() if record.ID.startswith(ref)]
        if len(found) != 1 or not ref:
            raise NotFound(f"no record found for {ref!r}")
        return found[0]

    def remove(self, refs: Sequence[str]) -> list[str]:
        """Forget some, all without `refs`; return their IDs. Raises NotFound."""
        chosen = [self.get(ref).ID for ref in refs] if refs else [r.ID for r in self.all()]
        with self._database.transaction() as db:
            db.executemany("DELETE FROM builds WHERE id = ?", [(name,) for name in chosen])
        return chosen


def step_records(steps: Sequence[StepTimes]) -> list[BuildStepRecord]:
    ordered = sorted(steps, key=lambda step: step.started)
    return [
        BuildStepRecord(
            Name=step.name,
            Started=step.started,
            Ended=step.ended,
            Cached=step.is_cached,
            Size=step.size,
            Error=step.error,
        )
        for step in ordered
    ]
