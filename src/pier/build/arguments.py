"""Build arguments: which are in scope where, and which of them a step's environment has.

Before the first FROM there is the global scope; a stage sees of it what its own ARGs name. Those of
the platform need an ARG to be seen in a stage, those of proxies none, and they are not part of
history or cache (docs.docker.com/reference/dockerfile/#arg).
"""

from collections.abc import Collection, Mapping

from pier.model.platform import Platform

PROXIES = frozenset(
    name
    for upper in ("HTTP_PROXY", "HTTPS_PROXY", "FTP_PROXY", "NO_PROXY", "ALL_PROXY")
    for name in (upper, upper.lower())
)
EPOCH = "SOURCE_DATE_EPOCH"


class Arguments:
    """`given` are the client's. A stage's own arguments are made by `stage`."""

    def __init__(
        self, given: Mapping[str, str | None], platforms: Mapping[str, str], used: set[str]
    ) -> None:
        # Those without a value are the client's too: it was asked for them and has none itself.
        self._asked = frozenset(given)
        self._given = {name: value for name, value in given.items() if value is not None}
        self._platforms = platforms
        self._globals: dict[str, str] = {}
        self._declared: dict[str, str | None] = {}
        self._used = used

    @classmethod
    def make(
        cls, given: Mapping[str, str | None], target: Platform, build: Platform
    ) -> "Arguments":
        return cls(given, platform_arguments(target, build), set())

    def stage(self) -> "Arguments":
        """Return the arguments of a stage, in which none is declared yet."""
        stage = Arguments(self._given, self._platforms, self._used)
        stage._globals = self.globals
        return stage

    def stage_on(self, parent: "Arguments") -> "Arguments":
        """Return these of a stage with what the stage that it stands on has declared."""
        stage = Arguments(self._given, self._platforms, self._used)
        stage._globals = self._globals
        stage._declared = parent.values_declared()
        return stage

    def values_declared(self) -> dict[str, str | None]:
        """Return a copy of what ARGs have declared, with None for no value."""
        return dict(self._declared)

    @property
    def declared(self) -> Collection[str]:
        """The names that ARGs of this scope have given, with or without a value."""
        return self._declared.keys()

    @property
    def globals(self) -> dict[str, str]:
        """What a FROM sees."""
        found = dict(self._platforms)
        found.update({k: v for k, v in self._declared.items() if v is not None})
        return found

    def declare(self, name: str, default: str | None) -> None:
        """An ARG: the client's value wins, then the default, then the global scope's."""
        self._used.add(name)
        value = self._given.get(name, default)
        if value is None:
            value = self._globals.get(name, self._platforms.get(name))
        self._declared[name] = value

    def values(self) -> dict[str, str]:
        """What an instruction's words see, beside the environment."""
        return {name: value for name, value in self._declared.items() if value is not None}

    def environment(self, present: Mapping[str, str]) -> dict[str, str]:
        """What a RUN has in its environment that is not in `present`, in order of names."""
        found = {name: value for name, value in self._given.items() if name in PROXIES}
        found.update(self.values())
        return {name: found[name] for name in sorted(found) if name not in present}

    def recorded(self, environment: Mapping[str, str]) -> dict[str, str]:
        """Return what of that environment history and cache know of."""
        return {
            name: value
            for name, value in environment.items()
            if name not in PROXIES or name in self._declared
        }

    @property
    def epoch(self) -> int | None:
        """SOURCE_DATE_EPOCH in seconds, when the client gave one."""
        text = self._given.get(EPOCH, "")
        return int(text) if text.isdecimal() else None

    def unused(self) -> list[str]:
        """Return what the client gave and no ARG named, sorted."""
        known = self._used | PROXIES | {EPOCH}
        return sorted(self._asked - known)


def platform_arguments(target: Platform, build: Platform) -> dict[str, str]:
    found = {}
    for prefix, platform in (("TARGET", target), ("BUILD", build)):
        found[f"{prefix}PLATFORM"] = str(platform)
        found[f"{prefix}OS"] = platform.os
        found[f"{prefix}ARCH"] = platform.architecture
        found[f"{prefix}VARIANT"] = platform.variant
    return found
