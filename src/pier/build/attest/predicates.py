"""Which attestations a result has: a bill of materials of what the image holds, and provenance."""

import secrets
from collections.abc import Sequence
from concurrent.futures import Executor
from functools import partial

from pier.build.attest.provenance import provenance
from pier.build.attest.sbom import sbom
from pier.build.attest.statement import Predicate
from pier.build.result import BuildResult, PlatformResult
from pier.build.threads import finished
from pier.images.store import ImageStore

_ALPHABET = "0123456789abcdefghijklmnopqrstuvwxyz"
_ID_LENGTH = 25


class Attester:
    def __init__(self, store: ImageStore, executor: Executor) -> None:
        self._store = store
        self._executor = executor

    async def predicates(
        self, result: BuildResult, *, inline: bool
    ) -> Sequence[Sequence[Predicate]]:
        """Return what is said of each platform's image, in BuildKit's order.

        `inline` takes in what was asked for only where it becomes a part of the image
        (`inline-only=true`, which is how buildx asks for provenance that nobody asked for).
        Raises InvalidParameter, OSError.
        """
        invocation = new_id()
        found = []
        for one in result.platforms:
            said: list[Predicate] = []
            if result.sbom is not None and (inline or result.sbom.get("inline-only") != "true"):
                scan = partial(self._scan, one, result)
                said.append(await finished(self._executor, scan))
            fields = result.provenance
            if fields is not None and (inline or fields.get("inline-only") != "true"):
                said.append(provenance(result, one, fields, invocation))
            found.append(said)
        return found

    def _scan(self, one: PlatformResult, result: BuildResult) -> Predicate:
        return sbom(self._store, one, result)


def new_id() -> str:
    """Return what a build is called: 25 letters and digits, as BuildKit's IDs are."""
    return "".join(secrets.choice(_ALPHABET) for _ in range(_ID_LENGTH))
