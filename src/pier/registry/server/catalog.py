"""What is where: repositories, tags, manifests and the blobs each repository may give out.

One SQLite file beside the blobs. It is written with a connection of its own under a lock, by
worker threads, each transaction with its fsync (synchronous=FULL): what a client was told is there
is there after a power cut. It is read on the server's loop, which in WAL mode waits for no writer.
"""

import sqlite3
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

import msgspec
from msgspec import Struct

from pier.errors import Internal
from pier.model.digest import Digest
from pier.model.oci import Descriptor
from pier.registry.server.documents import Document

# One entry a version, never edited once released: see user_version.
MIGRATIONS = (
    """
    CREATE TABLE repositories (
        name TEXT PRIMARY KEY
    ) WITHOUT ROWID;

    CREATE TABLE blobs (                -- that a repository gives out; the bytes are stored once
        repository TEXT NOT NULL REFERENCES repositories (name),
        digest TEXT NOT NULL,
        linked_at INTEGER NOT NULL,     -- s since the epoch
        PRIMARY KEY (repository, digest)
    ) WITHOUT ROWID;
    CREATE INDEX blobs_by_digest ON blobs (digest);

    CREATE TABLE manifests (            -- whose bytes are stored as blobs are
        repository TEXT NOT NULL REFERENCES repositories (name),
        digest TEXT NOT NULL,
        media_type TEXT NOT NULL,
        size INTEGER NOT NULL,
        subject TEXT NOT NULL,          -- digest or ""
        artifact_type TEXT NOT NULL,
        annotations TEXT NOT NULL,      -- a JSON object
        pushed_at INTEGER NOT NULL,     -- s since the epoch
        PRIMARY KEY (repository, digest)
    ) WITHOUT ROWID;
    CREATE INDEX manifests_by_subject ON manifests (repository, subject);
    CREATE INDEX manifests_by_digest ON manifests (digest);

    CREATE TABLE named (                -- what a manifest names: blobs and other manifests
        repository TEXT NOT NULL,
        manifest TEXT NOT NULL,
        digest TEXT NOT NULL,
        PRIMARY KEY (repository, digest, manifest),
        FOREIGN KEY (repository, manifest) REFERENCES manifests (repository, digest)
            ON DELETE CASCADE
    ) WITHOUT ROWID;
    CREATE INDEX named_by_manifest ON named (repository, manifest);

    CREATE TABLE tags (
        repository TEXT NOT NULL,
        tag TEXT NOT NULL,
        digest TEXT NOT NULL,
        PRIMARY KEY (repository, tag),
        FOREIGN KEY (repository, digest) REFERENCES manifests (repository, digest)
            ON DELETE CASCADE
    ) WITHOUT ROWID;
    CREATE INDEX tags_by_digest ON tags (repository, digest);
    """,
    """
    CREATE TABLE adopted (              -- manifests that an engine has as images: engine_store.py
        repository TEXT NOT NULL,
        digest TEXT NOT NULL,
        images TEXT NOT NULL,           -- their IDs, with blanks between
        PRIMARY KEY (repository, digest),
        FOREIGN KEY (repository, digest) REFERENCES manifests (repository, digest)
            ON DELETE CASCADE
    ) WITHOUT ROWID;
    """,
)


class Entry(Struct, frozen=True):
    """A manifest as a repository has it."""

    digest: Digest
    media_type: str
    size: int


class Catalog:
    """Reading is for one thread, that which made it; writing is for any."""

    def __init__(self, path: str) -> None:
        self._lock = threading.Lock()
        self._writer = _connect(path)
        try:
            _migrate(self._writer, path)
            self._reader = _connect(path)
        except BaseException:
            self._writer.close()
            raise

    def close(self) -> None:
        self._reader.close()
        self._writer.close()

    # Reading

    def has_repository(self, name: str) -> bool:
        return self._one("SELECT 1 FROM repositories WHERE name = ?", name) is not None

    def repositories(self, after: str, limit: int) -> list[str]:
        """Return at most `limit` names that come after `after`, in order; -1 is no limit."""
        rows = self._reader.execute(
            "SELECT name FROM repositories WHERE name > ? ORDER BY name LIMIT ?", (after, limit)
        )
        return [str(row[0]) for row in rows]

    def tags(self, name: str, after: str, limit: int) -> list[str]:
        """Return at most `limit` tags that come after `after`, in order; -1 is no limit."""
        rows = self._reader.execute(
            "SELECT tag FROM tags WHERE repository = ? AND tag > ? ORDER BY tag LIMIT ?",
            (name, after, limit),
        )
        return [str(row[0]) for row in rows]

    def by_tag(self, name: str, tag: str) -> Entry | None:
        return self._entry(
            "SELECT digest, media_type, size FROM tags JOIN manifests USING (repository, digest) "
            "WHERE repository = ? AND tag = ?",
            name,
            tag,
        )

    def by_digest(self, name: str, digest: Digest) -> Entry | None:
        return self._entry(
            "SELECT digest, media_type, size FROM manifests WHERE repository = ? AND digest = ?",
            name,
            digest,
        )

    def has_blob(self, name: str, digest: Digest) -> bool:
        found = self._one("SELECT 1 FROM blobs WHERE repository = ? AND digest = ?", name, digest)
        return found is not None

    def any_has_blob(self, digest: Digest) -> bool:
        return self._one("SELECT 1 FROM blobs WHERE digest = ?", digest) is not None

    def referrers(self, name: str, subject: Digest, artifact_type: str) -> list[Descriptor]:
        """Return what says that it is about `subject`; "" is every artifact type."""
        rows = self._reader.execute(
            "SELECT digest, media_type, size, artifact_type, annotations FROM manifests "
            "WHERE repository = ? AND subject = ? AND (? = '' OR artifact_type = ?) "
            "ORDER BY pushed_at, digest",
            (name, subject, artifact_type, artifact_type),
        )
        return [
            Descriptor(
                mediaType=media_type,
                digest=digest,
                size=size,
                annotations=msgspec.json.decode(annotations, type=dict[str, str]),
                artifactType=kind,
            )
            for digest, media_type, size, kind, annotations in rows
        ]

    # Writing

    def link(self, name: str, digest: Digest) -> None:
        """Let a repository give a blob out, or renew that."""
        with self._transaction() as db:
            db.execute("INSERT OR IGNORE INTO repositories VALUES (?)", (name,))
            db.execute(
                "INSERT INTO blobs VALUES (?, ?, ?) "
                "ON CONFLICT DO UPDATE SET linked_at = excluded.linked_at",
                (name, digest, int(time.time())),
            )

    def unlink(self, name: str, digest: Digest) -> bool:
        """Let it give the blob out no more; False when it did not."""
        with self._transaction() as db:
            found = db.execute(
                "DELETE FROM blobs WHERE repository = ? AND digest = ?", (name, digest)
            )
            return found.rowcount > 0

    def put_manifest(
        self, name: str, digest: Digest, document: Document, tags: Sequence[str]
    ) -> None:
        """Add a manifest, or only its tags, which other manifests lose, in one transaction."""
        with self._transaction() as db:
            db.execute("INSERT OR IGNORE INTO repositories VALUES (?)", (name,))
            db.execute(
                "INSERT INTO manifests VALUES (?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET "
                "media_type = excluded.media_type, pushed_at = excluded.pushed_at",
                (
                    name,
                    digest,
                    document.media_type,
                    document.size,
                    document.subject,
                    document.artifact_type,
                    msgspec.json.encode(document.annotations).decode(),
                    int(time.time()),
                ),
            )
            db.executemany(
                "INSERT OR IGNORE INTO named VALUES (?, ?, ?)",
                [(name, digest, item) for item in (*document.blobs, *document.children)],
            )
            db.executemany(
                "INSERT INTO tags VALUES (?, ?, ?) "
                "ON CONFLICT DO UPDATE SET digest = excluded.digest",
                [(name, tag, digest) for tag in tags],
            )

    def delete_manifest(self, name: str, digest: Digest) -> bool:
        """Delete a manifest and its tags; False when there was none."""
        with self._transaction() as db:
            found = db.execute(
                "DELETE FROM manifests WHERE repository = ? AND digest = ?", (name, digest)
            )
            return found.rowcount > 0

    def delete_tag(self, name: str, tag: str) -> bool:
        with self._transaction() as db:
            found = db.execute("DELETE FROM tags WHERE repository = ? AND tag = ?", (name, tag))
            return found.rowcount > 0

    # For a store beside an engine: see engine_store.py

    def lacks(self, name: str, digests: Iterable[Digest]) -> list[Digest]:
        """Return what a repository has neither as a blob nor as a manifest. For any thread."""
        with self._lock:
            known = {
                str(row[0])
                for row in self._writer.execute(
                    "SELECT digest FROM blobs WHERE repository = ?1 UNION "
                    "SELECT digest FROM manifests WHERE repository = ?1",
                    (name,),
                )
            }
        return [digest for digest in digests if digest not in known]

    def note_adopted(self, name: str, digest: Digest, images: Iterable[str]) -> None:
        """Remember that an engine has a manifest of a repository as these images."""
        with self._transaction() as db:
            db.execute(
                "INSERT INTO adopted VALUES (?, ?, ?) "
                "ON CONFLICT DO UPDATE SET images = excluded.images",
                (name, digest, " ".join(images)),
            )

    def adopted(self) -> list[tuple[str, Digest, frozenset[str], str]]:
        """Return repository, manifest, images and tag, "" for none, of each. For any thread."""
        with self._lock:
            rows = self._writer.execute(
                "SELECT repository, digest, images, coalesce(tag, '') FROM adopted "
                "LEFT JOIN tags USING (repository, digest)"
            ).fetchall()
        return [(str(r[0]), Digest(str(r[1])), frozenset(r[2].split()), str(r[3])) for r in rows]

    def adopted_as(self, name: str, digest: Digest) -> frozenset[str]:
        """Return the images that a manifest was adopted as, none for one that was not."""
        row = self._one(
            "SELECT images FROM adopted WHERE repository = ? AND digest = ?", name, digest
        )
        return frozenset(str(row[0]).split()) if row is not None else frozenset()

    def forget(self, name: str, digest: Digest, tags: Iterable[str]) -> list[Digest]:
        """Take tags from a manifest; without any, and named by none, it goes with what it names.

        Returns the digests that the repository does not give out any more.
        """
        alone = "repository = ?1 AND digest = ?2 AND NOT EXISTS "
        alone += "(SELECT 1 FROM named n WHERE n.repository = ?1 AND n.digest = ?2)"
        untagged = "NOT EXISTS (SELECT 1 FROM tags WHERE repository = ?1 AND digest = ?2)"
        gone: list[Digest] = []
        with self._transaction() as db:
            db.executemany(
                "DELETE FROM tags WHERE repository = ? AND tag = ? AND digest = ?",
                [(name, tag, digest) for tag in tags],
            )
            waiting = [digest]
            while waiting:
                item = (name, waiting.pop())
                query = "SELECT digest FROM named WHERE repository = ? AND manifest = ?"
                named = [Digest(str(row[0])) for row in db.execute(query, item)]
                manifest = db.execute(f"DELETE FROM manifests WHERE {alone} AND {untagged}", item)  # noqa: S608
                blob = db.execute(f"DELETE FROM blobs WHERE {alone}", item)  # noqa: S608
                if manifest.rowcount > 0:
                    waiting += named
                if manifest.rowcount > 0 or blob.rowcount > 0:
                    gone.append(item[1])
            db.execute(
                "DELETE FROM repositories WHERE name = ?1 "
                "AND NOT EXISTS (SELECT 1 FROM blobs WHERE repository = ?1) "
                "AND NOT EXISTS (SELECT 1 FROM manifests WHERE repository = ?1)",
                (name,),
            )
        return gone

    # Collecting: see collect.py

    def drop_untagged(self, before_s: int) -> int:
        """Delete manifests pushed before this time that nothing leads to; return how many.

        Tags lead to manifests, indexes to their children, subjects to their referrers.
        """
        dropped = 0
        with self._transaction() as db:
            # Each round frees what the one before led to.
            while True:
                found = db.execute(
                    "DELETE FROM manifests AS m WHERE pushed_at < ? "
                    "AND NOT EXISTS (SELECT 1 FROM tags t WHERE t.repository = m.repository "
                    "                AND t.digest = m.digest) "
                    "AND NOT EXISTS (SELECT 1 FROM named n WHERE n.repository = m.repository "
                    "                AND n.digest = m.digest) "
                    "AND (m.subject = '' OR NOT EXISTS (SELECT 1 FROM manifests s "
                    "     WHERE s.repository = m.repository AND s.digest = m.subject))",
                    (before_s,),
                )
                if found.rowcount <= 0:
                    return dropped
                dropped += found.rowcount

    def drop_unnamed(self, before_s: int) -> int:
        """Unlink blobs that no manifest of their repository names, linked before this time."""
        with self._transaction() as db:
            found = db.execute(
                "DELETE FROM blobs AS b WHERE linked_at < ? AND NOT EXISTS "
                "(SELECT 1 FROM named n WHERE n.repository = b.repository AND n.digest = b.digest)",
                (before_s,),
            )
            db.execute(
                "DELETE FROM repositories WHERE name NOT IN (SELECT repository FROM blobs) "
                "AND name NOT IN (SELECT repository FROM manifests)"
            )
            return found.rowcount

    def is_needed(self, digest: Digest) -> bool:
        """Tell whether any repository has these bytes, as a blob or a manifest. For any thread."""
        with self._lock:
            row = self._writer.execute(
                "SELECT 1 FROM blobs WHERE digest = ? UNION SELECT 1 FROM manifests "
                "WHERE digest = ?",
                (digest, digest),
            ).fetchone()
        return row is not None

    def _entry(self, sql: str, *values: str) -> Entry | None:
        row = self._one(sql, *values)
        if row is None:
            return None
        return Entry(Digest(str(row[0])), str(row[1]), int(str(row[2])))

    def _one(self, sql: str, *values: str) -> tuple[object, ...] | None:
        rows: Iterable[tuple[object, ...]] = self._reader.execute(sql, values)
        return next(iter(rows), None)

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with self._lock:
            self._writer.execute("BEGIN IMMEDIATE")
            try:
                yield self._writer
                self._writer.execute("COMMIT")
            except BaseException:
                if self._writer.in_transaction:
                    self._writer.execute("ROLLBACK")
                raise


def _connect(path: str) -> sqlite3.Connection:
    db = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    db.execute("PRAGMA journal_mode = WAL")
    db.execute("PRAGMA synchronous = FULL")
    db.execute("PRAGMA foreign_keys = ON")
    return db


def _migrate(db: sqlite3.Connection, path: str) -> None:
    (version,) = db.execute("PRAGMA user_version").fetchone()
    if version > len(MIGRATIONS):
        raise Internal(f"{path} has schema {version}, this registry knows {len(MIGRATIONS)}")
    for number, script in enumerate(MIGRATIONS[version:], version + 1):
        db.executescript(f"BEGIN; {script}; PRAGMA user_version = {number}; COMMIT;")
