"""What a check found, and which rules are asked for: the `check` directive."""

from collections.abc import Sequence

from msgspec import Struct

from pier.build.lint.rules import RULES, Rule
from pier.build.words import quoted
from pier.errors import InvalidParameter

_TRUE = ("1", "t", "T", "TRUE", "true", "True")
_FALSE = ("0", "f", "F", "FALSE", "false", "False")


class Finding(Struct, frozen=True):
    """`detail` says what is wrong; lines count from 1."""

    rule: Rule
    detail: str
    first: int
    last: int

    @property
    def short(self) -> str:
        """What is shown after a build."""
        where = f" (line {self.first})" if self.first else ""
        return f"{self.rule.name}: {self.detail}{where}"


class Checks(Struct, frozen=True):
    """Which rules count. `fails` makes a finding an error."""

    skipped: frozenset[str] = frozenset()
    asked: frozenset[str] = frozenset()
    skips_all: bool = False
    asks_all: bool = False
    fails: bool = False

    def wants(self, rule: Rule) -> bool:
        if rule.experimental:
            return self.asks_all or rule.name in self.asked
        return not self.skips_all and rule.name not in self.skipped


def parse_checks(text: str) -> Checks:
    """Parse `skip=A,B;error=true;experimental=all`. Raises InvalidParameter in BuildKit's words."""
    skipped: frozenset[str] = frozenset()
    asked: frozenset[str] = frozenset()
    fails = False
    for part in text.strip().split(";") if text.strip() else ():
        key, equals, value = part.partition("=")
        key, value = key.strip(), value.strip()
        if not equals:
            raise InvalidParameter(f"invalid check option {quoted(part)}")
        names = frozenset(name.strip() for name in value.split(","))
        match key:
            case "skip":
                skipped = names
            case "experimental":
                asked = names
            case "error" if value in (*_TRUE, *_FALSE):
                fails = value in _TRUE
            case "error":
                raise InvalidParameter(f"failed to parse check option {quoted(part)}")
            case _:
                raise InvalidParameter(f"invalid check option {quoted(key)}")
    return Checks(skipped, asked, skipped == {"all"}, asked == {"all"}, fails)


class Findings:
    """Collects what is found, without what was not asked for."""

    def __init__(self, checks: Checks) -> None:
        self.checks = checks
        self.found: list[Finding] = []

    def add(self, name: str, lines: tuple[int, int], *words: object) -> None:
        rule = RULES[name]
        if self.checks.wants(rule):
            finding = Finding(rule, rule.text.format(*words), *lines)
            if finding not in self.found:
                self.found.append(finding)


def violation(found: Sequence[Finding]) -> str:
    """Return what a build fails with whose Dockerfile says `check=error=true`."""
    names = sorted({finding.rule.name for finding in found})
    return "lint violation found for rules: " + ", ".join(names)
