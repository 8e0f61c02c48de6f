"""`HostConfig.SecurityOpt`, parsed: no-new-privileges, seccomp, apparmor, label, writable-cgroups.

`label` options are for SELinux. Like a dockerd without --selinux-enabled, Pier accepts them and
labels nothing; the same goes for the z and Z of a bind.
"""

from collections.abc import Iterable
from typing import NamedTuple

from pier.errors import InvalidParameter

# Go's strconv.ParseBool.
BOOLEANS = dict.fromkeys(("1", "t", "T", "TRUE", "true", "True"), True) | dict.fromkeys(
    ("0", "f", "F", "FALSE", "false", "False"), False
)


_WORDS = {
    "no-new-privileges": ("no-new-privileges", "true"),
    "writable-cgroups": ("writable-cgroups", "true"),
    "disable": ("label", "disable"),
}


class SecurityOptions(NamedTuple):
    """`seccomp` is "" (the default profile), "builtin", "unconfined" or a profile's JSON text."""

    no_new_privileges: bool = False
    seccomp: str = ""
    apparmor: str = ""
    writable_cgroups: bool | None = None


NONE = SecurityOptions()


def parse(options: Iterable[str] | None) -> SecurityOptions:
    """Raises InvalidParameter in dockerd's words for what it does not know."""
    if not options:
        return NONE
    no_new_privileges, seccomp, apparmor = False, "", ""
    writable_cgroups: bool | None = None
    for option in options:
        key, value = _split(option)
        match key:
            case "label":
                pass
            case "apparmor":
                apparmor = value
            case "seccomp":
                seccomp = value
            case "no-new-privileges" if value in BOOLEANS:
                no_new_privileges = BOOLEANS[value]
            case "writable-cgroups" if value in BOOLEANS:
                writable_cgroups = BOOLEANS[value]
            case _:
                raise InvalidParameter(f"invalid --security-opt 2: {quote(option)}")
    return SecurityOptions(no_new_privileges, seccomp, apparmor, writable_cgroups)


def _split(option: str) -> tuple[str, str]:
    """("key", "value") of "key=value", or of the older "key:value" and of lone words."""
    if option in _WORDS:
        return _WORDS[option]
    key, separator, value = option.partition("=" if "=" in option else ":")
    if not separator:
        raise InvalidParameter(f"invalid --security-opt 1: {quote(option)}")
    return key, value


def quote(text: str) -> str:
    """As Go's %q, for the characters that an option may hold."""
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n") + '"'
