"""Tables, and lists in the user's own format: what `ps`, `images` and `history` print.

A table's cells are separated by tabs, aligned as Go's text/tabwriter does with Docker's settings:
columns at least ten wide, three spaces between them, the last one as long as it is.
"""

import sys

from pier.cli.errors import Failure

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def align(lines: "list[str]", least: int = 10) -> str:
    """Align lines of tab-separated cells; `least` is the smallest width of a column."""
    rows = [line.split("\t") for line in lines]
    widths: list[int] = []
    for row in rows:
        for column, cell in enumerate(row[:-1]):
            if column == len(widths):
                widths.append(least)
            widths[column] = max(widths[column], len(cell) + 3)
    return "".join(
        "".join(cell.ljust(widths[column]) for column, cell in enumerate(row[:-1])) + row[-1] + "\n"
        for row in rows
    )


class Listing:
    """How rows of one kind are shown.

    `headers` maps field to column title; `default` is the template of the table; `what` is the name
    of the row's type in error messages; `quiet` the template for -q.
    """

    def __init__(
        self, headers: "dict[str, str]", default: str, *, what: str, quiet: str = "{{.ID}}"
    ) -> None:
        self.headers = headers
        self.default = default
        self.what = what
        self.quiet = quiet

    def source(self, given: str, *, quiet: bool = False) -> str:
        """The template that --format and -q ask for."""
        if quiet and given in ("", "table"):
            return self.quiet
        if given in ("", "table"):
            return "table " + self.default
        return "{{json .}}" if given == "json" else given

    def check(self, source: str) -> None:
        """Parse the template, so that a wrong one fails before anything is asked of the engine."""
        self._template(source)

    def _template(self, source: str, *, header: bool = False) -> "Any":
        from pier.cli import template_functions
        from pier.cli.template import Template
        from pier.cli.template_parser import TemplateError

        functions = dict(template_functions.FUNCTIONS)
        functions["json"] = lambda value: template_functions.to_json(
            visible(value) if isinstance(value, dict) else value, escape_html=True
        )
        if header:
            functions = template_functions.HEADER_FUNCTIONS
        body = source.removeprefix("table ").replace("\\t", "\t").replace("\\n", "\n")
        try:
            return Template(body.strip() if header else body, what=self.what, functions=functions)
        except TemplateError as error:
            raise Failure(f"failed to parse template: {error}") from None

    def write(self, source: str, rows: "list[dict[str, Any]]") -> None:
        """Print the rows. Raises Failure for a field that does not exist."""
        from pier.cli.template_parser import TemplateError

        table = source.startswith("table ")
        template = self._template(source)
        try:
            lines = [template.render(row) for row in rows]
            if table:
                headers = {**self.headers, "Label": label_header}
                lines.insert(0, self._template(source, header=True).render(headers))
        except TemplateError as error:
            raise Failure(f"failed to execute template: {error}") from None
        text = align(lines) if table else "".join(line + "\n" for line in lines)
        sys.stdout.write(text)


def visible(row: "dict[str, Any]") -> "dict[str, Any]":
    """A row's own fields in order of name, without its methods."""
    return {key: value for key, value in sorted(row.items()) if not callable(value)}


def label_header(name: str) -> str:
    """The column title of a label: its last part, dashes and underscores as spaces."""
    return name.rsplit(".", maxsplit=1)[-1].replace("-", " ").replace("_", " ")


def ellipsis(text: str, length: int) -> str:
    """Cut `text` to `length` characters, the last one an ellipsis."""
    return text if len(text) <= length else text[: length - 1] + "…"


def short_id(identifier: str) -> str:
    """Twelve digits, without the algorithm of a digest."""
    return identifier.rpartition("sha256:")[2][:12]
