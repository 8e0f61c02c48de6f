"""What every handler has at hand: the store, the server's rules, and threads for what blocks."""

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from functools import partial
from typing import BinaryIO, ParamSpec, Protocol, TypeVar, runtime_checkable

from aiohttp import web
from msgspec import Struct
from msgspec.structs import replace

from pier.model.digest import Digest
from pier.model.oci import Descriptor
from pier.registry.server.catalog import Entry
from pier.registry.server.documents import Document
from pier.registry.server.paths import Endpoint
from pier.registry.server.uploads import Upload, Uploads

P = ParamSpec("P")
T = TypeVar("T")


class Rules(Struct, frozen=True):
    """`sparse` takes manifests whose blobs are not there; `deletes` off refuses DELETE."""

    read_only: bool = False
    deletes: bool = True
    sparse: bool = False


class Directory(Protocol):
    """What is read of a catalog: see `catalog.Catalog`."""

    def has_repository(self, name: str) -> bool: ...

    def repositories(self, after: str, limit: int) -> list[str]: ...

    def tags(self, name: str, after: str, limit: int) -> list[str]: ...

    def by_tag(self, name: str, tag: str) -> Entry | None: ...

    def by_digest(self, name: str, digest: Digest) -> Entry | None: ...

    def has_blob(self, name: str, digest: Digest) -> bool: ...

    def referrers(self, name: str, subject: Digest, artifact_type: str) -> list[Descriptor]: ...


class Ledger(Directory, Protocol):
    """What is changed of a catalog; all but `any_has_blob` block, and are for any thread."""

    def any_has_blob(self, digest: Digest) -> bool: ...

    def unlink(self, name: str, digest: Digest) -> bool: ...

    def delete_manifest(self, name: str, digest: Digest) -> bool: ...

    def delete_tag(self, name: str, tag: str) -> bool: ...


class Shelf(Protocol):
    """What is read of a store: a directory's, or an engine's (`engine_shelf`)."""

    @property
    def catalog(self) -> Directory: ...

    def has_bytes(self, digest: Digest) -> bool: ...

    def blob_path(self, digest: Digest) -> str:
        """Return the file of what is here; "" when it has none, and is only to be read."""
        ...

    def reading(self, digest: Digest) -> AbstractContextManager[tuple[BinaryIO, int]]:
        """Open what is here, file or not, for the time of a block; with its size in bytes.

        Raises NotFound.
        """
        ...

    def read(self, digest: Digest) -> bytes: ...


@runtime_checkable
class Writable(Protocol):
    """A shelf to be pushed to: `store.Store`, or an engine's (`engine_store`)."""

    uploads: Uploads

    @property
    def catalog(self) -> Ledger: ...

    def finish(self, upload: Upload, repository: str, digest: Digest) -> None: ...

    def mount(self, repository: str, digest: Digest) -> bool: ...

    def put_manifest(
        self, repository: str, digest: Digest, data: bytes, document: Document, tags: Sequence[str]
    ) -> None: ...


class Service:
    """One registry. `close` waits for what its threads are doing.

    What only reads uses `shelf`. One that is not to be written to is read-only, whatever the rules
    say.
    """

    def __init__(self, shelf: Shelf, rules: Rules) -> None:
        self.shelf = shelf
        self._store = shelf if isinstance(shelf, Writable) else None
        self.rules = rules if self._store is not None else replace(rules, read_only=True)
        self._pool = ThreadPoolExecutor(max_workers=8, thread_name_prefix="registry")
        # One request at a time may write to an upload: the lock lives as long as somebody waits.
        self.writing: dict[str, asyncio.Lock] = {}

    @property
    def store(self) -> Writable:
        """What is written to; asked for by nobody while the rules say read-only."""
        assert self._store is not None
        return self._store

    def close(self) -> None:
        self._pool.shutdown()

    def start(
        self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs
    ) -> asyncio.Future[T]:
        """Run what blocks on a thread; whoever started it awaits it."""
        loop = asyncio.get_running_loop()
        return loop.run_in_executor(self._pool, partial(function, *args, **kwargs))


class Call(Struct, frozen=True):
    """One request, with its path already read."""

    request: web.Request
    service: Service
    endpoint: Endpoint

    @property
    def name(self) -> str:
        return self.endpoint.name

    @property
    def reference(self) -> str:
        return self.endpoint.reference

    def query(self, name: str) -> str:
        return self.request.query.get(name, "")
