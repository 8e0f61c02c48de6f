"""pierd's command line, read as pflag reads one, and its help."""

from collections.abc import Iterator, Sequence
from typing import Literal

from pier.engine.settings_option import Option, Value
from pier.engine.settings_table import BY_FLAG, BY_SHORT, FIXED, NOT_YET
from pier.errors import InvalidParameter, Unsupported

_TRUE = ("1", "t", "T", "TRUE", "true", "True")
_FALSE = ("0", "f", "F", "FALSE", "false", "False")


def usage() -> str:
    """Return the text of `--help`."""
    lines = [
        "Usage: pierd [OPTIONS]",
        "",
        "A container engine, drop-in for dockerd.",
        "",
        "Options:",
    ]
    for option in BY_FLAG.values():
        short = f"-{option.short}, " if option.short else "    "
        kind = "" if option.kind == "bool" else " " + option.kind
        lines.append(f"  {short}--{option.flag + kind:<22} {option.help}")
    return "\n".join(lines)


def parse_flags(argv: Sequence[str]) -> dict[str, Value]:
    """Return the values by flag, as pflag reads a command line: `--a b`, `--a=b`, `-ab`, `-a b`."""
    values: dict[str, Value] = {}
    words = iter(argv)
    for word in words:
        if word.startswith("--") and len(word) > 2:
            name, has_value, text = word[2:].partition("=")
            _store(values, known(name), text if has_value else None, words, "--" + name)
        elif word.startswith("-") and len(word) > 1:
            _parse_shorthands(values, word, words)
        else:
            raise InvalidParameter("\"pierd\" accepts no arguments.\nSee 'pierd --help'.")
    return values


def known(name: str) -> Option:
    if option := BY_FLAG.get(name):
        return option
    if name in FIXED:
        kind: Literal["bool", "string"] = "bool" if isinstance(FIXED[name][0], bool) else "string"
        return Option(name, "", name, "", kind, "")
    if name in NOT_YET:
        raise Unsupported(f"flag --{name} is not supported by pierd yet")
    raise InvalidParameter(f"unknown flag: --{name}\nSee 'pierd --help'.")


def _parse_shorthands(values: dict[str, Value], word: str, words: Iterator[str]) -> None:
    for position, letter in enumerate(word[1:], 1):
        option = BY_SHORT.get(letter)
        if option is None:
            raise InvalidParameter(
                f"unknown shorthand flag: '{letter}' in {word}\nSee 'pierd --help'."
            )
        rest = word[position + 1 :]
        if rest.startswith("=") or (rest and option.kind != "bool"):
            _store(values, option, rest.removeprefix("="), words, f"-{letter}, --{option.flag}")
            return
        _store(values, option, None, words, f"'{letter}' in {word}")


def _store(
    values: dict[str, Value], option: Option, text: str | None, words: Iterator[str], shown: str
) -> None:
    if option.kind == "bool":
        values[option.flag] = True if text is None else _parse_bool(text, shown)
        return
    if text is None:
        text = next(words, None)
    if text is None:
        raise InvalidParameter(f"flag needs an argument: {shown}\nSee 'pierd --help'.")
    if option.kind == "map":
        _store_pair(values, option, text, shown)
    elif option.kind in ("list", "pools", "ulimits", "runtime", "features", "nested"):
        so_far = values.setdefault(option.flag, [])
        assert isinstance(so_far, list)
        so_far.append(text)
    else:
        values[option.flag] = text


def _store_pair(values: dict[str, Value], option: Option, text: str, shown: str) -> None:
    key, equals, value = text.partition("=")
    if not equals:
        raise InvalidParameter(f'invalid argument "{text}" for "{shown}" flag: bad format {text}')
    pairs = values.setdefault(option.flag, {})
    assert isinstance(pairs, dict)
    pairs[key] = value


def _parse_bool(text: str, shown: str) -> bool:
    if text not in _TRUE and text not in _FALSE:
        raise InvalidParameter(
            f'invalid argument "{text}" for "{shown}" flag: '
            f'strconv.ParseBool: parsing "{text}": invalid syntax'
        )
    return text in _TRUE
