"""The SQLite database: the truth about nouns (the directory tree is the truth about bytes).

Who may use what: every method may be called by any thread. There is one connection, guarded by a
lock, because no transaction here is long (single rows; an image is a few dozen), so that a worker
thread cannot hold pierd's loop up for longer than one commit. A commit costs about 30 µs:

- journal_mode=WAL, synchronous=NORMAL: a commit is an append without fsync. SIGKILL loses nothing;
  a power cut may lose the last commits but never breaks the file or their order. Nothing
  acknowledged needs more: after a power cut no container runs any more either.
- wal_autocheckpoint=0: a checkpoint does fsync, and would hit whichever commit crosses the mark,
  on the loop. It is made by the housekeeper thread instead (`checkpoint`), on a connection of its
  own, PASSIVE, so that it waits for nobody and nobody for it.
"""

import sqlite3
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress

from pier.errors import Internal

# Pages of 4 KiB that the log may have before a checkpoint is asked for.
CHECKPOINT_PAGES = 256

# One entry a version, never edited once released: the database's user_version is how many of them
# it has seen.
MIGRATIONS = (
    """
    -- What does not deserve a table.
    CREATE TABLE metadata (
        key TEXT PRIMARY KEY,
        value TEXT NOT NULL
    ) WITHOUT ROWID;

    CREATE TABLE containers (
        id TEXT PRIMARY KEY,            -- 64 hex digits
        name TEXT NOT NULL UNIQUE,      -- without the leading slash
        record BLOB NOT NULL            -- model.container.ContainerRecord as JSON
    );

    CREATE TABLE images (
        id TEXT PRIMARY KEY,            -- digest of the config, which is a blob
        manifest TEXT NOT NULL,         -- digest of the manifest it came with, a blob; or ""
        parent TEXT NOT NULL,           -- image ID of what it was built on; or ""
        size INTEGER NOT NULL,          -- bytes of all its layers, unpacked
        loaded_at INTEGER NOT NULL      -- ns since the epoch
    ) WITHOUT ROWID;

    CREATE TABLE image_references (
        name TEXT PRIMARY KEY,          -- full: docker.io/library/foo:tag or …/foo@sha256:…
        image TEXT NOT NULL REFERENCES images (id) ON DELETE CASCADE,
        tagged_at INTEGER NOT NULL      -- ns since the epoch
    ) WITHOUT ROWID;

    CREATE TABLE layers (
        chain_id TEXT PRIMARY KEY,      -- names layers/<hex>/diff
        diff_id TEXT NOT NULL,          -- digest of the uncompressed tar
        blob TEXT NOT NULL,             -- digest of the layer as it was received, a blob
        media_type TEXT NOT NULL,       -- of that blob
        size INTEGER NOT NULL,          -- bytes of its files, unpacked
        -- The boot in which it was unpacked, until it is known to be on the disk; then "". A row
        -- with another boot's ID is a layer that a crash of the machine may have torn.
        unsynced TEXT NOT NULL
    ) WITHOUT ROWID;
    """,
    """
    -- Digest of the image index that the manifest was chosen from, a blob; or "".
    ALTER TABLE images ADD COLUMN index_digest TEXT NOT NULL DEFAULT '';
    """,
    """
    CREATE TABLE volumes (
        name TEXT PRIMARY KEY,
        record BLOB NOT NULL            -- model.api_volumes.VolumeRecord as JSON
    );
    """,
    """
    CREATE TABLE networks (
        id TEXT PRIMARY KEY,            -- 64 hex digits
        name TEXT NOT NULL UNIQUE,
        record BLOB NOT NULL            -- model.network.NetworkRecord as JSON
    );
    """,
    """
    -- Where layers were seen in registries: a push asks there before it compresses and sends.
    CREATE TABLE layer_sources (
        diff_id TEXT NOT NULL,          -- digest of the uncompressed tar
        repository TEXT NOT NULL,       -- full: docker.io/library/foo
        digest TEXT NOT NULL,           -- of the blob there
        size INTEGER NOT NULL,          -- bytes of that blob
        media_type TEXT NOT NULL,       -- of that blob
        seen_at INTEGER NOT NULL,       -- ns since the epoch
        PRIMARY KEY (diff_id, repository, digest)
    ) WITHOUT ROWID;
    """,
    """
    -- When a container was last made of an image: what image-budget goes by.
    CREATE TABLE image_uses (
        image TEXT PRIMARY KEY REFERENCES images (id) ON DELETE CASCADE,
        used_at INTEGER NOT NULL        -- ns since the epoch
    ) WITHOUT ROWID;
    """,
    """
    -- Steps of builds: what makes a step the same as an earlier one, and the image that it made.
    CREATE TABLE build_cache (
        key TEXT PRIMARY KEY,           -- see build/cache.py
        image TEXT NOT NULL,            -- image ID; it may have gone meanwhile
        parent TEXT NOT NULL,           -- image ID of what it stands on; or ""
        description TEXT NOT NULL,
        created_at INTEGER NOT NULL,    -- ns since the epoch
        used_at INTEGER NOT NULL,       -- ns since the epoch
        uses INTEGER NOT NULL
    ) WITHOUT ROWID;
    """,
    """
    -- What layers were compressed to by exports: storage/compressed.py.
    CREATE TABLE compressed_layers (
        diff_id TEXT NOT NULL,
        kind TEXT NOT NULL,             -- gzip, zstd, uncompressed
        level INTEGER NOT NULL,         -- -1: the kind's own
        digest TEXT NOT NULL,           -- a blob, which may have gone meanwhile
        PRIMARY KEY (diff_id, kind, level)
    ) WITHOUT ROWID;
    """,
    """
    -- Builds that are over; record is JSON (model/api_build.py, BuildRecord), started ns.
    CREATE TABLE builds (
        id TEXT PRIMARY KEY,
        started INTEGER NOT NULL,
        record TEXT NOT NULL
    ) WITHOUT ROWID;
    """,
    """
    -- What the build cache's steps were made of, for explaining misses (build/explain.py).
    CREATE TABLE build_inputs (
        key TEXT PRIMARY KEY,
        inputs BLOB NOT NULL
    ) WITHOUT ROWID;
    """,
)


class Database:
    """`path` is the file, made when it is missing. Raises Internal when a newer engine wrote it."""

    def __init__(self, path: str, *, later: Callable[[Callable[[], None]], None]) -> None:
        self._path = path
        self._later = later
        self._lock = threading.RLock()
        self._checkpointing = False
        self._db = self._connect()
        try:
            self._migrate()
        except BaseException:
            self._db.close()
            raise

    def close(self) -> None:
        """Close it; SQLite writes the log back into the file and removes it."""
        with self._lock:
            self._db.close()

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """Hold the connection for a transaction: committed at the end, undone by an exception."""
        with self._lock:
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield self._db
                self._db.execute("COMMIT")
            except BaseException:
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
                raise
            self._count_pages()

    def rows(self, sql: str, values: Sequence[object] = ()) -> list[tuple[object, ...]]:
        with self._lock:
            return self._db.execute(sql, values).fetchall()

    # Containers

    def put_container(self, container_id: str, name: str, record: bytes) -> None:
        """Write a container's row, new or changed. Raises sqlite3.IntegrityError: name in use."""
        with self.transaction() as db:
            db.execute(
                "INSERT INTO containers (id, name, record) VALUES (?, ?, ?) "
                "ON CONFLICT (id) DO UPDATE SET name = excluded.name, record = excluded.record",
                (container_id, name, record),
            )

    def delete_container(self, container_id: str) -> None:
        """Delete a container's row; absent is fine."""
        with self.transaction() as db:
            db.execute("DELETE FROM containers WHERE id = ?", (container_id,))

    def all_containers(self) -> list[tuple[str, str, bytes]]:
        """Return (id, name, record) of every container, in the order of their making."""
        with self._lock:
            return self._db.execute(
                "SELECT id, name, record FROM containers ORDER BY rowid"
            ).fetchall()

    # Metadata

    def get_metadata(self, key: str) -> str | None:
        with self._lock:
            row = self._db.execute("SELECT value FROM metadata WHERE key = ?", (key,)).fetchone()
        return str(row[0]) if row else None

    def set_metadata(self, key: str, value: str) -> None:
        with self.transaction() as db:
            db.execute(
                "INSERT INTO metadata (key, value) VALUES (?, ?) "
                "ON CONFLICT (key) DO UPDATE SET value = excluded.value",
                (key, value),
            )

    # Upkeep

    def checkpoint(self) -> None:
        """Copy the log into the file, without holding up readers or writers. Takes an fsync.

        A failure (a full disk) only means that the log grows until the next one.
        """
        with suppress(sqlite3.Error), closing(sqlite3.connect(self._path)) as db:
            db.execute("PRAGMA wal_checkpoint(PASSIVE)")
        self._checkpointing = False

    def _connect(self) -> sqlite3.Connection:
        db = sqlite3.connect(self._path, isolation_level=None, check_same_thread=False)
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA synchronous = NORMAL")
        db.execute("PRAGMA wal_autocheckpoint = 0")
        db.execute("PRAGMA foreign_keys = ON")
        self._commits = 0
        return db

    def _migrate(self) -> None:
        (version,) = self._db.execute("PRAGMA user_version").fetchone()
        if version > len(MIGRATIONS):
            raise Internal(
                f"{self._path} has schema {version}, this engine knows {len(MIGRATIONS)}"
            )
        for number, script in enumerate(MIGRATIONS[version:], version + 1):
            self._db.executescript(f"BEGIN; {script}; PRAGMA user_version = {number}; COMMIT;")

    def _count_pages(self) -> None:
        """Ask for a checkpoint now and then: a commit writes about two pages to the log."""
        self._commits += 1
        if self._commits * 2 >= CHECKPOINT_PAGES and not self._checkpointing:
            self._commits = 0
            self._checkpointing = True
            self._later(self.checkpoint)
