"""The functions of Go templates and Docker's own, and how Go prints, compares and judges values."""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any


def printed(value: "Any") -> str:
    """A value as fmt's %v prints it."""
    if value is None:
        return "<no value>"
    return _plain(value)


def _plain(value: "Any") -> str:
    if isinstance(value, str):
        return value
    if value is None:
        return "<nil>"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return _float(value)
    if isinstance(value, dict):
        return "map[" + " ".join(f"{k}:{_plain(v)}" for k, v in sorted(value.items())) + "]"
    if isinstance(value, list | tuple):
        return "[" + " ".join(_plain(item) for item in value) + "]"
    return str(value)


def _float(value: float) -> str:
    text = f"{value:.17g}" if float(f"{value:.15g}") != value else f"{value:.15g}"
    return repr(value) if len(repr(value)) < len(text) and "." in repr(value) else text


def is_true(value: "Any") -> bool:
    """Go's truth: not false, 0, nil or empty."""
    return bool(value)


def to_json(value: "Any", *, escape_html: bool = False) -> str:
    """Compact JSON as Go's encoder writes it."""
    import json

    text = json.dumps(value, separators=(",", ":"), ensure_ascii=False)
    text = text.replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")
    if escape_html:
        for character in "<>&":
            text = text.replace(character, f"\\u{ord(character):04x}")
    return text


def _index(value: "Any", *keys: "Any") -> "Any":
    for key in keys:
        if isinstance(value, dict):
            value = value.get(str(key), "")
        elif isinstance(value, list | str):
            if not isinstance(key, int):
                raise TypeError(f"cannot index slice/array with type {type(key).__name__}")
            if not 0 <= key < len(value):
                raise ValueError(f"index out of range: {key}")
            value = value[key] if isinstance(value, list) else value.encode()[key]
        elif value is None:
            raise ValueError("index of untyped nil")
        else:
            raise ValueError(f"can't index item of type {type(value).__name__}")
    return value


def _slice(value: "list[Any] | str", *bounds: int) -> "list[Any] | str":
    low = bounds[0] if bounds else 0
    high = bounds[1] if len(bounds) > 1 else len(value)
    if not 0 <= low <= high <= len(value):
        raise ValueError(f"index out of range: {high if high > len(value) else low}")
    return value[low:high]


def _length(value: "Any") -> int:
    if isinstance(value, str):
        return len(value.encode())
    if isinstance(value, list | dict):
        return len(value)
    raise ValueError(
        f"len of type {type(value).__name__}" if value is not None else "len of nil pointer"
    )


def _equal(first: "Any", *others: "Any") -> bool:
    if not others:
        raise ValueError("missing argument for comparison")
    for other in others:
        if isinstance(first, str) != isinstance(other, str) and None not in (first, other):
            raise ValueError("incompatible types for comparison")
    return any(first == other for other in others)


def _less(first: "Any", second: "Any") -> bool:
    if isinstance(first, str) != isinstance(second, str):
        raise ValueError("incompatible types for comparison")
    return bool(first < second)


def _print(*values: "Any") -> str:
    # fmt.Sprint puts a space between two operands when neither is a string.
    text = ""
    for place, value in enumerate(values):
        if place and not isinstance(value, str) and not isinstance(values[place - 1], str):
            text += " "
        text += _plain(value)
    return text


def _println(*values: "Any") -> str:
    return " ".join(_plain(value) for value in values) + "\n"


def _printf(form: str, *values: "Any") -> str:
    import re

    rest = list(values)

    def verb(match: "re.Match[str]") -> str:
        flags, letter = match.group(1), match.group(2)
        if letter == "%":
            return "%"
        if not rest:
            return f"%!{letter}(MISSING)"
        return _formatted(flags, letter, rest.pop(0))

    text = re.sub(r"%([-+# 0]*\d*(?:\.\d*)?)([a-zA-Z%])", verb, form)
    if rest:
        extra = ", ".join(f"{_go_type(value)}={_plain(value)}" for value in rest)
        text += f"%!(EXTRA {extra})"
    return text


def _formatted(flags: str, letter: str, value: "Any") -> str:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if letter in "dxXobcefgEG" and number:
        kind = float(value) if letter in "efgEG" else value
        if letter == "b":
            return format(value, "b")
        return f"%{flags}{letter}" % kind
    if letter == "q":
        return f"%{flags}s" % to_json(_plain(value))
    if letter == "T":
        return _go_type(value)
    if letter in "svt":
        return f"%{flags}s" % _plain(value)
    if letter in "xX" and isinstance(value, str):
        digits = value.encode().hex()
        return digits.upper() if letter == "X" else digits
    return f"%!{letter}({_go_type(value)}={_plain(value)})"


def _go_type(value: "Any") -> str:
    names = {bool: "bool", int: "int", float: "float64", str: "string", list: "[]interface {}"}
    return names.get(type(value), "map[string]interface {}" if value is not None else "<nil>")


def _join(values: "list[Any] | None", separator: str) -> str:
    return separator.join(_plain(value) for value in values or [])


def _title(text: str) -> str:
    return "".join(
        c.upper() if not place or text[place - 1].isspace() else c for place, c in enumerate(text)
    )


def _pad(text: str, before: int, after: int) -> str:
    return " " * before + text + " " * after if text else text


def _truncate(text: str, length: int) -> str:
    return text[:length]


def _html(*values: "Any") -> str:
    from html import escape

    return escape(_print(*values)).replace("&#x27;", "&#39;").replace("&quot;", "&#34;")


def _url_query(*values: "Any") -> str:
    from pier.cli.http import quote

    return quote(_print(*values)).replace("%20", "+")


def _js(*values: "Any") -> str:
    text = _print(*values)
    for character in "\\'\"":
        text = text.replace(character, "\\" + character)
    for character in "<>&=":
        text = text.replace(character, f"\\u{ord(character):04X}")
    return text


FUNCTIONS: "dict[str, Callable[..., Any]]" = {
    "eq": _equal,
    "ge": lambda a, b: not _less(a, b),
    "gt": lambda a, b: not _less(a, b) and a != b,
    "html": _html,
    "index": _index,
    "join": _join,
    "js": _js,
    "json": to_json,
    "le": lambda a, b: _less(a, b) or a == b,
    "len": _length,
    "lower": str.lower,
    "lt": _less,
    "ne": lambda a, b: not _equal(a, b),
    "not": lambda value: not is_true(value),
    "pad": _pad,
    "print": _print,
    "printf": _printf,
    "println": _println,
    "slice": _slice,
    "split": str.split,
    "title": _title,
    "truncate": _truncate,
    "upper": str.upper,
    "urlquery": _url_query,
}

# For the header of a table: what would change a value leaves the column's name alone.
HEADER_FUNCTIONS: "dict[str, Callable[..., Any]]" = {
    **FUNCTIONS,
    **dict.fromkeys(
        ("json", "join", "split", "lower", "upper", "title", "truncate", "pad"),
        lambda value, *_: value,
    ),
}
