"""One option of pierd, as the table of them has it (`settings`)."""

from typing import Any, Literal

from msgspec import Struct

Value = bool | str | int | list[str] | dict[str, Any]


class Option(Struct, frozen=True):
    """An option: flag, one-letter flag, key in the file ("" for none), field of Settings, help.

    One of kind "object" stands in the file only; one of kind "map" is an object of texts there and
    `--flag key=value` here.
    """

    flag: str
    short: str
    key: str
    field: str
    kind: Literal[
        "bool",
        "string",
        "list",
        "number",
        "pools",
        "ulimits",
        "map",
        "runtime",
        "object",
        "features",
        "nested",
    ]
    help: str
