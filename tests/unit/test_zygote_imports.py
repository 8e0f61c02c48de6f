"""What the zygote loads: every module costs each keeper memory, and start-up time."""

import subprocess
import sys

# The standard library's part, grown on purpose only. What the interpreter loads by itself (-IS)
# is not listed.
ALLOWED = {
    *("ctypes", "errno", "fcntl", "gc", "genericpath", "os", "posixpath", "resource", "select"),
    *("stat", "struct", "termios", "time", "types"),
}
# Heavy, or what `pier.kernel.lean` is there to spare.
FORBIDDEN = {
    *("asyncio", "logging", "subprocess", "threading", "inspect", "pathlib", "tempfile", "typing"),
    *("collections", "contextlib", "enum", "functools", "json", "re", "signal", "socket"),
}

CODE = """
import sys
before = set(sys.modules)
sys.path.append("src")
import {}
print(*sorted(set(sys.modules) - before))
"""


# What `pier-runtime run` loads from cold, before a container starts.
COMMANDS = "pier.runtime.cli.lifecycle, pier.runtime.cli.foreground, pier.runtime.validate"


def loaded(what: str = "pier.runtime.zygote") -> set[str]:
    code = CODE.format(what)
    done = subprocess.run(
        [sys.executable, "-IS", "-c", code], check=True, capture_output=True, text=True, cwd=ROOT
    )
    return set(done.stdout.split())


ROOT = __file__.rsplit("/tests/", 1)[0]


def test_standard_library_only() -> None:
    strangers = {
        name
        for name in loaded()
        if name.partition(".")[0] not in sys.stdlib_module_names and not name.startswith("pier")
    }
    assert strangers == set()


def test_only_the_two_rooms() -> None:
    rooms = {name for name in loaded() if name.startswith("pier.")}
    others = {
        n
        for n in rooms
        if not n.startswith(("pier.kernel", "pier.runtime", "pier.errors", "pier.plain_json"))
    }
    assert others == set()


def test_nothing_heavy() -> None:
    assert loaded() & FORBIDDEN == set()


def test_nothing_heavy_in_the_command_line() -> None:
    assert loaded(COMMANDS) & FORBIDDEN == set()


def test_nothing_new_by_accident() -> None:
    public = {
        name
        for name in loaded()
        if not name.startswith(("_", "pier")) and name.partition(".")[0] not in ALLOWED
    }
    assert public == set()
