"""Every module imports alone, in a fresh interpreter: no cycle hides behind a lucky order."""

import pkgutil
import subprocess
import sys

import pytest

import pier


def modules() -> list[str]:
    return sorted(m.name for m in pkgutil.walk_packages(pier.__path__, "pier."))


# A fork in a warm interpreter is ten times cheaper than an interpreter a module; others' modules are
# in it already, as a first fork found them.
CODE = """
import contextlib, importlib, os, sys
read_fd, write_fd = os.pipe()
if os.fork() == 0:
    for name in sys.argv[1:]:
        with contextlib.suppress(BaseException):
            importlib.import_module(name)
    others = [name for name in sys.modules if name.partition(".")[0] not in ("pier", "__main__")]
    with open(write_fd, "w") as file:
        file.write(" ".join(others))
    os._exit(0)
os.close(write_fd)
with open(read_fd) as file:
    others = file.read().split()
os.wait()
for name in others:
    with contextlib.suppress(BaseException):
        importlib.import_module(name)
assert not any(name.partition(".")[0] == "pier" for name in sys.modules)
failed = []
for name in sys.argv[1:]:
    sys.stdout.flush()
    pid = os.fork()
    if pid == 0:
        try:
            importlib.import_module(name)
        except BaseException as exc:
            os.write(2, f"{name}: {exc!r}\\n".encode())
            os._exit(1)
        os._exit(0)
    if os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]):
        failed.append(name)
print(*failed)
"""


@pytest.mark.timeout(600)  # some 700 forks: minutes where others are at work
def test_each_module_imports_alone() -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", CODE, *modules()],
        check=True,
        capture_output=True,
        text=True,
    )
    assert done.stdout.split() == [], done.stderr


@pytest.mark.parametrize("room", [m.name for m in pkgutil.iter_modules(pier.__path__) if m.ispkg])
def test_rooms_run_nothing_when_imported(room: str) -> None:
    with open(f"{pier.__path__[0]}/{room}/__init__.py") as file:
        lines = [line for line in file if line.strip() and not line.startswith("#")]
    assert all(line.startswith(('"""', "from ", "import ")) or '"""' in line for line in lines)
