"""What the client imports, which is what its start costs."""

import os
import pkgutil
import subprocess
import sys

import pytest
from cli_fake_engine import Answer, FakeEngine

import pier.cli

LIST_MODULES = """
import sys
sys.argv = ["pier", "-H", sys.argv[1], *sys.argv[2:]]
from pier.cli.main import main
status = main()
print(*sorted(sys.modules), file=sys.stderr)
sys.exit(status)
"""
SLOW = {
    "argparse",
    "asyncio",
    "dataclasses",
    "http.client",
    "inspect",
    "logging",
    "msgspec",
    "pathlib",
    "selectors",
    "shutil",
    "socket",
    "subprocess",
    "tempfile",
    "threading",
    "typing",
    "urllib",
}


@pytest.mark.parametrize("command", ["version", "ps", "images", "info"])
def test_modules_of_a_short_command(tmp_path, command):
    fake = FakeEngine(str(tmp_path / "s"))
    fake.routes = {
        "GET /version": Answer(body={"Version": "1", "Components": []}),
        "GET /info": Answer(body={}),
        "GET /containers/json": Answer(body=[]),
        "GET /images/json": Answer(body=[]),
    }
    # -I -S: what site and .pth files of the environment import is not the client's.
    root = os.path.dirname(os.path.dirname(pier.cli.__path__[0]))
    program = f"import sys; sys.path.insert(0, {root!r}){LIST_MODULES}"
    result = subprocess.run(
        [sys.executable, "-I", "-S", "-c", program, fake.host, command],
        capture_output=True,
        text=True,
        check=False,
    )
    fake.close()
    assert result.returncode == 0, result.stderr
    loaded = set(result.stderr.split("\n")[-2].split())
    assert not loaded & SLOW
    if command in ("version", "info"):  # tables are rendered by templates, which need them
        assert not loaded & {"json", "re"}
    ours = ("pier.cli", "pier.plain_json")
    assert not {n for n in loaded if n.startswith("pier.") and not n.startswith(ours)}
    others = {"pier.cli.run", "pier.cli.inspect", "pier.cli.events", "pier.cli.load"}
    assert not loaded & others


@pytest.mark.parametrize(
    "name", [module.name for module in pkgutil.iter_modules(pier.cli.__path__)]
)
def test_every_module_imports_alone(name):
    subprocess.run([sys.executable, "-c", f"import pier.cli.{name}"], check=True)


def every_command():
    from pier.cli import catalogue

    for name in catalogue._TOP:
        yield [name]
    for group, commands in catalogue._GROUPS.items():
        yield [group]
        for name in commands:
            yield [group, name]


@pytest.mark.parametrize("path", list(every_command()), ids=" ".join)
def test_help(path, capsys, monkeypatch):
    """Every command is there, and says how it is used, without an engine."""
    from pier.cli.main import main

    monkeypatch.setattr(sys, "argv", ["pier", "-H", "unix:///nowhere", *path, "--help"])
    assert main() == 0
    captured = capsys.readouterr()
    assert captured.out.startswith(f"Usage:  pier {' '.join(path)}")
    assert captured.err == ""


def test_top_help(capsys, monkeypatch):
    from pier.cli.main import main

    for argv in ([], ["--help"], ["help"]):
        monkeypatch.setattr(sys, "argv", ["pier", *argv])
        assert main() == 0
        out = capsys.readouterr().out
        assert out.startswith("Usage:  pier [OPTIONS] COMMAND")
        for part in ("Common Commands:", "Management Commands:", "Commands:", "Global Options:"):
            assert part in out
