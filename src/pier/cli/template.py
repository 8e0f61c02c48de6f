"""Go templates for --format, executed over the API's JSON (text/template of the Go library).

Values are what JSON gives: dict, list, str, int, float, bool, None. A dict may hold callables: they
are the methods with arguments that Docker's formatter has, such as `.Label "name"`.

Functions: Go's own (and or not eq ne lt le gt ge index slice len print printf println html js
urlquery) and Docker's (json join split title lower upper pad truncate).
"""

from pier.cli import template_functions
from pier.cli.template_parser import TemplateError, parse

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from pier.cli.template_parser import Call, Node, Operand, Pipe

    Functions = dict[str, Callable[..., Any]]


class Template:
    """A parsed template. `what` names the root's type in Go's error for a missing field.

    With `what` "" the root is a map, and a missing key is an error in a map's words.
    """

    def __init__(
        self, source: str, *, what: str = "", functions: "Functions | None" = None
    ) -> None:
        self._functions = functions or template_functions.FUNCTIONS
        self._nodes = parse(source, frozenset(self._functions) | {"and", "or"})
        self._what = what

    def render(self, data: "Any") -> str:
        """Execute over `data`. Raises TemplateError."""
        output: list[str] = []
        _Run(self._functions, self._what, data, output).nodes(self._nodes, data)
        return "".join(output)


class _Run:
    def __init__(self, functions: "Functions", what: str, data: "Any", output: "list[str]") -> None:
        self._functions = functions
        self._what = what
        self._root = data
        self._output = output
        self._variables: dict[str, Any] = {"$": data}

    def nodes(self, nodes: "list[Node]", dot: "Any") -> None:
        for node in nodes:
            match node[0]:
                case "text":
                    self._output.append(node[1])
                case "action":
                    value = self._pipe(node[2], dot)
                    if node[1]:
                        self._variables[node[1][0]] = value
                    else:
                        self._output.append(template_functions.printed(value))
                case "range":
                    self._range(node, dot)
                case keyword:
                    value = self._pipe(node[2], dot)
                    if node[1]:
                        self._variables[node[1][0]] = value
                    if template_functions.is_true(value):
                        self.nodes(node[3], value if keyword == "with" else dot)
                    else:
                        self.nodes(node[4], dot)

    def _range(self, node: "Node", dot: "Any") -> None:
        _, declare, pipe, body, otherwise = node
        value = self._pipe(pipe, dot)
        pairs: list[tuple[Any, Any]]
        if isinstance(value, dict):
            pairs = sorted(value.items())
        elif isinstance(value, list):
            pairs = list(enumerate(value))
        elif isinstance(value, int) and not isinstance(value, bool):
            pairs = [(number, number) for number in range(value)]
        elif value is None:
            pairs = []
        else:
            raise TemplateError(f"range can't iterate over {template_functions.printed(value)}")
        if not pairs:
            self.nodes(otherwise, dot)
        for key, item in pairs:
            if len(declare) == 2:
                self._variables[declare[0]] = key
            if declare:
                self._variables[declare[-1]] = item
            self.nodes(body, item)

    def _pipe(self, pipe: "Pipe", dot: "Any") -> "Any":
        value = self._call(pipe[0], dot)
        for call in pipe[1:]:
            value = self._call(call, dot, (value,))
        return value

    def _call(self, call: "Call", dot: "Any", piped: "tuple[Any, ...]" = ()) -> "Any":
        first, rest = call[0], call[1:]
        if first[0] == "func":
            return self._function(first, rest, dot, piped)
        value = self._operand(first, dot, [*rest] or None, piped)
        if (rest or piped) and first[0] not in ("field", "var", "sub"):
            raise TemplateError(f"can't give argument to non-function {first[-1]}")
        return value

    def _function(
        self, first: "Operand", rest: "Call", dot: "Any", piped: "tuple[Any, ...]"
    ) -> "Any":
        name = first[1]
        if name in ("and", "or"):  # these stop at the first operand that decides
            value: Any = None
            for argument in [*rest, *(("const", item) for item in piped)]:
                value = self._argument(argument, dot)
                if template_functions.is_true(value) is (name == "or"):
                    break
            return value
        arguments = [*(self._argument(operand, dot) for operand in rest), *piped]
        try:
            return self._functions[name](*arguments)
        except (TypeError, ValueError, IndexError) as error:
            raise TemplateError(
                f'template: :1:{first[2]}: executing "" at <{name}>: error calling {name}: {error}'
            ) from None

    def _argument(self, operand: "Operand", dot: "Any") -> "Any":
        if operand[0] == "func":
            return self._function(operand, [], dot, ())
        return self._operand(operand, dot, None, ())

    def _operand(
        self,
        operand: "Operand",
        dot: "Any",
        arguments: "Call | None",
        piped: "tuple[Any, ...]",
    ) -> "Any":
        match operand:
            case ("const", value):
                return value
            case ("field", names, at, text):
                value = dot
            case ("var", name, names, at, text):
                if name not in self._variables:
                    raise TemplateError(f'template: :1: undefined variable "{name}"')
                value = self._variables[name]
            case (_, pipe, names, at, text):
                value = self._pipe(pipe, dot)
            case _:
                raise AssertionError(operand)
        given = [*(self._argument(item, dot) for item in arguments or ()), *piped]
        for place, name in enumerate(names):
            last = place == len(names) - 1
            value = self._field(value, name, at, text, given if last else [])
        if given and not names:
            raise TemplateError(f"can't give argument to non-function {text}")
        return value

    def _field(self, value: "Any", name: str, at: int, text: str, given: "list[Any]") -> "Any":
        place = f'template: :1:{at}: executing "" at <{text}>: '
        if isinstance(value, dict):
            if name in value:
                found = value[name]
                return found(*given) if callable(found) else found
            if value is self._root and self._what:
                raise TemplateError(f"{place}can't evaluate field {name} in type {self._what}")
            raise TemplateError(f'{place}map has no entry for key "{name}"')
        if value is None:
            raise TemplateError(f"{place}nil pointer evaluating interface {{}}.{name}")
        raise TemplateError(f"{place}can't evaluate field {name} in type interface {{}}")
