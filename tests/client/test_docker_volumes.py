"""Volumes through the docker command: made, filled, shared, mounted, pruned, and what is refused."""

import io
import json
import tarfile
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from busybox_image import docker_archive, layer_tar, root_tar
from engine_process import Client, EngineProcess, wait_until


@pytest.fixture
def volume(docker: Client) -> Iterator[str]:
    name = f"v-{uuid.uuid4().hex[:8]}"
    docker("volume", "create", name)
    yield name
    docker("volume", "rm", "--force", name, check=False)


@pytest.fixture(scope="module")
def filled(engine: EngineProcess) -> str:
    """An image with a declared volume that holds files, and one that is empty."""
    tag = "pier-test/filled:1"
    volumes: dict[str, dict[str, dict[str, str]]] = {"Volumes": {"/data": {}, "/nothing": {}}}
    engine.docker.raw("load", stdin=docker_archive(tag, [root_tar(), _data_tar()], volumes))
    return tag


def _data_tar() -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, kind, mode, owner, target in (
            ("data", tarfile.DIRTYPE, 0o710, (0, 0), ""),
            ("data/sub", tarfile.DIRTYPE, 0o755, (0, 0), ""),
            ("data/file", tarfile.REGTYPE, 0o4750, (12, 34), ""),
            ("data/sub/hard", tarfile.LNKTYPE, 0o4750, (12, 34), "data/file"),
            ("data/sub/soft", tarfile.SYMTYPE, 0o777, (0, 0), "../file"),
        ):
            member = tarfile.TarInfo(name)
            member.type, member.mode, member.linkname = kind, mode, target
            member.uid, member.gid = owner
            member.size = 6 if kind == tarfile.REGTYPE else 0
            tar.addfile(member, io.BytesIO(b"hello\n"))
    return buffer.getvalue()


def _inspect(docker: Client, name: str) -> dict[str, object]:
    found: list[dict[str, object]] = json.loads(docker("volume", "inspect", name).stdout)
    return found[0]


def test_a_volume_outlives_its_containers(docker: Client, image: str, volume: str) -> None:
    docker("run", "--rm", "-v", f"{volume}:/data", image, "sh", "-c", "echo kept > /data/file")
    done = docker("run", "--rm", "-v", f"{volume}:/other:ro", image, "cat", "/other/file")
    assert done.stdout == "kept\n"
    refused = docker("run", "--rm", "-v", f"{volume}:/v:ro", image, "touch", "/v/new", check=False)
    assert refused.returncode == 1
    assert "Read-only file system" in refused.stderr


def test_inspect_and_list(docker: Client, volume: str) -> None:
    shown = _inspect(docker, volume)
    assert shown["Driver"] == "local"
    assert shown["Scope"] == "local"
    assert shown["Labels"] is None
    assert shown["Options"] is None
    assert str(shown["Mountpoint"]).endswith(f"/volumes/{volume}/_data")
    listed = docker("volume", "ls", "--format", "{{.Name}} {{.Driver}}").stdout.splitlines()
    assert f"{volume} local" in listed


def test_filters(docker: Client, image: str, volume: str) -> None:
    docker("volume", "create", "--label", "colour=red", f"{volume}-red")
    try:
        red = docker("volume", "ls", "-q", "--filter", "label=colour=red").stdout.split()
        assert red == [f"{volume}-red"]
        named = docker("volume", "ls", "-q", "--filter", f"name={volume}").stdout.split()
        assert sorted(named) == [volume, f"{volume}-red"]
        docker("create", "-v", f"{volume}:/v", image)
        loose = docker("volume", "ls", "-q", "--filter", "dangling=true").stdout.split()
        assert volume not in loose
        assert f"{volume}-red" in loose
        bad = docker("volume", "ls", "--filter", "colour=red", check=False)
        assert "invalid filter 'colour'" in bad.stderr
    finally:
        docker("volume", "rm", f"{volume}-red")


def test_creation_is_idempotent(docker: Client, volume: str) -> None:
    made = _inspect(docker, volume)
    assert docker("volume", "create", "--label", "a=b", volume).stdout == f"{volume}\n"
    assert _inspect(docker, volume) == made


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (
            ["a/b"],
            (
                'create a/b: "a/b" includes invalid characters for a local volume name, only '
                '"[a-zA-Z0-9][a-zA-Z0-9_.-]" are allowed. If you intended to pass a host '
                "directory, use absolute path"
            ),
        ),
        (
            ["x"],
            (
                "create x: volume name is too short, names should be at least two alphanumeric "
                "characters"
            ),
        ),
        (
            ["--driver", "nope", "vol"],
            'create vol: error looking up volume plugin nope: plugin "nope" not found',
        ),
        (["-o", "colour=red", "vol"], 'create vol: invalid option: "colour"'),
        (
            ["-o", "o=bind", "-o", "device=/tmp", "vol"],
            'create vol: missing required option: "type"',
        ),
        (
            ["-o", "type=tmpfs", "vol"],
            'create vol: missing required option: "device"',
        ),
        (["-o", "size=10m", "vol"], "create vol: quota size requested but no quota support"),
    ],
)
def test_creation_refused(docker: Client, args: list[str], message: str) -> None:
    done = docker("volume", "create", *args, check=False)
    assert done.returncode == 1
    assert done.stderr.strip() == f"Error response from daemon: {message}"


def test_no_such_volume(docker: Client) -> None:
    for verb in ("rm", "inspect"):
        done = docker("volume", verb, "nope", check=False)
        assert done.returncode == 1
        assert "get nope: no such volume" in done.stderr
    assert docker("volume", "rm", "--force", "nope").returncode == 0


def test_in_use(docker: Client, image: str, volume: str) -> None:
    container = docker("create", "-v", f"{volume}:/v", image).stdout.strip()
    done = docker("volume", "rm", volume, check=False)
    expected = f"remove {volume}: volume is in use - [{container}]"
    assert done.stderr.strip() == f"Error response from daemon: {expected}"
    docker("rm", container)
    docker("volume", "rm", volume)


def test_mounts_of_a_container(docker: Client, image: str, volume: str) -> None:
    container = docker(
        "create", "-v", f"{volume}:/named", "-v", "/anonymous", "--mount",
        f"type=volume,dst=/mounted,src={volume}", image,
    ).stdout.strip()  # fmt: skip
    mounts = json.loads(docker("inspect", "--format", "{{json .Mounts}}", container).stdout)
    by_place = {mount["Destination"]: mount for mount in mounts}
    assert by_place["/named"]["Name"] == volume
    assert by_place["/named"]["Mode"] == "z"
    assert by_place["/named"]["RW"] is True
    assert by_place["/named"]["Propagation"] == ""
    assert by_place["/mounted"]["Name"] == volume
    anonymous = by_place["/anonymous"]
    assert len(anonymous["Name"]) == 64
    assert anonymous["Mode"] == ""
    labels = _inspect(docker, anonymous["Name"])["Labels"]
    assert labels == {"com.docker.volume.anonymous": ""}
    docker("rm", "--volumes", container)
    assert anonymous["Name"] not in docker("volume", "ls", "-q").stdout.split()
    assert volume in docker("volume", "ls", "-q").stdout.split()


def test_anonymous_volumes_go_with_rm(docker: Client, image: str) -> None:
    before = set(docker("volume", "ls", "-q").stdout.split())
    docker("run", "--rm", "-v", "/anonymous", image, "touch", "/anonymous/file")
    assert set(docker("volume", "ls", "-q").stdout.split()) == before


def test_filled_from_the_image(docker: Client, filled: str) -> None:
    look = "cd /data && cat file && stat -c '%n %u %g %a %h' . file sub/hard && readlink sub/soft"
    done = docker("run", "--rm", filled, "sh", "-c", look)
    assert done.stdout.splitlines() == [
        "hello",
        ". 0 0 710 3",
        "file 12 34 4750 2",
        "sub/hard 12 34 4750 2",
        "../file",
    ]
    kept = docker("run", "--rm", filled, "sh", "-c", "mount | grep -c -e /data -e /nothing")
    assert kept.stdout == "2\n"


def test_filled_only_while_empty(docker: Client, filled: str, volume: str) -> None:
    docker("run", "--rm", "-v", f"{volume}:/v", filled, "touch", "/v/mine")
    done = docker("run", "--rm", "-v", f"{volume}:/data", filled, "ls", "/data")
    assert done.stdout == "mine\n"


def test_nocopy(docker: Client, filled: str, volume: str) -> None:
    done = docker("run", "--rm", "-v", f"{volume}:/data:nocopy", filled, "ls", "/data")
    assert done.stdout == ""
    mount = f"type=volume,src={volume},dst=/data,volume-nocopy"
    assert docker("run", "--rm", "--mount", mount, filled, "ls", "/data").stdout == ""


def test_a_volume_over_a_file_is_refused(docker: Client, image: str) -> None:
    done = docker("create", "-v", "/bin/sh", image, check=False)
    assert "cannot mount volume over existing file, file exists /bin/sh" in done.stderr


def test_volumes_from(docker: Client, image: str, volume: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("bound\n")
    docker(
        "create", "--name", "giver", "-v", f"{volume}:/v", "-v", f"{tmp_path}:/b", "-v", "/a", image
    )
    docker("run", "--rm", "--volumes-from", "giver", image, "sh", "-c", "echo x > /v/f; >/a/f")
    read = "cat /v/f /b/file; ls /a; touch /v/g"
    done = docker("run", "--rm", "--volumes-from", "giver:ro", image, "sh", "-c", read, check=False)
    assert done.stdout == "x\nbound\nf\n"
    assert "Read-only file system" in done.stderr
    for wrong, message in (
        ("nobody", "No such container: nobody"),
        ("giver:xx", "invalid mode: xx"),
        ("giver:nocopy", "invalid mode: nocopy"),
        ("giver:ro,rslave", "invalid mode: ro,rslave"),
    ):
        failed = docker("run", "--rm", "--volumes-from", wrong, image, check=False)
        assert failed.returncode == 125
        assert message in failed.stderr


def test_subpath(docker: Client, image: str, volume: str) -> None:
    make = "mkdir -p /v/a/b && echo deep > /v/a/b/file && ln -s /etc /v/out && ln -s a/b /v/in"
    docker("run", "--rm", "-v", f"{volume}:/v", image, "sh", "-c", make)

    def run(subpath: str) -> "tuple[int, str]":
        mount = f"type=volume,src={volume},dst=/m,volume-subpath={subpath}"
        done = docker("run", "--rm", "--mount", mount, image, "cat", "/m/file", check=False)
        return done.returncode, done.stdout or done.stderr

    assert run("a/b") == (0, "deep\n")
    assert run("in") == (0, "deep\n")
    for escape in ("out", "nosuch"):
        code, text = run(escape)
        assert code != 0
        assert "Error response from daemon" in text
        if escape == "out":
            assert "path concatenation escapes the base directory" in text
    code, text = run("../..")
    assert code == 125
    assert "subpath must be a relative path within the volume" in text


def test_a_subpath_is_filled_from_the_image(docker: Client, filled: str, volume: str) -> None:
    """What it holds already is left alone, and so is the rest of the volume."""
    prepare = "mkdir -p /v/empty /v/used && touch /v/used/mine"
    docker("run", "--rm", "-v", f"{volume}:/v", filled, "sh", "-c", prepare)
    for part in ("empty", "used"):
        mount = f"type=volume,src={volume},dst=/data,volume-subpath={part}"
        docker("run", "--rm", "--mount", mount, filled, "true")
    seen = docker(
        "run", "--rm", "-v", f"{volume}:/v:ro", filled, "sh", "-c", "cd /v && find . | sort"
    )
    inside = docker("run", "--rm", filled, "sh", "-c", "cd /data && find . | sort")
    expected = [name.replace(".", "./empty", 1) for name in inside.stdout.split()]
    assert len(expected) > 1
    assert seen.stdout.split() == [".", *expected, "./used", "./used/mine"]


def test_parts_of_images(docker: Client, image: str, filled: str) -> None:
    """A file can be mounted as well, and an image that is mounted somewhere is in use."""
    whole = f"type=image,src={filled},dst=/img"
    part = f"{whole},image-subpath=data/file"
    expected = docker("run", "--rm", filled, "cat", "/data/file").stdout
    assert docker("run", "--rm", "--mount", part, image, "cat", "/img").stdout == expected
    docker("create", "--name", "holder", "--mount", whole, image)
    done = docker("rmi", filled, check=False)
    assert "is using its referenced image" in done.stderr


def test_options_mount_something_else(
    docker: Client, image: str, volume: str, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("from the host\n")
    bound, memory = f"{volume}-bound", f"{volume}-memory"
    options = ["-o", "type=none", "-o", "o=bind", "-o", f"device={tmp_path}"]
    docker("volume", "create", *options, bound)
    docker("volume", "create", "-o", "type=tmpfs", "-o", "device=tmpfs", "-o", "o=size=1m", memory)
    try:
        done = docker("run", "--rm", "-v", f"{bound}:/b", image, "cat", "/b/file")
        assert done.stdout == "from the host\n"
        shown = docker("run", "--rm", "-v", f"{memory}:/m", image, "sh", "-c", "mount | grep /m")
        assert "size=1024k" in shown.stdout
        docker("run", "-d", "--name", "writer", "-v", f"{memory}:/m", image, "sleep", "60")
        docker("exec", "writer", "touch", "/m/shared")
        seen = docker("run", "--rm", "-v", f"{memory}:/m", image, "ls", "/m")
        assert seen.stdout == "shared\n"
        docker("rm", "--force", "writer")
        assert docker("run", "--rm", "-v", f"{memory}:/m", image, "ls", "/m").stdout == ""
        mounts = Path("/proc/self/mountinfo")
        wait_until(lambda: volume not in mounts.read_text(), "both are unmounted")
    finally:
        docker("volume", "rm", bound, memory)


def test_a_mount_that_fails(docker: Client, image: str, volume: str) -> None:
    name = f"{volume}-broken"
    docker("volume", "create", "-o", "type=none", "-o", "o=bind", "-o", "device=/no/such", name)
    try:
        done = docker("run", "--rm", "-v", f"{name}:/v:nocopy", image, "true", check=False)
        assert done.returncode != 0
        assert "failed to mount local volume: mount /no/such:" in done.stderr
        assert "no such file or directory" in done.stderr
    finally:
        docker("volume", "rm", name)


def test_network_mounts_that_fail(docker: Client, image: str, volume: str) -> None:
    """What a server refuses, or a kernel lacks: told without the password, and names are looked up."""
    told = "failed to mount local volume: mount //127.0.0.1/x:"
    lookup = "error resolving passed in network volume address"
    for kind, device, o, expected in (
        ("cifs", "//127.0.0.1/x", "username=me,password=topsecret", told),
        ("cifs", "//nobody.invalid/x", "password=topsecret", lookup),
        ("nfs", ":/x", "addr=nobody.invalid,nolock", lookup),
    ):
        options = ["-o", f"type={kind}", "-o", f"device={device}", "-o", f"o={o}"]
        name = docker("volume", "create", *options, f"{volume}-away").stdout.strip()
        try:
            done = docker("run", "--rm", "-v", f"{name}:/v:nocopy", image, "true", check=False)
            assert done.returncode != 0
            assert expected in done.stderr
            assert "topsecret" not in done.stderr
            assert "password=********" in done.stderr or lookup in done.stderr
        finally:
            docker("volume", "rm", name)


def test_prune(docker: Client, image: str, volume: str) -> None:
    anonymous = docker("volume", "create").stdout.strip()
    used = docker("volume", "create").stdout.strip()
    docker("create", "-v", f"{used}:/v", image)
    done = docker("volume", "prune", "--force")
    assert anonymous in done.stdout
    left = docker("volume", "ls", "-q").stdout.split()
    assert anonymous not in left
    assert {used, volume} <= set(left)
    done = docker("volume", "prune", "--force", "--all", "--filter", "label!=keep")
    assert volume in done.stdout
    assert used in docker("volume", "ls", "-q").stdout.split()


def test_image_mounts(docker: Client, image: str, filled: str) -> None:
    mount = f"type=image,src={filled},dst=/img"
    done = docker("run", "--rm", "--mount", mount, image, "cat", "/img/data/file")
    assert done.stdout == "hello\n"
    part = docker("run", "--rm", "--mount", f"{mount},image-subpath=data/sub", image, "ls", "/img")
    assert part.stdout == "hard\nsoft\n"
    written = docker("run", "--rm", "--mount", mount, image, "touch", "/img/x", check=False)
    assert "Read-only file system" in written.stderr


def test_events(docker: Client, image: str) -> None:
    name = f"v-{uuid.uuid4().hex[:8]}"
    since = str(int(time.time()))
    docker("volume", "create", name)
    docker("run", "--rm", "-v", f"{name}:/v", image, "true")
    docker("volume", "rm", name)
    form = "{{.Action}}"
    watch = [
        "events",
        "--since",
        since,
        "--until",
        str(int(time.time()) + 1),
        "--filter",
        f"volume={name}",
    ]
    seen = docker(*watch, "--format", form).stdout.split()
    assert seen == ["create", "mount", "unmount", "destroy"]


def test_populated_layers_of_an_image(docker: Client) -> None:
    """A place whose files lie in two layers is copied as one."""
    layers = [root_tar(), layer_tar({"d/one": b"1"}), layer_tar({"d/two": b"2", "d/.wh.one": b""})]
    docker.raw("load", stdin=docker_archive("pier-test/stacked:1", layers))
    done = docker("run", "--rm", "-v", "/d", "pier-test/stacked:1", "ls", "/d")
    assert done.stdout == "two\n"
