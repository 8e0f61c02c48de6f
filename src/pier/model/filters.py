"""The `filters` query parameter: what was asked for, and how values match.

`{"key": ["v1", "v2"]}`, or the older `{"key": {"v1": true}}`. Values of one key are alternatives,
keys all have to match; several `label` values all have to match as well. Which keys a list knows is
said where the list is made.
"""

import re
from collections.abc import Collection, Mapping
from typing import Self

import msgspec
from msgspec import Struct

from pier.errors import InvalidParameter

_WIRE = msgspec.json.Decoder(dict[str, list[str] | dict[str, bool]])


class Filters(Struct, frozen=True):
    """Values by key, in the order they were sent. A key with no values asks for nothing."""

    values: dict[str, tuple[str, ...]] = {}

    @classmethod
    def parse(cls, text: str, accepted: Collection[str] | None) -> Self:
        """Decode the query parameter; "" is no filters at all.

        Raises InvalidParameter, in Docker's words, for text that is not filters and for a key that
        is not among `accepted`; None accepts all.
        """
        if not text:
            return cls()
        try:
            decoded = _WIRE.decode(text)
        except msgspec.DecodeError:
            raise InvalidParameter("invalid filter") from None
        for key in decoded:
            if accepted is not None and key not in accepted:
                raise InvalidParameter(f"invalid filter '{key}'")
        return cls({key: tuple(values) for key, values in decoded.items() if values})

    def __bool__(self) -> bool:
        return bool(self.values)

    def __contains__(self, key: str) -> bool:
        return key in self.values

    def get(self, key: str) -> tuple[str, ...]:
        """Return the values asked for under `key`, none when it is absent."""
        return self.values.get(key, ())

    def flag(self, key: str, *, default: bool) -> bool:
        """Return a boolean filter. Raises InvalidParameter unless it is plainly true or false."""
        values = self.get(key)
        if not values:
            return default
        is_true = not {"1", "true"}.isdisjoint(values)
        is_false = not {"0", "false"}.isdisjoint(values)
        if is_true == is_false:
            raise InvalidParameter(f"invalid filter '{key}=[{' '.join(values)}]'")
        return is_true

    def exact(self, key: str, value: str) -> bool:
        """Whether `value` is one of those asked for, or none were."""
        values = self.get(key)
        return not values or value in values

    def prefix(self, key: str, value: str) -> bool:
        """Whether `value` starts with one of those asked for, or none were."""
        values = self.get(key)
        return not values or value.startswith(values)

    def pattern(self, key: str, value: str) -> bool:
        """Whether one of those asked for is `value` or, as a regular expression, is found in it.

        An expression that does not compile matches nothing, as with Docker.
        """
        values = self.get(key)
        return not values or value in values or any(_found(wanted, value) for wanted in values)

    def labels(self, labels: Mapping[str, str], key: str = "label") -> bool:
        """Whether every "name" and "name=value" asked for is among `labels`."""
        for wanted in self.get(key):
            name, has_value, value = wanted.partition("=")
            if name not in labels or (has_value and labels[name] != value):
                return False
        return True

    def without_labels(self, labels: Mapping[str, str]) -> bool:
        """Whether none of the "label!" values (prune's exclusions) is among `labels`."""
        for unwanted in self.get("label!"):
            name, has_value, value = unwanted.partition("=")
            if name in labels and (not has_value or labels[name] == value):
                return False
        return True


def _found(expression: str, value: str) -> bool:
    try:
        return re.search(expression, value) is not None
    except re.error:
        return False
