"""A Dockerfile's text as instructions' lines: directives, continuations, comments, heredocs.

The format is that of Dockerfile frontend 1.x (docs.docker.com/reference/dockerfile/#format): what a
line is depends on nothing but the escape directive and, for RUN, COPY and ADD, on heredocs.
"""

import re

from msgspec import Struct

from pier.build.dockerfile.errors import DockerfileError

MAX_BYTES = 16 << 20

_DIRECTIVE = re.compile(r"#\s*([a-zA-Z][a-zA-Z0-9]*)\s*=\s*(.+?)\s*$")
_KNOWN_DIRECTIVES = frozenset(("syntax", "escape", "check"))
_COMMENT = re.compile(r"^\s*#")
_HEREDOC = re.compile(r"^(\d*)<<(-?)([^<]*)$")
_WITH_HEREDOCS = frozenset(("add", "copy", "run"))


class Heredoc(Struct, frozen=True):
    """`<<name` and the lines up to one that is `name`. `expand`: the name was not in quotes.

    `content` ends with a newline unless it is empty, and has no leading tabs where `<<-` was said.
    `file_number` is what stands before `<<`, "" for nothing.
    """

    name: str
    content: str
    expand: bool
    file_number: str = ""


class Line(Struct, frozen=True):
    """One instruction as it was written: `text` is joined over its continuations, without comments.

    `first` and `last` count from 1. `comments` are those right above it, without their `#`.
    `empty_continuation` is the last line of one that has empty lines in it, 0 for none.
    """

    text: str
    first: int
    last: int
    heredocs: tuple[Heredoc, ...] = ()
    comments: tuple[str, ...] = ()
    empty_continuation: int = 0


class Source(Struct, frozen=True):
    """A Dockerfile taken apart: directives by name, in lower case, and its instructions' lines."""

    directives: dict[str, str]
    lines: tuple[Line, ...]
    text: str
    escape: str = "\\"


def read_source(text: str) -> Source:
    """Take a Dockerfile apart. Raises DockerfileError."""
    text = text.removeprefix("\ufeff").replace("\r\n", "\n")
    raw = text.split("\n")
    directives = _directives(raw)
    escape = directives.get("escape", "\\")
    if escape not in ("\\", "`"):
        raise DockerfileError(f"invalid ESCAPE '{escape}'. Must be ` or \\", 1)
    lines = tuple(_Scanner(raw, escape, len(directives)).scan())
    if not lines:
        raise DockerfileError("file with no instructions")
    return Source(directives, lines, text, escape)


def _directives(raw: list[str]) -> dict[str, str]:
    """The `# key=value` lines at the very beginning; the first other line ends them."""
    found: dict[str, str] = {}
    for number, line in enumerate(raw, 1):
        match = _DIRECTIVE.match(line.strip())
        if match is None or match[1].lower() not in _KNOWN_DIRECTIVES:
            break
        key = match[1].lower()
        if key in found:
            raise DockerfileError(f"only one {key} parser directive can be used", number)
        found[key] = match[2]
    return found


class _Scanner:
    def __init__(self, raw: list[str], escape: str, start: int) -> None:
        """`start` is the number of lines that are directives."""
        self._raw = raw
        self._at = start
        self._comments: list[str] = []
        self._continued = re.compile(r"([\s\S]*)" + re.escape(escape) + r"[ \t]*$")
        self._escape = escape

    def scan(self) -> list[Line]:
        found = []
        while self._at < len(self._raw):
            line = self._instruction()
            if line is not None:
                found.append(line)
        return found

    def _instruction(self) -> Line | None:
        first = self._at + 1
        text = self._raw[self._at]
        self._at += 1
        if _COMMENT.match(text):
            self._comments.append(text.strip().removeprefix("#").strip())
            return None
        if not text.strip():
            self._comments.clear()
            return None
        text = text.lstrip(" \t\f\v")
        joined, goes_on = self._trimmed(text)
        has_empty = False
        while goes_on and self._at < len(self._raw):
            more = self._raw[self._at]
            self._at += 1
            if _COMMENT.match(more):
                continue
            if not more.strip():
                has_empty = True
                continue
            piece, goes_on = self._trimmed(more)
            joined += piece
        joined = joined.strip()
        if not joined:
            return None
        empty = self._at if has_empty else 0
        heredocs = self._heredocs(joined, first) if self._may_have_heredocs(joined) else ()
        comments = tuple(self._comments)
        self._comments.clear()
        return Line(joined, first, self._at, heredocs, comments, empty)

    def _trimmed(self, text: str) -> tuple[str, bool]:
        match = self._continued.match(text)
        return (match[1], True) if match else (text, False)

    @staticmethod
    def _may_have_heredocs(text: str) -> bool:
        words = text.split(None, 2)
        if words and words[0].lower() == "onbuild":
            words = words[1:]
        return bool(words) and words[0].lower() in _WITH_HEREDOCS and "<<" in text

    def _heredocs(self, text: str, first: int) -> tuple[Heredoc, ...]:
        found = []
        for word in _shell_words(text, self._escape):
            match = _HEREDOC.match(word)
            if match is None:
                continue
            name, quoted = _unquoted(match[3])
            if not name:
                continue
            number = match[1]
            found.append(self._read(name, match[2] == "-", first, expand=not quoted, number=number))
        return tuple(found)

    def _read(
        self, name: str, strip_tabs: bool, first: int, *, expand: bool, number: str
    ) -> Heredoc:
        content: list[str] = []
        while self._at < len(self._raw):
            line = self._raw[self._at]
            self._at += 1
            bare = line.lstrip("\t") if strip_tabs else line
            if bare == name:
                return Heredoc(name, "".join(content), expand, number)
            content.append(bare + "\n")
        last = self._at - (not self._raw[-1])  # a newline at the end begins no line
        raise DockerfileError("unterminated heredoc", first, last, bare=True)


def _shell_words(text: str, escape: str) -> list[str]:
    """Split at blanks outside of quotes; quotes stay."""
    words: list[str] = []
    word, quote, skip = "", "", False
    for character in text:
        if skip:
            word, skip = word + character, False
        elif character == escape and quote != "'":
            word, skip = word + character, True
        elif quote:
            word += character
            if character == quote:
                quote = ""
        elif character in "\"'":
            word, quote = word + character, character
        elif character in " \t\n":
            if word:
                words.append(word)
            word = ""
        else:
            word += character
    return [*words, word] if word else words


def _unquoted(text: str) -> tuple[str, bool]:
    """The name without its quotes, and whether it had any."""
    for quote in "\"'":
        if len(text) > 1 and text.startswith(quote) and text.endswith(quote):
            return text[1:-1], True
    return text, False
