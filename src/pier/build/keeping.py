"""What of the build cache is kept: rules of age and size, and what goes first.

As BuildKit's (docs.docker.com/build/cache/garbage-collection): a rule names records by filters and by
how long nobody has used them, and may have limits, under which it stops. What nothing stands on goes
before what something stands on, and of that what was not used for longest.
"""

import heapq
from collections import Counter
from collections.abc import Collection, Mapping, Sequence

from msgspec import Struct

from pier.errors import InvalidParameter
from pier.model.gotime import parse_timestamp

REGULAR, CACHE_MOUNT = "regular", "exec.cachemount"
FILTERS = frozenset(
    (
        "id",
        "parent",
        "parents",
        "type",
        "description",
        "inuse",
        "shared",
        "private",
        "until",
        "unused-for",
    )
)


class Kept(Struct, frozen=True):
    """A record: a step's layer, or a cache mount. Times are ns since the epoch, `size` bytes.

    `shared`: an image with a name stands on it; `parent` is the record that it stands on, "" for none.
    """

    id: str
    kind: str
    description: str
    size: int
    created_at: int
    used_at: int
    uses: int
    in_use: bool = False
    shared: bool = False
    parent: str = ""


class Rule(Struct, frozen=True):
    """`unused_ns`: only what nobody used for that long. Limits in bytes, 0 for none:

    `max_used` is what the cache may take, `min_free` what shall stay free on the disk, `reserved` what
    the cache may always have. Without any of them everything goes that fits.
    """

    filters: Mapping[str, Collection[str]] = {}
    everything: bool = False
    unused_ns: int = 0
    max_used: int = 0
    reserved: int = 0
    min_free: int = 0

    def fits(self, record: Kept, now_ns: int) -> bool:
        """Tell whether a record may go by this rule."""
        if record.in_use or (record.shared and not self.everything):
            return False
        if self.unused_ns and record.used_at > now_ns - self.unused_ns:
            return False
        return all(_fits(record, key, wanted) for key, wanted in self.filters.items())

    def limit(self, total: int, free: int) -> int | None:
        """Return how many bytes may stay, None for a rule without limits."""
        if not (self.max_used or self.reserved or self.min_free):
            return None
        keep = self.max_used
        excess = self.min_free - free
        if excess > 0:
            keep = min(keep, total - excess) if keep else total - excess
        return max(keep, self.reserved)


def choose(records: Sequence[Kept], rule: Rule, *, now_ns: int, free: int) -> list[Kept]:
    """Return what goes by a rule, in an order in which it can go. `free` is the disk's, in bytes."""
    total = sum(record.size for record in records if not record.shared)
    limit = rule.limit(total, free)
    by_id = {record.id: record for record in records}
    stand = Counter(record.parent for record in records)
    leaves = [(r.used_at, r.id) for r in records if not stand[r.id]]
    heapq.heapify(leaves)
    gone: list[Kept] = []
    while leaves and (limit is None or total > limit):
        record = by_id[heapq.heappop(leaves)[1]]
        if not rule.fits(record, now_ns):
            continue
        gone.append(record)
        total -= 0 if record.shared else record.size
        parent = by_id.get(record.parent)
        if parent is not None:
            stand[parent.id] -= 1
            if not stand[parent.id]:
                heapq.heappush(leaves, (parent.used_at, parent.id))
    return gone


def rule_filters(
    values: Mapping[str, Collection[str]], now_ns: int
) -> tuple[Mapping[str, Collection[str]], int]:
    """Divide filters from the time that nobody used a record, in ns. Raises InvalidParameter."""
    rest: dict[str, Collection[str]] = {}
    unused = 0
    for key, wanted in values.items():
        if key not in FILTERS:
            raise InvalidParameter(f"invalid filter '{key}'")
        if key not in ("until", "unused-for"):
            rest[key] = wanted
            continue
        for text in wanted:
            unused = max(unused, now_ns - parse_timestamp(text, now_ns=now_ns))
    return rest, unused


def _fits(record: Kept, key: str, wanted: Collection[str]) -> bool:
    match key:
        case "inuse":
            return any(_flag(text) == record.in_use for text in wanted)
        case "shared":
            return any(_flag(text) == record.shared for text in wanted)
        case "private":
            return any(_flag(text) != record.shared for text in wanted)
        case "parent" | "parents":
            return bool(record.parent) and any(record.parent.startswith(text) for text in wanted)
        case "id":
            return any(record.id.startswith(text) for text in wanted)
        case "type":
            return record.kind in wanted
        case _:
            return any(text in record.description for text in wanted)


def _flag(text: str) -> bool:
    if text.lower() not in ("", "true", "1", "t", "false", "0", "f"):
        raise InvalidParameter(f"invalid filter value {text!r}: must be a boolean")
    return text.lower() in ("", "true", "1", "t")
