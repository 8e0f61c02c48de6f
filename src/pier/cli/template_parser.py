"""Go's text/template, parsed: the part of the language that --format uses.

Text and actions; fields, variables, literals, pipelines, parentheses; if, else if, range, with,
variables, comments, trim markers. No templates by name (define, template, block), no break or
continue. Grammar: https://pkg.go.dev/text/template; evaluation is in `pier.cli.template`.

    node    = ("text", str) | ("action", declare, pipe)
            | ("if" | "with" | "range", declare, pipe, body, otherwise)
    declare = names of the variables that are set: [] or ["$x"] or ["$i", "$x"]
    pipe    = list of calls; a call is a list of operands, the value of the last pipe goes last
    operand = ("field", names, at, text) | ("var", name, names, at, text) | ("const", value)
            | ("func", name, at) | ("sub", pipe, names, at, text)

`at` is the column of an operand, for error messages.
"""

import re

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    Node = tuple[Any, ...]
    Operand = tuple[Any, ...]
    Call = list[Operand]
    Pipe = list[Call]


class TemplateError(Exception):
    """A template that cannot be parsed or executed; `str()` is Go's message."""


_TOKENS = re.compile(
    r"""(?P<space>\s+)
      | (?P<string>"(?:[^"\\\n]|\\.)*" | `[^`]*`)
      | (?P<char>'(?:[^'\\\n]|\\.)+')
      | (?P<number>[-+]?\d[\w.]*)
      | (?P<field>\.[A-Za-z_]\w*)
      | (?P<dot>\.)
      | (?P<var>\$\w*)
      | (?P<name>[A-Za-z_]\w*)
      | (?P<assign>:=|=)
      | (?P<punct>[(),|])""",
    re.VERBOSE,
)
_ACTION = re.compile(
    r'(?:"(?:[^"\\\n]|\\.)*"|`[^`]*`|/\*.*?\*/|[^"`}]|}(?!}))*?(?=\s-}}|}})', re.DOTALL
)


def _fail(line: int, message: str) -> TemplateError:
    return TemplateError(f"template: :{line}: {message}")


def unquote(text: str) -> str:
    """The value of a Go string or character literal."""
    if text[0] == "`":
        return text[1:-1]
    body = text[1:-1]
    if "\\" not in body:
        return body
    return body.encode("latin-1", "backslashreplace").decode("unicode_escape")


class _Parser:
    def __init__(self, source: str, functions: "frozenset[str]") -> None:
        self._functions = functions
        self._items = _split(source)
        self._index = 0

    def parse(self) -> "list[Node]":
        body, end = self._body()
        if end is not None:
            raise _fail(end[1], f"unexpected {{{{{end[0]}}}}}")
        return body

    def _body(self) -> "tuple[list[Node], tuple[str, int, _Tokens] | None]":
        """Nodes up to an `else`, an `end`, or the end of the source."""
        nodes: list[Node] = []
        while self._index < len(self._items):
            kind, line, content = self._items[self._index]
            self._index += 1
            if kind == "text":
                nodes.append(("text", content))
                continue
            tokens = _Tokens(content, line, self._functions)
            word = tokens.keyword()
            if word in ("else", "end"):
                return nodes, (word, line, tokens)
            if word in ("if", "with", "range"):
                nodes.append(self._block(word, tokens))
            elif word:
                raise _fail(line, f"unexpected {word} in command")
            else:
                declare = tokens.declaration()
                nodes.append(("action", declare, tokens.pipeline()))
                tokens.finish()
        return nodes, None

    def _block(self, word: str, tokens: "_Tokens") -> "Node":
        declare = tokens.declaration()
        pipe = tokens.pipeline()
        tokens.finish()
        body, end = self._body()
        otherwise: list[Node] = []
        if end is not None and end[0] == "else":
            follow = end[2]
            chained = follow.keyword()
            if chained in ("if", "with"):
                otherwise = [self._block(chained, follow)]
                return (word, declare, pipe, body, otherwise)
            otherwise, end = self._body()
        if end is None or end[0] != "end":
            raise _fail(tokens.line, "unexpected EOF")
        return (word, declare, pipe, body, otherwise)


class _Tokens:
    """The tokens of one action."""

    def __init__(self, content: "tuple[str, int]", line: int, functions: "frozenset[str]") -> None:
        text, column = content
        self.line = line
        self._functions = functions
        self._tokens: list[tuple[str, str, int]] = []
        at = 0
        while at < len(text):
            match = _TOKENS.match(text, at)
            if match is None:
                raise _fail(line, f"unexpected {text[at]!r} in command")
            self._tokens.append((str(match.lastgroup), match.group(), column + at))
            at = match.end()
        self._skip_space()

    def _skip_space(self) -> bool:
        skipped = False
        while self._tokens and self._tokens[0][0] == "space":
            self._tokens.pop(0)
            skipped = True
        return skipped

    def _peek(self) -> "tuple[str, str]":
        return self._tokens[0][:2] if self._tokens else ("end", "")

    def keyword(self) -> str:
        kind, text = self._peek()
        words = ("if", "else", "end", "range", "with", "define", "template", "block", "break")
        if kind == "name" and text in (*words, "continue"):
            self._tokens.pop(0)
            self._skip_space()
            return text
        return ""

    def declaration(self) -> "list[str]":
        """`$x :=` or `$i, $x :=`, if there is one."""
        kinds = [(kind, text) for kind, text, _ in self._tokens if kind != "space"]
        shape = [text if kind == "punct" else kind for kind, text in kinds[:4]]
        if shape[:2] == ["var", "assign"]:
            names = [kinds[0][1]]
        elif shape == ["var", ",", "var", "assign"]:
            names = [kinds[0][1], kinds[2][1]]
        else:
            return []
        while self._tokens.pop(0)[0] != "assign":
            pass
        self._skip_space()
        return names

    def pipeline(self) -> "Pipe":
        calls: Pipe = [self._call()]
        while self._peek() == ("punct", "|"):
            self._tokens.pop(0)
            self._skip_space()
            calls.append(self._call())
        return calls

    def _call(self) -> "Call":
        operands: Call = []
        while self._peek()[0] != "end" and self._peek()[1] not in ("|", ")"):
            operands.append(self._operand())
            if not self._skip_space():
                break
        if not operands:
            raise _fail(self.line, "missing value for command")
        return operands

    def _operand(self) -> "Operand":
        kind, text, at = self._tokens.pop(0)
        if kind in ("string", "char"):
            return ("const", unquote(text) if kind == "string" else ord(unquote(text)))
        if kind == "number":
            return ("const", _number(text, self.line))
        if kind == "name":
            return self._name(text, at)
        if kind == "field":
            names, place, tail = self._chain(at)
            return ("field", [text[1:], *names], place, text + tail)
        if kind == "dot":
            return ("field", [], at, ".")
        if kind == "var":
            names, place, tail = self._chain(at)
            return ("var", text, names, place, text + tail)
        if text == "(":
            self._skip_space()
            pipe = self.pipeline()
            if self._peek() != ("punct", ")"):
                raise _fail(self.line, "unclosed left paren")
            self._tokens.pop(0)
            names, place, tail = self._chain(at)
            return ("sub", pipe, names, place, tail)
        raise _fail(self.line, f"unexpected {text!r} in operand")

    def _name(self, text: str, at: int) -> "Operand":
        constants = {"true": True, "false": False, "nil": None}
        if text in constants:
            return ("const", constants[text])
        if text not in self._functions:
            raise _fail(self.line, f'function "{text}" not defined')
        return ("func", text, at)

    def _chain(self, at: int) -> "tuple[list[str], int, str]":
        """The `.B.C` after `.A`; Go places a chain at its second field."""
        names: list[str] = []
        place = at
        while self._peek()[0] == "field":
            _, text, column = self._tokens.pop(0)
            if not names:
                place = column
            names.append(text[1:])
        return names, place, "".join("." + name for name in names)

    def finish(self) -> None:
        self._skip_space()
        if self._tokens:
            raise _fail(self.line, f"unexpected {self._tokens[0][1]!r} in command")


def _number(text: str, line: int) -> "int | float":
    try:
        return int(text, 0)
    except ValueError:
        pass
    try:
        return float(text)
    except ValueError:
        raise _fail(line, f"bad number syntax: {text!r}") from None


def _split(source: str) -> "list[tuple[str, int, Any]]":
    """Cut text from actions; trim markers are applied to the text around them."""
    items: list[tuple[str, int, Any]] = []
    at = 0
    trim_next = False
    while True:
        start = source.find("{{", at)
        text = source[at:] if start < 0 else source[at:start]
        text = text.lstrip() if trim_next else text
        trim_before = start >= 0 and source[start + 2 : start + 3] == "-"
        trim_before = trim_before and source[start + 3 : start + 4].isspace()
        text = text.rstrip() if trim_before else text
        if text:
            items.append(("text", 0, text))
        if start < 0:
            return items
        line = source.count("\n", 0, start) + 1
        inner = start + (3 if trim_before else 2)
        match = _ACTION.match(source, inner)
        if match is None:
            raise _fail(line, "unclosed action")
        content = match.group()
        at = match.end()
        trim_next = not source.startswith("}}", at)
        at = source.index("}}", at) + 2
        if not content.strip().startswith("/*"):
            column = inner - (source.rfind("\n", 0, start) + 1)
            items.append(("action", line, (content, column)))


def parse(source: str, functions: "frozenset[str]") -> "list[Node]":
    """Parse `source`; `functions` are the names that may be called. Raises TemplateError."""
    return _Parser(source, functions).parse()
