"""`pier build` and `pier builder`."""

import io
import json
import os
import re
import socket
import tarfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from git_server import serve_repository

from engine_process import Client, EngineProcess


@pytest.fixture
def pier(engine: EngineProcess) -> Client:
    """The pier command line."""
    return engine.pier


def test_build(pier: Client, docker: Client, image: str, tmp_path: Path) -> None:
    context = tmp_path / "context"
    (context / "big" / "keep").mkdir(parents=True)
    (context / "big" / "no").write_text("no")
    (context / "big" / "keep" / "yes").write_text("yes")
    (context / ".dockerignore").write_text("big\n!big/keep\n")
    (context / "Dockerfile").write_text(
        f"FROM {image}\nARG A\nCOPY . /c\nRUN echo $A > /a && echo told\nCMD find /c -type f\n"
    )
    words = ("build", "--network", "none", "--build-arg", "A=1", "-t", "made/pier")
    told = pier(*words, "--iidfile", str(tmp_path / "id"), str(context)).stderr
    assert re.search(r"^#\d+ \d\.\d{3} told$", told, re.MULTILINE)
    assert re.search(r"^#\d+ \[3/3\] RUN echo 1 > /a && echo told$", told, re.MULTILINE)
    identity = (tmp_path / "id").read_text()
    assert docker("inspect", "-f", "{{.Id}}", "made/pier").stdout.strip() == identity
    found = docker("run", "--rm", "made/pier").stdout.split()
    assert sorted(found) == ["/c/.dockerignore", "/c/Dockerfile", "/c/big/keep/yes"]
    assert pier(*words, "-q", str(context)).stdout.strip() == identity
    other = tmp_path / "Other"
    other.write_text(f"FROM {image}\nCOPY . /c\nCMD ls -A /c\n")
    pier("image", "build", "--network", "none", "-f", str(other), "-t", "made/pier2", str(context))
    assert docker("run", "--rm", "made/pier2").stdout.split() == [
        ".dockerignore",
        "Dockerfile",
        "big",
    ]
    text = f"FROM {image}\nRUN exit 7\n"
    failed = pier("build", "--force-rm", "--network", "none", "-", stdin=text, check=False)
    assert failed.returncode == 7
    assert (
        'process "/bin/sh -c exit 7" did not complete successfully: exit code: 7' in failed.stderr
    )
    assert "   2 | >>> RUN exit 7" in failed.stderr
    assert "RUN echo $A" not in pier("builder", "du").stderr
    assert "/bin/sh -c echo $A" in pier("builder", "du").stdout
    docker("rmi", "made/pier", "made/pier2")
    assert "Total reclaimed space" in pier("builder", "prune", "-af").stdout
    assert "-c echo" not in pier("builder", "du").stdout


def test_refused(pier: Client, tmp_path: Path) -> None:
    missing = pier("build", str(tmp_path), check=False)
    assert "no such file or directory" in missing.stderr
    remote = pier("build", "http://127.0.0.1:9/x.git", check=False)
    assert "git fetch failed: fatal: unable to access" in remote.stderr


@pytest.fixture
def cleared(docker: Client) -> Iterator[None]:
    docker("builder", "prune", "-af")
    yield
    for name in docker("images", "--format", "{{.Repository}}:{{.Tag}}").stdout.split():
        if name.startswith("made/"):
            docker("rmi", "-f", name)
    docker("builder", "prune", "-af")


def place(tmp_path: Path, dockerfile: str, **files: str) -> str:
    """Make a context; return its path."""
    context = tmp_path / "context"
    context.mkdir(exist_ok=True)
    (context / "Dockerfile").write_text(dockerfile)
    for name, text in files.items():
        (context / name).write_text(text)
    return str(context)


@pytest.mark.usefixtures("cleared")
def test_secrets(
    pier: Client, docker: Client, pierd: EngineProcess, image: str, tmp_path: Path
) -> None:
    value = "s3cret-word-of-this-test"
    (tmp_path / "file").write_text(value)
    context = place(
        tmp_path,
        f"FROM {image}\n"
        "RUN --mount=type=secret,id=one,mode=0444 --mount=type=secret,id=two,target=/deep/two,uid=7 "
        "--mount=type=secret,id=three,env=THREE "
        "cat /run/secrets/one | md5sum > /sums && md5sum < /deep/two >> /sums && "
        "echo -n $THREE | md5sum >> /sums; stat -c %u:%a /run/secrets/one /deep/two > /modes\n"
        "RUN ls /run/secrets /deep > /left; echo $THREE >> /left; true\n"
        "RUN --mount=type=secret,id=none [ ! -e /run/secrets/none ]\n",
    )
    os.environ["PIER_TEST_SECRET"] = value
    words = ["build", "--network", "none", "-t", "made/secret", "--no-cache"]
    words += ["--secret", f"id=one,src={tmp_path}/file", "--secret", "id=two,env=PIER_TEST_SECRET"]
    client = Client(pier.command, {**pier.env, "PIER_TEST_SECRET": value, "three": value})
    told = client(*words, "--secret", "id=three", context)
    found = docker("run", "--rm", "made/secret", "cat", "/sums", "/modes", "/left").stdout.split()
    assert len({line for line in found if len(line) == 32}) == 1
    assert "0:444" in found
    assert "7:400" in found
    everything = told.stdout + told.stderr + docker("history", "--no-trunc", "made/secret").stdout
    assert value not in everything + docker("inspect", "made/secret").stdout
    for top, _, names in os.walk(pierd.directory):
        for name in names:
            path = os.path.join(top, name)
            if os.path.isfile(path) and not os.path.islink(path):
                with open(path, "rb") as file:
                    assert value.encode() not in file.read(), path
    missing = place(tmp_path, f"FROM {image}\nRUN --mount=type=secret,id=no,required true\n")
    failed = client("build", "--secret", "id=three", missing, check=False)
    assert "secret no: not found" in failed.stderr
    assert "   2 | >>> RUN --mount" in failed.stderr


@pytest.mark.usefixtures("cleared")
def test_ssh_agents(pier: Client, docker: Client, image: str, tmp_path: Path) -> None:
    path = str(tmp_path / "agent")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen()

        def answer() -> None:
            while True:
                try:
                    peer, _ = listener.accept()
                except OSError:
                    return
                with peer:
                    peer.sendall(b"agent says " + peer.recv(100))

        threading.Thread(target=answer, daemon=True).start()
        context = place(
            tmp_path,
            f"FROM {image}\nRUN --mount=type=ssh echo hello | nc -w 2 local:$SSH_AUTH_SOCK > /said; "
            "echo $SSH_AUTH_SOCK >> /said; stat -c %a $SSH_AUTH_SOCK >> /said\n",
        )
        words = ("build", "--network", "none", "-t", "made/ssh", "--ssh")
        pier(*words, f"default={path}", context)
        said = docker("run", "--rm", "made/ssh", "cat", "/said").stdout
        assert "/run/buildkit/ssh_agent.0\n600\n" in said
        required = place(tmp_path, f"FROM {image}\nRUN --mount=type=ssh,id=x,required true\n")
        failed = pier(*words, f"default={path}", required, check=False)
        assert "unable to forward ssh agent x" in failed.stderr
        listener.shutdown(socket.SHUT_RDWR)
    failed = pier("build", "--ssh", "default=/none", context, check=False)
    assert "failed to stat /none" in failed.stderr


@pytest.mark.usefixtures("cleared")
def test_named_contexts(pier: Client, docker: Client, image: str, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    (other / "f").write_text("other\n")
    (other / "no.tmp").write_text("x")
    (other / ".dockerignore").write_text("*.tmp\n")
    context = place(
        tmp_path,
        "FROM unknown.example/base AS tools\nRUN echo tools > /t\n"
        "FROM unknown.example/base\nCOPY --from=more / /more\nCOPY --from=tools t /tools\n"
        "COPY --from=again /t /again\nRUN --mount=from=more,target=/m cp /m/f /mounted\n",
    )
    words = ["build", "--network", "none", "-t", "made/named", "--build-context"]
    words += [f"unknown.example/base=docker-image://{image}"]
    words += ["--build-context", f"more={other}", "--build-context", "again=target:tools"]
    pier(*words, context)
    found = docker(
        "run", "--rm", "made/named", "sh", "-c", "cat /tools /again /mounted; ls -A /more"
    )
    assert found.stdout.split() == ["tools", "tools", "other", ".dockerignore", "f"]
    # A context takes the place of a stage of that name.
    (tmp_path / "context" / "Dockerfile").write_text(
        "FROM none.example/x AS tools\nRUN exit 1\nFROM scratch\nCOPY --from=tools f /f\n"
    )
    pier("build", "-t", "made/stage", "--build-context", f"tools={other}", context)
    left = docker("images", "-q", "--filter", "dangling=true").stdout.split()
    assert "context " not in "".join(docker("history", name).stdout for name in left)
    failed = pier("build", "--build-context", "x=/none", context, check=False)
    assert "failed to get build context path" in failed.stderr


@pytest.mark.usefixtures("cleared")
def test_checks(pier: Client, image: str, tmp_path: Path) -> None:
    context = place(tmp_path, f"FROM {image} AS Base\nCMD echo $x\n")
    found = pier("build", "--check", context, check=False)
    assert found.returncode == 1
    assert found.stdout.startswith(
        "Check complete, 2 warnings have been found!\n\nWARNING: StageNameCasing - "
    )
    assert "Dockerfile:2\n--------------------\n   1 |" in found.stdout
    document = json.loads(pier("build", "--call=check,format=json", context, check=False).stdout)
    assert [w["ruleName"] for w in document["warnings"]] == [
        "StageNameCasing",
        "JSONArgsRecommended",
    ]
    told = pier("build", context).stderr
    assert (
        " 2 warnings found:\n - StageNameCasing: Stage name 'Base' should be lowercase (line 1)\n"
        in told
    )
    failed = pier(
        "build", "--build-arg", "BUILDKIT_DOCKERFILE_CHECK=error=true", context, check=False
    )
    assert (
        "failed to solve: lint violation found for rules: JSONArgsRecommended, StageNameCasing"
        in failed.stderr
    )
    place(tmp_path, f"FROM {image}\n")
    assert pier("build", "--check", context).stdout == "Check complete, no warnings found.\n"
    place(tmp_path, f"FROM {image}\nRAN x\n")
    failed = pier("build", "--check", context, check=False)
    assert "   2 | >>> RAN x" in failed.stderr
    assert (
        "failed to solve: dockerfile parse error on line 2: unknown instruction: RAN (did you mean RUN?)"
        in failed.stderr
    )


@pytest.mark.usefixtures("cleared")
def test_outputs(pier: Client, docker: Client, image: str, tmp_path: Path) -> None:
    context = place(tmp_path, "FROM scratch\nCOPY f /d/f\n", f="exported\n")
    pier("build", "-o", str(tmp_path / "out"), context)
    assert (tmp_path / "out" / "d" / "f").read_text() == "exported\n"
    metadata = tmp_path / "metadata"
    pier(
        "build",
        "-o",
        f"type=oci,dest={tmp_path}/oci.tar",
        "--metadata-file",
        str(metadata),
        context,
    )
    with tarfile.open(tmp_path / "oci.tar") as tar:
        assert "oci-layout" in tar.getnames()
    assert json.loads(metadata.read_text())["containerimage.digest"].startswith("sha256:")
    listed = pier.raw("build", "-o", "-", context).stdout
    (tmp_path / "tar").write_bytes(listed)
    with tarfile.open(tmp_path / "tar") as tar:
        assert "d/f" in tar.getnames()
    failed = pier("build", "-o", "dest=x", context, check=False)
    assert "type is required for output" in failed.stderr


@pytest.mark.usefixtures("cleared")
def test_progress(pier: Client, image: str, tmp_path: Path) -> None:
    context = place(tmp_path, f"FROM {image}\nRUN echo one; echo two\n")
    words = ("build", "--network", "none", "--no-cache")
    raw = pier(*words, "--progress", "rawjson", context).stderr
    records = [json.loads(line) for line in raw.splitlines()]
    names = {v["name"] for record in records for v in record.get("vertexes", [])}
    assert "[2/2] RUN echo one; echo two" in names
    assert any("logs" in record for record in records)
    tree = pier(*words, "--progress", "tty", context).stderr
    assert "[+] Building " in tree
    assert " => [2/2] RUN echo one; echo two" in tree
    assert pier(*words, "--progress", "quiet", context).stderr == ""
    failed = pier("build", "--progress", "loud", context, check=False)
    assert "invalid progress mode loud" in failed.stderr


@pytest.mark.usefixtures("cleared")
def test_no_cache_filter(pier: Client, image: str, tmp_path: Path) -> None:
    context = place(
        tmp_path,
        f"FROM {image} AS a\nRUN echo a > /a\nFROM {image}\nRUN echo b > /b\nCOPY --from=a /a /a\n",
    )
    words = ("build", "--network", "none")
    pier(*words, context)
    again = pier(*words, context).stderr
    assert again.count(" CACHED") >= 4
    filtered = pier(*words, "--no-cache-filter", "a", context).stderr
    lines = filtered.splitlines()
    numbers = {line.split(" ", 1)[1]: line.split(" ")[0] for line in lines if " RUN echo" in line}
    run_a = next(number for name, number in numbers.items() if name.startswith("[a "))
    run_b = next(number for name, number in numbers.items() if not name.startswith("[a "))
    assert f"{run_a} CACHED" not in lines
    assert f"{run_b} CACHED" in lines


@pytest.mark.usefixtures("cleared")
def test_repository(pier: Client, docker: Client, pierd: EngineProcess, tmp_path: Path) -> None:
    with serve_repository(pierd.in_network, tmp_path) as url:
        pier("build", "-t", "made/git", f"{url}#v1")
        pier("build", "-o", str(tmp_path / "out"), url)
    assert (tmp_path / "out" / "sub" / "deep" / "f").read_text() == "two\n"


@pytest.mark.usefixtures("cleared")
def test_pruning_to_a_size(pier: Client, docker: Client, image: str, tmp_path: Path) -> None:
    context = place(
        tmp_path,
        f"FROM {image}\nRUN dd if=/dev/zero of=/a bs=1M count=2\n"
        "RUN --mount=type=cache,id=pier-size,target=/c dd if=/dev/zero of=/c/b bs=1M count=1\n",
    )
    pier("build", "--network", "none", context)
    shown = pier("builder", "du").stdout
    assert "cache mount pier-size" in shown
    assert "exec.cachemount" in pier("builder", "du", "--verbose", "--filter", "type=exec").stdout
    kinds = [
        json.loads(line)["Type"]
        for line in pier("builder", "du", "--format", "json").stdout.splitlines()
    ]
    assert kinds.count("exec.cachemount") == 1
    assert (
        "Total reclaimed space: 0B"
        in pier("builder", "prune", "-f", "--reserved-space", "1GB").stdout
    )
    pruned = pier("builder", "prune", "-f", "--filter", "type=exec.cachemount").stdout
    assert "Total reclaimed space: 1.049MB" in pruned
    assert (
        "Total reclaimed space: 0B" in pier("builder", "prune", "-f", "--filter", "until=1h").stdout
    )
    assert (
        "Total reclaimed space: 2.097MB"
        in pier("builder", "prune", "-f", "--max-used-space", "1MB").stdout
    )
    failed = pier("builder", "prune", "-f", "--filter", "what=1", check=False)
    assert "invalid filter 'what'" in failed.stderr


@pytest.mark.usefixtures("cleared")
def test_shell_in_a_failed_step(pier: Client, docker: Client, image: str, tmp_path: Path) -> None:
    context = place(
        tmp_path,
        f"FROM {image}\nRUN echo before > /before\n"
        "RUN --mount=type=cache,id=pier-shell,target=/c --mount=target=/ctx "
        "echo made > /made; echo kept > /c/kept; exit 3\n",
    )
    dangling = ("images", "-q", "--filter", "dangling=true")
    before = set(docker(*dangling).stdout.split())
    commands = "cat /before /made /c/kept /ctx/Dockerfile; id -u\n"
    words = ("build", "--network", "none", "--on-error=shell", context)
    done = pier(*words, stdin=commands, check=False)
    assert done.returncode == 3
    assert done.stdout.split()[:3] == ["before", "made", "kept"]
    assert done.stdout.split()[-1] == "0"
    assert "The step failed. This is a shell in its state" in done.stderr
    assert "exit code: 3" in done.stderr
    assert docker("ps", "-aq").stdout == ""
    left = set(docker(*dangling).stdout.split())
    assert len(left - before) == 1  # RUN echo before
    failed = pier("build", "--on-error=x", context, check=False)
    assert "invalid value for --on-error: x" in failed.stderr


@pytest.mark.usefixtures("cleared")
def test_history_of_builds(pier: Client, image: str, tmp_path: Path) -> None:
    pier("builder", "history", "--rm")
    context = place(
        tmp_path, f"FROM {image}\nARG S=1\nRUN dd if=/dev/zero of=/a bs=1024 count=3; [ $S = 1 ]\n"
    )
    pier("build", "--network", "none", "-t", "made/log", context)
    pier("build", "--network", "none", "-t", "made/log", context)
    pier("build", "--network", "none", "--build-arg", "S=2", "-t", "made/bad", context, check=False)
    rows = [line.split() for line in pier("builder", "history").stdout.splitlines()]
    assert [row[1:3] for row in rows[1:]] == [
        ["made/bad:latest", "Error"],
        ["made/log:latest", "Completed"],
        ["made/log:latest", "Completed"],
    ]
    first = pier("builder", "history", rows[3][0]).stdout
    assert re.search(r"^RUN dd .*s +3.07kB +no$", first, re.MULTILINE)
    assert re.search(
        r"^RUN dd .* yes$", pier("builder", "history", rows[2][0]).stdout, re.MULTILINE
    )
    assert re.search(
        r"^RUN dd .* ERROR$", pier("builder", "history", rows[1][0]).stdout, re.MULTILINE
    )
    assert pier("builder", "history", "--rm", rows[1][0]).stdout.startswith(rows[1][0])
    assert len(pier("builder", "history", "--format", "json").stdout.splitlines()) == 2
    assert "no record found" in pier("builder", "history", "zz", check=False).stderr


def test_outline_and_targets(pier: Client, image: str, tmp_path: Path) -> None:
    context = place(
        tmp_path,
        "ARG V=1.2\n# base is what others stand on\nFROM x:$V AS base\n"
        "# MODE is fast or safe\nARG MODE=fast\n"
        "RUN --mount=type=secret,id=token,required --mount=type=ssh true\nFROM base\n",
    )
    assert pier("build", "--call=targets", context).stdout.split("\n")[:3] == [
        "TARGET    DESCRIPTION",
        "base      is what others stand on",
        "(default)",
    ]
    outline = pier("build", "--call=outline", "--target", "base", context).stdout
    assert re.search(r"^BUILD ARG +VALUE +DESCRIPTION$", outline, re.MULTILINE)
    assert re.search(r"^MODE +fast +is fast or safe$", outline, re.MULTILINE)
    assert re.search(r"^token +true$", outline, re.MULTILINE)
    assert re.search(r"^V +1.2$", outline, re.MULTILINE)
    document = json.loads(pier("build", "--call=outline,format=json", context).stdout)
    assert [secret["name"] for secret in document["secrets"]] == ["token"]
    assert "invalid call" in pier("build", "--call=what", context, check=False).stderr


@pytest.mark.usefixtures("cleared")
def test_explained(pier: Client, image: str, tmp_path: Path) -> None:
    text = f"FROM {image}\nCOPY f g /d/\nARG A=1\nRUN echo $A > /a\nRUN echo b > /b\n"
    words = ("build", "--network", "none", "--explain")
    context = place(tmp_path, text, f="1", g="2")
    assert "COPY f g /d/: no build before had such a step" in pier(*words, context).stderr
    assert "Not from the cache" not in pier(*words, context).stderr
    told = pier(*words, "--build-arg", "A=2", context).stderr
    assert " - RUN echo $A > /a: the build arguments: 'A=1' became 'A=2'\n" in told
    assert (
        " - RUN echo b > /b: the step before it is another one, and the build arguments: " in told
    )
    place(tmp_path, text, g="3")
    told = pier(*words, context).stderr
    assert " - COPY f g /d/: the file g changed\n" in told
    assert "--no-cache was given" in pier(*words, "--no-cache", context).stderr


@pytest.mark.usefixtures("cleared")
def test_cache_mounts_travel(pier: Client, docker: Client, image: str, tmp_path: Path) -> None:
    mount = "--mount=type=cache,id=pier-travel,target=/c"
    context = place(
        tmp_path, f"FROM {image}\nRUN {mount} mkdir -p /c/d; echo 1 >> /c/d/f; chown 5:6 /c/d/f\n"
    )
    kept = tmp_path / "mounts.tar"
    words = ("build", "--network", "none")
    pier(*words, "--cache-mounts-to", str(kept), context)
    with tarfile.open(kept) as tar:
        assert "pier-travel" in json.load(tar.extractfile("mounts.json") or io.BytesIO()).values()
    docker("builder", "prune", "-af")
    place(tmp_path, f"FROM {image}\nRUN {mount} cat /c/d/f > /f; stat -c %u:%g /c/d/f >> /f\n")
    pier(*words, "--cache-mounts-from", str(kept), "-t", "made/travel", context)
    assert docker("run", "--rm", "made/travel", "cat", "/f").stdout == "1\n5:6\n"
    # Steps that the cache has count as well.
    pier(*words, "--cache-mounts-to", str(tmp_path / "again.tar"), context)
    with tarfile.open(tmp_path / "again.tar") as tar:
        assert any(name.endswith("/d/f") for name in tar.getnames())
    (tmp_path / "bad").write_bytes(b"no archive")
    failed = pier(*words, "--cache-mounts-from", str(tmp_path / "bad"), context, check=False)
    assert "this is no archive of cache mounts" in failed.stderr
    failed = pier(*words, "--cache-mounts-from", "/none", context, check=False)
    assert "open /none: no such file or directory" in failed.stderr


def test_history_by_layers(engine: EngineProcess, image: str, tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text(f"FROM {image}\nENV A=1\nRUN echo 1 > /one\nCMD x\n")
    engine.pier("build", "-t", "layered", str(tmp_path))
    lines = engine.pier("history", "--layers", "--no-trunc", "layered").stdout.splitlines()
    shown = engine.docker("inspect", "-f", '{{join .RootFS.Layers " "}}', "layered").stdout
    assert lines[0].split()[0] == "LAYER"
    assert [line.split()[0] for line in lines[1:]] == shown.split()[::-1]
    assert "echo 1 > /one" in lines[1]
    found = engine.pier("history", "--format", "{{.Layer}}|{{.CreatedBy}}", "layered").stdout
    assert found.startswith("|/bin/sh -c #(nop)  CMD")
    engine.docker("rmi", "layered")
