"""docker cp: files out of containers and into them, whatever state they are in."""

import base64
import io
import json
import os
import subprocess
import tarfile
import urllib.parse
from collections.abc import Iterator
from pathlib import Path

import pytest

from engine_process import Client, EngineProcess

MAKE = """
mkdir -p /data/sub && echo hello > /data/file && ln -s /data/file /tmp/abs && ln -s ../etc /tmp/up
ln -s nowhere /tmp/dangling && ln -s /data /tmp/dir && chmod 6755 /data/file && echo t > /tt/file
mkfifo /data/fifo && echo vol > /v/file
"""


@pytest.fixture(params=["running", "paused", "stopped"])
def box(
    request: pytest.FixtureRequest, docker: Client, image: str, tmp_path: Path
) -> Iterator[str]:
    """A container in a state, with a volume at /v and a read-only bind at /ro."""
    (tmp_path / "bound").mkdir()
    name = f"box-{request.param}"
    docker(
        "run", "-d", "--name", name, "-v", "/v", "-v", f"{tmp_path}/bound:/ro:ro", "--tmpfs", "/tt",
        image, "sh", "-c", f"{MAKE} echo ready; exec sleep 99",
    )  # fmt: skip
    while "ready" not in docker("logs", name).stdout:
        pass
    if request.param == "paused":
        docker("pause", name)
    elif request.param == "stopped":
        docker("kill", name)
        docker("wait", name)
    yield name
    if request.param == "paused":
        docker("unpause", name)
    docker("rm", "--force", "--volumes", name)


def _request(
    engine: EngineProcess, method: str, name: str, path: str, body: bytes = b"", more: str = ""
) -> tuple[int, dict[str, str], bytes]:
    """Ask the API for a path, past the CLI. Return status, headers in lower case, body."""
    command = [
        "curl", "--silent", "--include", "--unix-socket", engine.host.removeprefix("unix://"),
        f"http://x/v1.51/containers/{name}/archive?path={urllib.parse.quote(path)}{more}",
    ]  # fmt: skip
    if method == "HEAD":
        command.append("--head")
    elif method == "PUT":
        command += ["--request", "PUT", "--data-binary", "@-", "-H", "Expect:"]
    done = subprocess.run(command, input=body, capture_output=True, check=True, timeout=30)
    head, _, rest = done.stdout.partition(b"\r\n\r\n")
    lines = head.decode().split("\r\n")
    headers = {k.lower(): v for k, _, v in (line.partition(": ") for line in lines[1:])}
    return int(lines[0].split()[1]), headers, rest


def _stat(engine: EngineProcess, name: str, path: str) -> dict[str, object]:
    status, headers, _ = _request(engine, "HEAD", name, path)
    assert status == 200
    found: dict[str, object] = json.loads(base64.b64decode(headers["x-docker-container-path-stat"]))
    return found


def _tar(*members: tuple[str, bytes, bytes, str]) -> bytes:
    """Make an archive of (name, type, content, link target)."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, kind, content, target in members:
            member = tarfile.TarInfo(name)
            member.type, member.linkname, member.size = kind, target, len(content)
            member.uid, member.gid, member.mode = 77, 88, 0o755
            tar.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("path", "name", "mode", "target"),
    [
        ("/tmp/abs", "abs", 1 << 27 | 0o777, "/data/file"),
        ("/tmp/up", "up", 1 << 27 | 0o777, "/etc"),
        ("/tmp/up/", "up", 1 << 31 | 0o755, ""),
        ("/tmp/dangling", "dangling", 1 << 27 | 0o777, "/tmp/nowhere"),
        ("/tmp/dir/.", ".", 1 << 31 | 0o755, ""),
        ("/", "/", 1 << 31 | 0o755, ""),
        (".", ".", 1 << 31 | 0o755, ""),
        ("/./", ".", 1 << 31 | 0o755, ""),
        ("data/../data/file", "file", 1 << 23 | 1 << 22 | 0o755, ""),
        ("/data/fifo", "fifo", 1 << 25 | 0o644, ""),
    ],
)
def test_stat(
    engine: EngineProcess, box: str, path: str, name: str, mode: int, target: str
) -> None:
    found = _stat(engine, box, path)
    assert (found["name"], found["mode"], found["linkTarget"]) == (name, mode, target)


@pytest.mark.parametrize(("path", "prefix"), [("/", "/"), ("/.", "./"), (".", "./")])
def test_names_in_an_archive_of_the_root(
    engine: EngineProcess, docker: Client, image: str, path: str, prefix: str
) -> None:
    docker("create", "--name", "whole", image)
    status, _, body = _request(engine, "GET", "whole", path)
    with tarfile.open(fileobj=io.BytesIO(body)) as tar:
        first, *rest = (member.get_info()["name"] for member in tar)
    assert status == 200
    assert first == prefix
    assert f"{prefix}etc/passwd" in rest


@pytest.mark.parametrize(
    ("path", "status", "message"),
    [
        ("/nosuch", 404, "Could not find the file /nosuch in container BOX"),
        ("/data/file/", 500, "lstat /data/file/: not a directory"),
        ("", 400, "bad parameter: pathcannot be empty"),
    ],
)
def test_stat_refused(
    engine: EngineProcess, box: str, path: str, status: int, message: str
) -> None:
    found, _, body = _request(engine, "GET", box, path)
    assert (found, json.loads(body)["message"]) == (status, message.replace("BOX", box))


@pytest.mark.parametrize(
    ("path", "members"),
    [
        ("/data", ["data/", "data/fifo", "data/file", "data/sub/"]),
        ("/tmp/dir/", ["dir/", "dir/fifo", "dir/file", "dir/sub/"]),
        ("/tmp/dir/.", ["./", "./fifo", "./file", "./sub/"]),
        ("/tmp/abs", ["abs"]),
        ("/v", ["v/", "v/file"]),
    ],
)
def test_get(engine: EngineProcess, box: str, path: str, members: list[str]) -> None:
    status, headers, body = _request(engine, "GET", box, path)
    assert status == 200
    assert headers["content-type"] == "application/x-tar"
    with tarfile.open(fileobj=io.BytesIO(_unchunked(headers, body))) as tar:
        names = [m.name + "/" * (m.isdir() and not m.name.endswith("/")) for m in tar]
    assert sorted(names) == members


def _unchunked(headers: dict[str, str], body: bytes) -> bytes:
    return body  # curl has taken the chunks apart


def test_copy_out_and_in(docker: Client, box: str, tmp_path: Path) -> None:
    docker("cp", f"{box}:/data", str(tmp_path / "out"))
    assert (tmp_path / "out" / "file").read_text() == "hello\n"
    assert os.stat(tmp_path / "out" / "file").st_mode & 0o7777 == 0o6755
    docker("cp", f"{box}:/v/file", str(tmp_path / "vol"))
    assert (tmp_path / "vol").read_text() == "vol\n"
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "new").write_text("brought\n")
    docker("cp", str(tmp_path / "in"), f"{box}:/data/")
    docker("cp", str(tmp_path / "in" / "new"), f"{box}:/v/renamed")
    docker("cp", f"{box}:/data/in/new", str(tmp_path / "back"))
    docker("cp", f"{box}:/v/renamed", str(tmp_path / "again"))
    assert (tmp_path / "back").read_text() == (tmp_path / "again").read_text() == "brought\n"
    streamed = docker.raw("cp", f"{box}:/data/file", "-").stdout
    with tarfile.open(fileobj=io.BytesIO(streamed)) as tar:
        assert [member.name for member in tar] == ["file"]
    docker.raw("cp", "-", f"{box}:/data", stdin=_tar(("piped", tarfile.REGTYPE, b"x", "")))
    assert docker.raw("cp", f"{box}:/data/piped", "-").stdout
    followed = docker("cp", "-L", f"{box}:/tmp/abs", str(tmp_path / "followed"))
    assert followed.returncode == 0
    assert (tmp_path / "followed").read_text() == "hello\n"


def test_the_whole_root(docker: Client, box: str) -> None:
    """It comes to its end, without what the kernel shows in there, and with the engine's files."""
    packed = docker.raw("cp", f"{box}:/", "-").stdout
    with tarfile.open(fileobj=io.BytesIO(packed)) as tar:
        members = {member.name.strip("/"): member for member in tar}
    assert members["proc"].isdir()
    assert not [name for name in members if name.startswith(("proc/", "sys/", "dev/"))]
    assert members["v/file"].size == len("vol\n")
    assert members["etc/hosts"].size
    assert members["etc/resolv.conf"].mode == 0o644


def test_what_put_makes(engine: EngineProcess, docker: Client, box: str) -> None:
    def put(archive: bytes, path: str, more: str = "") -> tuple[int, str]:
        status, _, body = _request(engine, "PUT", box, path, archive, more)
        return status, json.loads(body)["message"] if body.strip() else ""

    plain = _tar(("x", tarfile.DIRTYPE, b"", ""), ("x/f", tarfile.REGTYPE, b"new", ""))
    assert put(plain, "/tmp") == (200, "")
    assert _stat(engine, box, "/tmp/x/f")["size"] == 3
    assert put(plain, "/nosuch") == (404, f"Could not find the file /nosuch in container {box}")
    assert put(plain, "/data/file") == (400, "extraction point is not a directory")
    assert put(plain, "/ro") == (400, "mounted volume is marked read-only")
    assert put(plain, "") == (400, "bad parameter: pathcannot be empty")
    assert put(plain, "/tmp/dir") == (200, "")
    assert _stat(engine, box, "/data/x/f")["size"] == 3
    over = _tar(("sub", tarfile.REGTYPE, b"x", ""))
    status, message = put(over, "/data", "&noOverwriteDirNonDir=1")
    assert (status, 'cannot overwrite directory "sub" with non-directory' in message) == (500, True)
    assert put(over, "/data") == (200, "")
    under = _tar(("file", tarfile.DIRTYPE, b"", ""))
    status, message = put(under, "/data", "&noOverwriteDirNonDir=1")
    assert (status, 'cannot overwrite non-directory "file" with' in message) == (500, True)
    assert put(_tar((".wh.file", tarfile.REGTYPE, b"", "")), "/data") == (200, "")
    assert _stat(engine, box, "/data/.wh.file")["size"] == 0
    assert put(_tar(("../../evil", tarfile.REGTYPE, b"x", "")), "/tmp")[0] == 500
    assert put(b"garbage", "/tmp")[0] == 500
    # The directory is the root for the archive's own links.
    through = _tar(
        ("data", tarfile.DIRTYPE, b"", ""),
        ("l", tarfile.SYMTYPE, b"", "/data"),
        ("l/through", tarfile.REGTYPE, b"x", ""),
    )
    assert put(through, "/tmp") == (200, "")
    assert _stat(engine, box, "/tmp/data/through")["size"] == 1


def test_archive_mode_gives_the_containers_user(
    engine: EngineProcess, docker: Client, image: str
) -> None:
    docker("run", "-d", "--name", "alices", "-u", "alice", image, "sleep", "99")
    archive = _tar(("mine", tarfile.REGTYPE, b"x", ""))
    assert _request(engine, "PUT", "alices", "/tmp", archive, "&copyUIDGID=true")[0] == 200
    shown = docker("exec", "alices", "stat", "-c", "%u %g", "/tmp/mine").stdout
    assert shown == "1000 1000\n"
    assert _request(engine, "PUT", "alices", "/tmp", archive)[0] == 200
    assert docker("exec", "alices", "stat", "-c", "%u %g", "/tmp/mine").stdout == "77 88\n"


def test_read_only_root(engine: EngineProcess, docker: Client, image: str) -> None:
    docker("run", "-d", "--read-only", "-v", "/v", "--name", "fixed", image, "sleep", "99")
    archive = _tar(("f", tarfile.REGTYPE, b"x", ""))
    status, _, body = _request(engine, "PUT", "fixed", "/tmp", archive)
    assert (status, json.loads(body)["message"]) == (400, "container rootfs is marked read-only")
    assert _request(engine, "PUT", "fixed", "/v", archive)[0] == 200


def test_a_container_that_never_ran(docker: Client, image: str, tmp_path: Path) -> None:
    (tmp_path / "f").write_text("early\n")
    docker("create", "--name", "early", "-v", "/v", image, "cat", "/v/f", "/etc/f")
    docker("cp", str(tmp_path / "f"), "early:/v/f")
    docker("cp", str(tmp_path / "f"), "early:/etc/f")
    assert docker("start", "--attach", "early").stdout == "early\nearly\n"


def test_links_lead_nowhere_outside(docker: Client, image: str, tmp_path: Path) -> None:
    """A container's links mean the container's own files, to cp as well."""
    secret = tmp_path / "secret"
    secret.write_text("the host's\n")
    script = (
        f"mkdir -p {tmp_path}; echo inside > {secret}; ln -s {secret} /link; ln -s / /root-link"
    )
    docker("run", "--name", "liar", image, "sh", "-c", script)
    docker("cp", "-L", "liar:/link", str(tmp_path / "got"))
    assert (tmp_path / "got").read_text() == "inside\n"
    (tmp_path / "evil").write_text("evil\n")
    docker("cp", str(tmp_path / "evil"), f"liar:/root-link{tmp_path}/placed")
    assert not (tmp_path / "placed").exists()


def test_a_racing_process_gains_nothing(
    engine: EngineProcess, docker: Client, image: str, tmp_path: Path
) -> None:
    """Names that turn into links to the host's files while an archive is unpacked over them."""
    victim = tmp_path / "victim"
    victim.write_text("untouched")
    os.chmod(victim, 0o600)
    swap = (
        f"mkdir /w; cd /w; while :; do rm -rf p q; ln -s {victim} q; ln -s {tmp_path} p;"
        " rm -rf p q; mkdir p; done"
    )
    docker("run", "-d", "--name", "racer", image, "sh", "-c", swap)
    members = [("p", tarfile.DIRTYPE, b"", ""), ("p/victim", tarfile.REGTYPE, b"owned", "")]
    members += [("q", tarfile.FIFOTYPE, b"", ""), ("victim", tarfile.REGTYPE, b"x", "")]
    archive = _tar(*members)
    for _ in range(60):
        _request(engine, "PUT", "racer", "/w", archive)
        _request(engine, "GET", "racer", "/w/p/")
    assert victim.read_text() == "untouched"
    assert os.stat(victim).st_mode & 0o777 == 0o600
    assert os.stat(victim).st_uid == os.geteuid()
    assert not (tmp_path / "p").exists()


def test_nothing_is_left_mounted(docker: Client, engine: EngineProcess, image: str) -> None:
    docker("create", "--name", "still", "-v", "/v", image)
    docker.raw("cp", "still:/etc", "-")
    assert "staging" not in Path("/proc/self/mountinfo").read_text()
