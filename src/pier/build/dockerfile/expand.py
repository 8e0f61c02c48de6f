"""Variables in an instruction's words: quotes, escapes, and all forms of `${…}`.

As BuildKit's shell lexer has it: `$x`, `${x}`, and in braces `:-` `-` `:+` `+` `:?` `?`, `#` `##`
`%` `%%` (shortest and longest prefix and suffix) and `/` `//` (replace first and all), where patterns
know `*`, `?` and escapes. No command substitution, no arithmetic.
"""

import re
from collections.abc import Mapping

from pier.build.dockerfile.errors import DockerfileError
from pier.build.words import quoted

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_SPECIAL = frozenset("@*#?-$!0123456789")
_BLANKS = " \t\n"


class Expander:
    """`values` are the variables; `unmatched` collects the names that had no value."""

    def __init__(
        self,
        values: Mapping[str, str],
        *,
        escape: str = "\\",
    ) -> None:
        self._values = values
        self._escape = escape
        self.unmatched: set[str] = set()

    def word(self, text: str) -> str:
        """Expand a text as one word. Raises DockerfileError."""
        return self._read(_Reading(self, text), text)

    def words(self, text: str) -> list[str]:
        """Expand a text and split it at unquoted blanks, also those that variables brought."""
        reading = _Reading(self, text)
        self._read(reading, text)
        return reading.split

    def _read(self, reading: "_Reading", text: str) -> str:
        try:
            return reading.whole()
        except DockerfileError as exc:
            said = f"failed to process {quoted(text)}: {exc.args[0]}"
            raise DockerfileError(said, bare=True) from None

    def value(self, name: str, *, may_be_unset: bool = False) -> str | None:
        found = self._values.get(name)
        if found is None and not may_be_unset:
            self.unmatched.add(name)
        return found

    @property
    def escape(self) -> str:
        return self._escape


class _Reading:
    """One text being read, character by character."""

    def __init__(self, expander: Expander, text: str) -> None:
        self._expander = expander
        self._text = text
        self._at = 0
        self._word = ""
        self._in_word = False
        self.split: list[str] = []

    def whole(self) -> str:
        result = self._until("")
        self._end_word()
        return result

    def _until(self, stop: str) -> str:
        """Read up to one of the characters in `stop`, outside of quotes; it is not taken."""
        result = ""
        while self._at < len(self._text):
            character = self._text[self._at]
            if character in stop:
                return result
            if character == "'":
                piece = self._single()
                self._put(piece)
            elif character == '"':
                piece = self._double()
                self._put(piece)
            elif character == "$":
                piece = self._dollar()
                self._put_split(piece)
            elif character == self._expander.escape:
                piece = self._escaped()
                self._put(piece)
            else:
                self._at += 1
                piece = character
                if character in _BLANKS:
                    self._end_word()
                else:
                    self._put(character)
            result += piece
        if stop:
            raise DockerfileError(f"unexpected end of statement while looking for matching {stop}")
        return result

    def _put(self, piece: str) -> None:
        self._word += piece
        self._in_word = True

    def _put_split(self, piece: str) -> None:
        for character in piece:
            if character in _BLANKS:
                self._end_word()
            else:
                self._put(character)

    def _end_word(self) -> None:
        if self._in_word:
            self.split.append(self._word)
        self._word, self._in_word = "", False

    def _single(self) -> str:
        end = self._text.find("'", self._at + 1)
        if end < 0:
            raise DockerfileError(
                "unexpected end of statement while looking for matching single-quote"
            )
        inside = self._text[self._at + 1 : end]
        self._at = end + 1
        return inside

    def _double(self) -> str:
        self._at += 1
        result = ""
        escape = self._expander.escape
        while self._at < len(self._text):
            character = self._text[self._at]
            if character == '"':
                self._at += 1
                return result
            if character == "$":
                result += self._dollar()
            elif character == escape:
                self._at += 1
                following = self._text[self._at : self._at + 1]
                self._at += 1
                if not following:
                    return result
                # In double quotes only these are escaped; before others the escape stays.
                if following not in ('"', "$", escape):
                    result += escape
                result += following
            else:
                self._at += 1
                result += character
        raise DockerfileError("unexpected end of statement while looking for matching double-quote")

    def _escaped(self) -> str:
        self._at += 1
        following = self._text[self._at : self._at + 1]
        self._at += 1
        if not following:
            return ""
        return following

    def _dollar(self) -> str:
        self._at += 1
        if self._text[self._at : self._at + 1] == "{":
            return self._braces()
        match = _NAME.match(self._text, self._at)
        if match:
            self._at = match.end()
            return self._expander.value(match[0]) or ""
        following = self._text[self._at : self._at + 1]
        if following and following in _SPECIAL:
            self._at += 1
            return self._expander.value(following) or ""
        return "$"

    def _braces(self) -> str:
        self._at += 1
        match = _NAME.match(self._text, self._at)
        if match:
            name = match[0]
        else:
            name = self._text[self._at : self._at + 1]
            if name == "}":
                raise DockerfileError("syntax error: bad substitution: ${}")
            if name not in _SPECIAL:
                raise DockerfileError(f"syntax error: bad substitution: ${{{name}")
        self._at += len(name)
        following = self._text[self._at : self._at + 1]
        if following == "}":
            self._at += 1
            return self._expander.value(name) or ""
        if not following:
            raise DockerfileError("unsupported modifier (\ufffd) in substitution")
        return self._modified(name)

    def _modified(self, name: str) -> str:
        sign = self._text[self._at]
        value = self._expander.value(name, may_be_unset=sign in ":-+?")
        self._at += 1
        if sign == ":":
            sign = self._text[self._at : self._at + 1]
            self._at += 1
            if sign not in ("-", "+", "?"):
                raise DockerfileError(f"unsupported modifier ({sign}) in substitution")
            value = value or None  # with the colon, empty is as good as unset
        if sign in "-+?":
            return self._chosen(name, sign, value)
        if sign in "#%":
            greedy = self._text[self._at : self._at + 1] == sign
            self._at += greedy
            pattern = self._rest("}")
            return _trimmed(value or "", pattern, sign, greedy=greedy, escape=self._expander.escape)
        if sign == "/":
            every = self._text[self._at : self._at + 1] == "/"
            self._at += every
            pattern = self._pattern()
            replacement = self._rest("}")
            found = re.compile(_regex(pattern, self._expander.escape, greedy=True))
            return found.sub(lambda _: replacement, value or "", count=0 if every else 1)
        raise DockerfileError(f"unsupported modifier ({sign}) in substitution")

    def _chosen(self, name: str, sign: str, value: str | None) -> str:
        word = self._rest("}")
        if sign == "-":
            return word if value is None else value
        if sign == "+":
            return "" if value is None else word
        if value is None:
            raise DockerfileError(f"{name}: {word or 'is not allowed to be unset'}")
        return value

    def _pattern(self) -> str:
        """What stands up to an unescaped slash."""
        result = ""
        while self._at < len(self._text):
            character = self._text[self._at]
            self._at += 1
            if character == "/":
                return result
            if character == self._expander.escape:
                following = self._text[self._at : self._at + 1]
                self._at += 1
                result += following if following == "/" else character + following
            elif character == "$":
                self._at -= 1
                result += self._dollar()
            else:
                result += character
        raise DockerfileError("unexpected end of statement while looking for matching /")

    def _rest(self, stop: str) -> str:
        """Read what stands up to the end of the braces, expanded, without splitting it."""
        word, in_word, split = self._word, self._in_word, self.split
        self.split = []
        try:
            result = self._until(stop)
        finally:
            self._word, self._in_word, self.split = word, in_word, split
        self._at += 1
        return result


def _trimmed(value: str, pattern: str, sign: str, *, greedy: bool, escape: str) -> str:
    """Take the shortest or longest prefix (#) or suffix (%) away that fits the pattern."""
    if sign == "#":
        match = re.match(_regex(pattern, escape, greedy=greedy), value)
        return value[match.end() :] if match else value
    whole = re.compile(_regex(pattern, escape, greedy=True) + r"\Z")
    starts = range(len(value) + 1) if greedy else range(len(value), -1, -1)
    for start in starts:
        if whole.match(value, start):
            return value[:start]
    return value


def _regex(pattern: str, escape: str, *, greedy: bool) -> str:
    """A shell pattern of `*`, `?` and escapes as a regular expression."""
    result = ""
    characters = iter(pattern)
    for character in characters:
        if character == escape:
            result += re.escape(next(characters, ""))
        elif character == "*":
            result += "[\\s\\S]*" if greedy else "[\\s\\S]*?"
        elif character == "?":
            result += "[\\s\\S]"
        else:
            result += re.escape(character)
    return result
