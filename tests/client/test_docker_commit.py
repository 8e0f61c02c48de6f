"""Making images of containers and archives of images: commit, diff, export, save, prune, df."""

import io
import json
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from busybox_image import docker_archive, layer_tar
from engine_process import Client, EngineProcess

CHANGE = """\
echo new > /made; rm /etc/passwd; mkdir -p /dir/deep; ln /made /dir/hard; chmod 4755 /made
ln -s /made /dir/link; mkfifo /dir/pipe; dd if=/dev/zero of=/dir/big bs=1M count=0 seek=20 2>/dev/null
"""


@pytest.fixture
def no_images(engine: EngineProcess) -> Iterator[None]:
    """Remove the images that the test makes, known by their repository."""
    yield
    engine.remove_containers()
    engine.calls.remove_named("made/")


@pytest.fixture
def changed(docker: Client, image: str) -> str:
    """A stopped container that changed things."""
    docker("run", "--name", "changed", image, "sh", "-c", CHANGE)
    return "changed"


def test_diff(docker: Client, changed: str) -> None:
    assert sorted(docker("diff", changed).stdout.splitlines()) == [
        *("A /dir", "A /dir/big", "A /dir/deep", "A /dir/hard", "A /dir/link", "A /dir/pipe"),
        *("A /made", "C /etc", "D /etc/passwd"),
    ]


def test_diff_of_an_unchanged_running_container(docker: Client, image: str) -> None:
    docker("run", "-d", "--name", "same", image, "sleep", "60")
    assert docker("diff", "same").stdout == ""


@pytest.mark.usefixtures("no_images")
def test_a_new_working_directory_is_there_before_the_start(
    docker: Client, image: str, tmp_path: Path
) -> None:
    docker("create", "--name", "it", "-w", "/made/here", image, "ls", "/made/here")
    assert docker("diff", "it").stdout == "A /made\nA /made/here\n"
    (tmp_path / "file").touch()
    docker("cp", f"{tmp_path}/file", "it:/made/here/file")
    with tarfile.open(fileobj=io.BytesIO(docker.raw("export", "it").stdout)) as exported:
        made = exported.getmember("made/here")
    assert (made.mode, made.uid, made.gid) == (0o755, 0, 0)
    assert docker("start", "-a", "it").stdout == "file\n"
    # As the image's own links lead.
    docker("run", "--name", "linked", image, "ln", "-s", "/etc", "/way")
    docker("commit", "linked", "made/linked:v1")
    docker("create", "--rm", "--name", "inside", "-w", "/way/new", "made/linked:v1", "pwd")
    assert docker("diff", "inside").stdout == "C /etc\nA /etc/new\n"
    assert docker("start", "-a", "inside").stdout == "/etc/new\n"
    # One that the image has is no change.
    docker("create", "--name", "same", "-w", "/etc", image)
    assert docker("diff", "same").stdout == ""
    failed = docker("create", "--name", "failed", "-w", "/etc/passwd", image, check=False)
    assert "Cannot mkdir: /etc/passwd is not a directory" in failed.stderr
    assert docker("ps", "-aq", "-f", "name=failed").stdout == ""


@pytest.mark.usefixtures("no_images")
def test_commit(docker: Client, changed: str, image: str) -> None:
    flags = ["-a", "somebody", "-m", "by hand", "-c", "ENV A=b", "-c", 'CMD ["cat", "/made"]']
    identity = docker("commit", *flags, changed, "made/commit:v1").stdout.strip()
    (found,) = json.loads(docker("image", "inspect", "made/commit:v1").stdout)
    (parent,) = json.loads(docker("image", "inspect", image).stdout)
    assert found["Id"] == identity
    assert found["Parent"] == parent["Id"]
    assert (found["Author"], found["Comment"]) == ("somebody", "by hand")
    assert found["RootFS"]["Layers"][:-1] == parent["RootFS"]["Layers"]
    assert "A=b" in found["Config"]["Env"]
    assert docker("run", "--rm", "made/commit:v1").stdout == "new\n"
    script = "test ! -e /etc/passwd -a -p /dir/pipe -a -u /made && stat -c %h /made && stat -c %s /dir/big"
    assert docker("run", "--rm", "made/commit:v1", "sh", "-c", script).stdout == "2\n20971520\n"
    shown = docker("history", "--format", "{{.CreatedBy}}|{{.Comment}}", "made/commit:v1").stdout
    assert shown.splitlines()[0].endswith("|by hand")
    assert len(shown.splitlines()) == len(parent["RootFS"]["Layers"]) + 1


@pytest.mark.usefixtures("no_images")
def test_commit_of_no_change_adds_no_layer(docker: Client, image: str) -> None:
    docker("create", "--name", "fresh", image, "true")
    docker("commit", "fresh", "made/same")
    show = ("image", "inspect", "-f", "{{json .RootFS.Layers}}")
    assert docker(*show, "made/same").stdout == docker(*show, image).stdout


@pytest.mark.usefixtures("no_images")
def test_commit_of_a_running_container(docker: Client, image: str) -> None:
    docker("run", "-d", "--name", "running", image, "sh", "-c", "echo here > /file; sleep 60")
    docker("exec", "running", "sh", "-c", "while ! test -s /file; do :; done")
    for flags in ([], ["--pause=false"]):
        docker("commit", *flags, "running", "made/running")
        assert docker("run", "--rm", "made/running", "cat", "/file").stdout == "here\n"
    assert docker("inspect", "-f", "{{.State.Status}}", "running").stdout == "running\n"


@pytest.mark.usefixtures("no_images")
def test_commit_events_and_errors(docker: Client, changed: str) -> None:
    since = docker("info", "-f", "{{.SystemTime}}").stdout.strip()
    docker("commit", changed, "made/event:v1")
    until = docker("info", "-f", "{{.SystemTime}}").stdout.strip()
    shown = docker(
        "events", "--since", since, "--until", until, "--format", "{{.Type}} {{.Action}}"
    ).stdout
    assert "container commit" in shown.splitlines()
    assert "image tag" in shown.splitlines()
    done = docker("commit", "nobody", check=False)
    assert "No such container: nobody" in done.stderr
    done = docker("commit", "-c", "RUN true", changed, check=False)
    assert "run is not a valid change command" in done.stderr.lower()
    assert "invalid reference format" in docker("commit", changed, "Made/X:", check=False).stderr


def test_export(docker: Client, changed: str) -> None:
    with tarfile.open(fileobj=io.BytesIO(docker.raw("export", changed).stdout)) as tar:
        members = {member.name: member for member in tar}
        made = members["dir/hard"]
        assert made.isreg()
        content = tar.extractfile(made)
        assert content is not None
        assert content.read() == b"new\n"
    assert (members["made"].linkname, members["dir/link"].linkname) == ("dir/hard", "/made")
    assert "bin/sh" in members
    assert "etc/passwd" not in members
    assert not [name for name in members if ".wh." in name]


@pytest.mark.usefixtures("no_images")
def test_export_and_import_again(docker: Client, changed: str) -> None:
    docker.raw("import", "-", "made/flat", stdin=docker.raw("export", changed).stdout)
    docker("run", "--name", "flat", "-e", "PATH=/bin", "made/flat", "true")
    assert docker.raw("export", "flat").stdout == docker.raw("export", changed).stdout


@pytest.mark.usefixtures("no_images")
def test_save_and_load_again(docker: Client, changed: str, tmp_path: Path) -> None:
    docker("commit", changed, "made/one:v1")
    docker("commit", "-c", "LABEL x=y", changed, "made/two:v1")
    file = tmp_path / "both.tar"
    docker("save", "-o", str(file), "made/one:v1", "made/two:v1")
    show = ("image", "inspect", "-f", "{{.Id}}", "made/one:v1", "made/two:v1")
    identities = docker(*show).stdout
    docker("rmi", "made/one:v1", "made/two:v1")
    told = docker("load", "-q", "-i", str(file)).stdout
    assert told.splitlines() == ["Loaded image: made/one:v1", "Loaded image: made/two:v1"]
    assert docker(*show).stdout == identities
    assert docker.raw("save", "made/one:v1", "made/two:v1").stdout == file.read_bytes()
    assert (
        docker("save", "made/no:v1", check=False)
        .stderr.rstrip()
        .endswith("No such image: made/no:v1")
        or "reference does not exist" in docker("save", "made/no:v1", check=False).stderr
    )


@pytest.mark.usefixtures("no_images")
def test_image_prune(docker: Client) -> None:
    docker("image", "prune", "-f")
    for name, label in (("gone", "keep=no"), ("kept", "keep=yes")):
        archive = docker_archive("made/prune:v1", [layer_tar({name: b"x" * 1000})], {
            "Labels": dict([label.split("=")]),
        })  # fmt: skip
        docker.raw("load", stdin=archive)
    top = docker_archive("made/prune:v1", [layer_tar({"top": b""})], {"Labels": {"top": "yes"}})
    docker.raw("load", stdin=top)
    dangling = ("images", "-qf", "dangling=true")
    assert len(docker(*dangling).stdout.split()) == 2
    shown = docker("image", "prune", "-f", "--filter", "label!=keep=yes").stdout
    assert "Total reclaimed space: 1kB" in shown
    assert len(docker(*dangling).stdout.split()) == 1
    shown = docker("image", "prune", "-f", "--filter", "until=2000-01-01T00:00:00Z").stdout
    assert shown == "Total reclaimed space: 0B\n"
    docker("image", "prune", "-f")
    assert docker(*dangling).stdout == ""
    assert docker("images", "-q", "made/prune").stdout
    docker("image", "prune", "-af", "--filter", "label=top=yes")
    assert docker("images", "-q", "made/prune").stdout == ""


@pytest.mark.usefixtures("no_images")
def test_images_of_one_second_come_one_after_another(docker: Client, image: str) -> None:
    docker("create", "--name", "it", image)
    for tag in ("v0", "v1", "v2", "v3"):
        docker("commit", "it", f"made/often:{tag}")
    filters = ["-f", "since=made/often:v0", "-f", "before=made/often:v3"]
    shown = docker("images", *filters, "made/often", "--format", "{{.Tag}}").stdout
    assert shown.split() == ["v2", "v1"]


@pytest.mark.usefixtures("no_images")
def test_prune_keeps_the_last_name_of_what_is_used(docker: Client) -> None:
    docker.raw(
        "load",
        stdin=docker_archive("made/used:z", [layer_tar({"f": b""})], {"Labels": {"kept": "no"}}),
    )
    docker("tag", "made/used:z", "made/used:b")
    docker("tag", "made/used:z", "made/used:a")
    identity = docker("inspect", "-f", "{{.Id}}", "made/used:z").stdout.strip()
    docker("create", "--name", "it", identity, "true")
    docker("image", "prune", "-af", "--filter", "label=kept=no")
    assert docker("images", "made/used", "--format", "{{.Tag}}").stdout == "z\n"


def test_system_df(docker: Client, changed: str, image: str) -> None:
    rows = [
        json.loads(line) for line in docker("system", "df", "--format", "json").stdout.splitlines()
    ]
    by_type = {row["Type"]: row for row in rows}
    assert list(by_type) == ["Images", "Containers", "Local Volumes", "Build Cache"]
    assert by_type["Containers"]["TotalCount"] == "1"
    assert by_type["Images"]["Active"] == "1"
    shown = docker("system", "df", "-v").stdout
    assert changed in shown
    assert image.partition(":")[0] in shown


def test_gnu_tar_reads_an_export(docker: Client, changed: str, tmp_path: Path) -> None:
    data = docker.raw("export", changed).stdout
    done = subprocess.run(
        ["tar", "-x", "--no-same-owner", "-C", tmp_path],
        input=data,
        capture_output=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, b"")
    assert (tmp_path / "dir" / "big").stat().st_size == 20 << 20
