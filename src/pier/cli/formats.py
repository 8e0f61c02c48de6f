"""What --format and --filter have in common over commands: their flags, their help, one-off output."""

import sys

from pier.cli import kinds
from pier.cli.errors import Failure
from pier.cli.flags import Flag

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from pier.cli.flags import Options

_TABLE = (
    "'table':            Print output in table format with column headers (default)\n"
    "'table TEMPLATE':   Print output in table format using the given Go template\n"
)
_FORMAT = (
    "Format output using a custom template:\n"
    "{}'json':             Print in JSON format\n"
    "'TEMPLATE':         Print output using the given Go template.\n"
    "Refer to https://docs.docker.com/go/formatting/ for more information about formatting "
    "output with templates"
)

TABLE_FORMAT = Flag("format", kinds.STRING, _FORMAT.format(_TABLE))
FORMAT = Flag("format", kinds.STRING, _FORMAT.format(""), short="f")
FORMAT_LONG = Flag("format", kinds.STRING, _FORMAT.format(""))
FILTER = Flag("filter", kinds.FILTER, "Filter output based on conditions provided", short="f")


def filters(options: "Options", extra: "dict[str, list[str]] | None" = None) -> str | None:
    """The `filters` parameter of a list: JSON of key to values; None when there is none."""
    import json

    collected: dict[str, dict[str, bool]] = {}
    pairs = [*options.list("filter"), *((k, v) for k, vs in (extra or {}).items() for v in vs)]
    for key, value in pairs:
        collected.setdefault(key, {})[value] = True
    return json.dumps(collected, separators=(",", ":")) if collected else None


class Format:
    """A template for whole documents: `inspect`, `version`, `info`, `events`.

    Parsed at once, so that a wrong one fails before the engine is asked. `prefix` begins the
    message and `status` is the exit status of a template that cannot be parsed.
    """

    def __init__(
        self, source: str, *, prefix: str = "template parsing error", status: int = 64
    ) -> None:
        from pier.cli.template import Template
        from pier.cli.template_parser import TemplateError

        self._prefix = prefix
        source = "{{json .}}" if source == "json" else source
        try:
            self._template = Template(source)
        except TemplateError as error:
            raise Failure(f"{prefix}: {error}", status) from None

    def render(self, document: "Any") -> str:
        """Raises Failure for a field that does not exist."""
        from pier.cli.template_parser import TemplateError

        try:
            return self._template.render(document)
        except TemplateError as error:
            sys.stdout.write("\n")  # as Docker does, which has written an empty line by then
            raise Failure(f"{self._prefix}: {error}") from None
