"""`cow` binds: a container writes over a host's directory, which changes only by `pier apply`."""

import json
import os
import stat
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from engine_process import EngineProcess

pytestmark = pytest.mark.skipif(
    bool(os.environ.get("PIER_TEST_HOST")), reason="Pier's own: another engine has no such thing"
)

CHANGE = """
echo new > /tree/new; echo changed > /tree/kept; rm /tree/gone; mkdir -p /tree/made/deep
echo inner > /tree/made/deep/file; ln -s kept /tree/link; chmod 700 /tree/dir
rm -r /tree/old; mkdir /tree/old; echo fresh > /tree/old/fresh; rm /tree/shape; mkdir /tree/shape
ln /tree/new /tree/newer
"""


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    tree = tmp_path / "tree"
    for name in ("dir/inner", "old/stale", "kept", "gone", "shape", "same"):
        path = tree / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{name}\n")
    return tree


@pytest.fixture
def name(engine: EngineProcess, image: str, tree: Path) -> Iterator[str]:
    name = f"cow-{uuid.uuid4().hex[:6]}"
    engine.docker("run", "-d", "--name", name, "-v", f"{tree}:/tree:cow", image, "sleep", "600")
    yield name
    engine.docker("rm", "-f", name)


def listing(tree: Path) -> dict[str, str]:
    found = {}
    for path in sorted(tree.rglob("*")):
        relative = str(path.relative_to(tree))
        if path.is_symlink():
            found[relative] = f"-> {os.readlink(path)}"
        else:
            found[relative] = "directory" if path.is_dir() else path.read_text()
    return found


def cow_lines(engine: EngineProcess, name: str) -> list[str]:
    found = engine.pier("diff", name).stdout.splitlines()
    return [line for line in found if line.split(" ", 1)[1].startswith("/tree/")]


def test_changes_stay_in_the_container_until_they_are_applied(
    engine: EngineProcess, name: str, tree: Path
) -> None:
    docker, pier = engine.docker, engine.pier
    before = listing(tree)
    assert docker("exec", name, "cat", "/tree/kept").stdout == "kept\n"
    assert cow_lines(engine, name) == []
    docker("exec", name, "sh", "-ec", CHANGE)
    assert listing(tree) == before
    expected = [
        *("C /tree/dir", "D /tree/gone", "C /tree/kept", "A /tree/link", "A /tree/made"),
        *("A /tree/made/deep", "A /tree/made/deep/file", "A /tree/new", "A /tree/newer"),
        *("D /tree/old/stale", "A /tree/old/fresh", "C /tree/shape"),
    ]
    assert cow_lines(engine, name) == expected
    shown = json.loads(docker("inspect", "-f", "{{json .Mounts}}", name).stdout)
    assert [(m["Type"], m["Source"], m["Mode"], m["RW"]) for m in shown] == [
        ("bind", str(tree), "cow", True)
    ]
    docker("restart", "-t", "0", name)
    assert docker("exec", name, "cat", "/tree/new").stdout == "new\n"

    applied = pier("apply", name).stdout.splitlines()
    assert sorted(applied) == sorted(line.replace("/tree", str(tree), 1) for line in expected)
    assert listing(tree) == {
        "dir": "directory", "dir/inner": "dir/inner\n", "kept": "changed\n", "link": "-> kept",
        "made": "directory", "made/deep": "directory", "made/deep/file": "inner\n",
        "new": "new\n", "newer": "new\n", "old": "directory", "old/fresh": "fresh\n",
        "same": "same\n", "shape": "directory",
    }  # fmt: skip
    assert stat.S_IMODE((tree / "dir").stat().st_mode) == 0o700
    assert (tree / "new").stat().st_ino == (tree / "newer").stat().st_ino
    assert cow_lines(engine, name) == []
    assert docker("exec", name, "cat", "/tree/kept").stdout == "changed\n"


def test_one_path_of_a_stopped_container(engine: EngineProcess, name: str, tree: Path) -> None:
    """What is written back leaves the layer: the host's later changes are seen again."""
    docker, pier = engine.docker, engine.pier
    docker("exec", name, "sh", "-ec", CHANGE)
    docker("stop", "-t", "0", name)
    pier("apply", name, "/tree/kept")
    assert (tree / "kept").read_text() == "changed\n"
    assert (tree / "gone").exists()
    (tree / "kept").write_text("by the host\n")
    docker("start", name)
    assert docker("exec", name, "cat", "/tree/kept").stdout == "by the host\n"
    assert docker("exec", name, "cat", "/tree/new").stdout == "new\n"
    assert "C /tree/kept" not in cow_lines(engine, name)


def test_each_container_has_its_own(
    engine: EngineProcess, name: str, image: str, tree: Path
) -> None:
    docker = engine.docker
    docker("exec", name, "sh", "-c", "echo mine > /tree/kept")
    mount = f"type=bind,src={tree},dst=/tree,cow"
    done = engine.pier("run", "--rm", "--mount", mount, image, "cat", "/tree/kept")
    assert done.stdout == "kept\n"
    done = docker("run", "--rm", "--volumes-from", name, image, "cat", "/tree/kept")
    assert done.stdout == "kept\n"
    copy = docker("cp", f"{name}:/tree/kept", "-")
    assert "mine" in copy.stdout
    docker("stop", "-t", "0", name)
    assert "mine" in docker("cp", f"{name}:/tree/kept", "-").stdout


def test_a_hostile_layer_reaches_nothing_else(
    engine: EngineProcess, name: str, tree: Path, tmp_path: Path
) -> None:
    """Links in the layer are written back as links, and never followed."""
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "file").write_text("safe\n")
    script = f"rm -r /tree/dir; ln -s {outside} /tree/dir; ln -s {outside}/file /tree/planted"
    engine.docker("exec", name, "sh", "-ec", script)
    engine.pier("apply", name)
    assert os.readlink(tree / "dir") == str(outside)
    assert os.readlink(tree / "planted") == f"{outside}/file"
    script = "rm /tree/dir /tree/planted; mkdir /tree/dir; echo evil > /tree/dir/file; echo evil > /tree/planted"
    engine.docker("exec", name, "sh", "-ec", script)
    engine.pier("apply", name)
    assert (outside / "file").read_text() == "safe\n"
    assert (tree / "dir/file").read_text() == "evil\n"
    assert not (tree / "planted").is_symlink()


@pytest.mark.parametrize(
    ("option", "problem"),
    [
        ("{tree}:/tree:cow,ro", "the mount is read-only"),
        ("{tree}:/tree:cow,rshared", "cannot be combined"),
        ("{tree}/kept:/tree:cow", "cow is for directories"),
        ("volume:/tree:cow", "field BindOptions must not be specified"),
    ],
)
def test_refused(engine: EngineProcess, image: str, tree: Path, option: str, problem: str) -> None:
    done = engine.docker("run", "--rm", "-v", option.format(tree=tree), image, "true", check=False)
    assert done.returncode == 125
    assert problem in done.stderr


def test_nothing_to_apply(engine: EngineProcess, name: str, image: str) -> None:
    assert engine.pier("apply", name).stdout == ""
    done = engine.pier("apply", name, "/etc", check=False)
    assert done.returncode == 1
    assert "/etc is in no mount with cow" in done.stderr
    other = engine.docker("create", image, "true").stdout.strip()
    assert "has no mount with cow" in engine.pier("apply", other, check=False).stderr
    engine.docker("rm", other)
