"""Images: load, import, list, inspect, tag, remove, history."""

import bz2
import gzip
import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import zstandard

from busybox_image import docker_archive, layer_tar, oci_layout, root_tar
from engine_process import Client, EngineProcess

CONFIG = {
    "Cmd": ["sh", "-c", "cat /top; echo $VAR; pwd; id -u"],
    "Env": ["PATH=/bin", "VAR=from image"],
    "WorkingDir": "/work",
    "User": "alice",
    "Labels": {"maker": "test"},
}
# The upper layer replaces a file of the lower one, removes one and hides a whole directory.
LAYERS = [
    layer_tar({"top": b"lower\n", "gone": b"", "hidden/file": b"", "kept": b""}),
    layer_tar({"top": b"upper\n", ".wh.gone": b"", "hidden/.wh..wh..opq": b"", "hidden/new": b""}),
]


@pytest.fixture
def no_images(engine: EngineProcess) -> Iterator[None]:
    """Remove the images that the test makes, known by their repository."""
    yield
    engine.remove_containers()
    engine.calls.remove_named("made/")


@pytest.mark.usefixtures("no_images")
def test_load_docker_archive(docker: Client) -> None:
    check_load(docker, docker_archive("made/layers:v1", [root_tar(), *LAYERS], CONFIG))


@pytest.mark.usefixtures("no_images", "pierd")  # dockerd wants a manifest.json beside the layout
def test_load_oci_layout(docker: Client) -> None:
    check_load(docker, oci_layout("made/layers:v1", [root_tar(), *LAYERS], CONFIG))


def check_load(docker: Client, archive: bytes) -> None:
    done = docker.raw("load", stdin=archive)
    assert b"Loaded image: made/layers:v1" in done.stdout
    shown = docker("run", "--rm", "made/layers:v1").stdout
    assert shown == "upper\nfrom image\n/work\n1000\n"
    script = "test ! -e /gone -a -e /kept -a ! -e /hidden/file -a -e /hidden/new"
    docker("run", "--rm", "made/layers:v1", "sh", "-c", script)


@pytest.mark.usefixtures("no_images")
def test_load_from_a_file_and_compressed(docker: Client, tmp_path: Path) -> None:
    file = tmp_path / "image.tar"
    file.write_bytes(docker_archive("made/file:latest", [root_tar()]))
    assert docker("load", "-q", "-i", str(file)).stdout.strip() == "Loaded image: made/file:latest"
    for compress in (gzip.compress, bz2.compress, zstandard.compress):
        done = docker.raw("load", stdin=compress(file.read_bytes()))
        assert b"Loaded image: made/file:latest" in done.stdout


@pytest.mark.usefixtures("no_images", "pierd")  # likewise
def test_load_what_skopeo_wrote(docker: Client, tmp_path: Path) -> None:
    if shutil.which("skopeo") is None:
        pytest.skip("skopeo is not installed")
    source = tmp_path / "source.tar"
    source.write_bytes(docker_archive("made/skopeo:v2", [root_tar(), *LAYERS], CONFIG))
    layout = tmp_path / "layout.tar"
    subprocess.run(
        [
            *("skopeo", "--insecure-policy", "copy", "-q", f"docker-archive:{source}"),
            f"oci-archive:{layout}:made/skopeo:v2",
        ],
        check=True,
        env={**os.environ, "TMPDIR": str(tmp_path)},
    )
    # An OCI archive of skopeo names the tag only: what is loaded is found by what it says.
    loaded = docker("load", "-i", str(layout)).stdout
    name = loaded.split(": ", 1)[1].split()[0]
    assert docker("run", "--rm", name).stdout == "upper\nfrom image\n/work\n1000\n"
    docker("rmi", name)


def test_saved_images_know_their_parents(docker: Client, image: str, tmp_path: Path) -> None:
    def inspected(ref: str, field: str) -> str:
        return docker("image", "inspect", "--format", f"{{{{{field}}}}}", ref).stdout.strip()

    ids = []
    below = image
    for number in ("1", "2"):
        docker("create", "--name", f"made{number}", below, number)
        ids.append(docker("commit", f"made{number}").stdout.strip())
        docker("rm", f"made{number}")
        below = ids[-1]
    archive = str(tmp_path / "both.tar")
    docker("save", "-o", archive, ids[1], ids[0])
    docker("rmi", ids[1])  # and with it what has no name either
    docker("load", "-i", archive)
    assert inspected(ids[1], ".Parent") == ids[0]
    assert inspected(ids[0], ".Parent") == ""
    docker("rmi", ids[1])  # and with it what has no name either
    # A name that is there already is not given once more.
    docker("save", "-o", archive, image)
    before = inspected(image, ".Metadata.LastTagTime")
    docker("load", "-i", archive)
    assert inspected(image, ".Metadata.LastTagTime") == before


def test_load_of_rubbish(docker: Client) -> None:
    done = docker.raw("load", stdin=b"this is no tar" * 100, check=False)
    assert done.returncode == 1
    done = docker.raw("load", stdin=layer_tar({"x": b"y"}), check=False)
    assert done.returncode == 1


@pytest.mark.usefixtures("no_images")
def test_import_with_changes(docker: Client, tmp_path: Path) -> None:
    file = tmp_path / "root.tar"
    file.write_bytes(root_tar())
    changes = ("ENV A=b", "USER alice", "WORKDIR /tmp", 'CMD ["sh", "-c", "echo $A; pwd; id -u"]')
    flags = [word for change in changes for word in ("--change", change)]
    identity = docker("import", *flags, "-m", "by hand", str(file), "made/imported:v1").stdout
    assert identity.startswith("sha256:")
    found = docker("inspect", "-f", "{{.Id}}", "made/imported:v1").stdout
    assert found == identity
    assert docker("run", "--rm", "--env", "PATH=/bin", "made/imported:v1").stdout == (
        "b\n/tmp\n1000\n"
    )
    assert docker("inspect", "-f", "{{.Comment}}", "made/imported:v1").stdout == "by hand\n"


@pytest.mark.usefixtures("no_images")
def test_import_from_standard_input(docker: Client) -> None:
    docker.raw("import", "-", "made/piped", stdin=root_tar())
    assert docker("images", "-q", "made/piped").stdout
    docker("run", "--rm", "-e", "PATH=/bin", "made/piped", "true")


@pytest.mark.usefixtures("no_images")
def test_tag_and_remove(docker: Client, image: str) -> None:
    docker("tag", image, "made/tagged:one")
    docker("tag", image, "made/tagged")
    names = docker("images", "--format", "{{.Repository}}:{{.Tag}}", "made/tagged").stdout
    assert sorted(names.split()) == ["made/tagged:latest", "made/tagged:one"]
    assert docker("rmi", "made/tagged:one").stdout == "Untagged: made/tagged:one\n"
    assert docker("images", "-q", "made/tagged").stdout.split() == (
        docker("images", "-q", image).stdout.split()
    )


@pytest.mark.usefixtures("no_images")
def test_last_tag_removes_the_image(docker: Client) -> None:
    docker.raw("load", stdin=docker_archive("made/alone:v1", [layer_tar({"only": b"here"})]))
    identity = docker("inspect", "-f", "{{.Id}}", "made/alone:v1").stdout.strip()
    shown = docker("rmi", "made/alone:v1").stdout.splitlines()
    assert shown[0] == "Untagged: made/alone:v1"
    assert f"Deleted: {identity}" in shown
    assert docker("image", "inspect", identity, check=False).returncode == 1


@pytest.mark.usefixtures("no_images")
def test_image_in_use_is_kept(docker: Client) -> None:
    archive = docker_archive("made/used:v1", [root_tar(), layer_tar({"mark": b""})])
    docker.raw("load", stdin=archive)
    identity = docker("inspect", "-f", "{{.Id}}", "made/used:v1").stdout.strip()
    docker("run", "-d", "--name", "user", "made/used:v1", "sleep", "60")
    done = docker("rmi", identity, check=False)
    assert "image is being used by running container" in done.stderr
    done = docker("rmi", "-f", identity, check=False)
    assert done.returncode == 1
    docker("rm", "-f", "user")
    docker("rmi", identity)


@pytest.mark.usefixtures("no_images")
def test_inspect(docker: Client) -> None:
    docker.raw("load", stdin=docker_archive("made/seen:v1", [root_tar(), *LAYERS], CONFIG))
    (found,) = json.loads(docker("image", "inspect", "made/seen:v1").stdout)
    assert found["RepoTags"] == ["made/seen:v1"]
    assert found["Config"]["Labels"] == {"maker": "test"}
    assert found["Os"] == "linux"
    assert found["Created"].startswith("2024-01-02T03:04:05")
    assert len(found["RootFS"]["Layers"]) == 3
    assert found["Size"] > 1_000_000
    by_prefix = docker("inspect", "-f", "{{.Id}}", found["Id"][7:19]).stdout.strip()
    assert by_prefix == found["Id"]


@pytest.mark.usefixtures("no_images")
def test_list_filters(docker: Client, image: str) -> None:
    docker.raw("load", stdin=docker_archive("made/filtered:v1", [LAYERS[0]], CONFIG))

    def names(*filters: str) -> list[str]:
        flags = [word for f in filters for word in ("--filter", f)]
        shown = docker("images", *flags, "--format", "{{.Repository}}:{{.Tag}}")
        return sorted(shown.stdout.split())

    assert names("label=maker=test") == ["made/filtered:v1"]
    assert names("label=maker=other") == []
    assert names("reference=made/*") == ["made/filtered:v1"]
    assert image in names("reference=*/busybox")
    assert "made/filtered:v1" not in names("dangling=true")


def test_history(docker: Client, image: str) -> None:
    shown = docker("history", "--no-trunc", "--format", "{{.CreatedBy}}", image).stdout
    assert shown == "test\n"
