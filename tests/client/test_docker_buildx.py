"""The genuine docker-buildx over BuildKit's gRPC: `docker build` as most people run it."""

import json
import os
import shutil
import subprocess
import tarfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from git_server import git, serve_repository

from docker_plugins import configure, find_plugins
from engine_process import Client, EngineProcess, wait_until


@pytest.fixture(scope="session")
def plugins(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A configuration of docker with the plugins in it."""
    found = find_plugins()
    if found is None:
        pytest.skip("no docker-buildx: PIER_DOCKER_PLUGINS names no directory with it")
    config = tmp_path_factory.mktemp("config")
    configure(config, found)
    return config


@pytest.fixture
def buildx(engine: EngineProcess, docker: Client, plugins: Path) -> Iterator[Client]:
    environment = {k: v for k, v in docker.env.items() if k != "DOCKER_BUILDKIT"}
    client = Client(docker.command, {**environment, "DOCKER_CONFIG": str(plugins)})
    before = engine.calls.image_ids()
    yield client
    engine.calls.remove_images_but(before)
    shutil.rmtree(plugins / "buildx", ignore_errors=True)


class Context:
    def __init__(self, buildx: Client, image: str, directory: Path) -> None:
        self.buildx = buildx
        self.image = image
        self.directory = directory / "context"
        self.directory.mkdir()

    def file(self, name: str, content: str = "x\n") -> Path:
        path = self.directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
        return path

    def build(self, text: str, *flags: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        self.file("Dockerfile", text.replace("BASE", self.image))
        words = ("build", "--progress=plain", *flags, str(self.directory))
        return self.buildx(*words, check=check)


@pytest.fixture
def context(buildx: Client, image: str, tmp_path: Path) -> Context:
    return Context(buildx, image, tmp_path)


def steps(output: str) -> dict[str, str]:
    """How each step ended, by its name: DONE, CACHED or ERROR."""
    names: dict[str, str] = {}
    found: dict[str, str] = {}
    for line in output.splitlines():
        number, _, rest = line.partition(" ")
        if not number.startswith("#"):
            continue
        if number not in names:
            names[number] = rest
        elif (word := rest.split(" ")[0].rstrip(":")) in ("DONE", "CACHED", "ERROR"):
            found[names[number]] = word
    return found


def test_build(context: Context, docker: Client, tmp_path: Path) -> None:
    context.file("a.txt", "hello\n")
    context.file("b.log")
    context.file(".dockerignore", "*.log\n")
    text = "FROM BASE\nARG WHO\nWORKDIR /srv\nCOPY . .\nRUN echo to $WHO >> a.txt; echo oops >&2\n"
    metadata, iid = tmp_path / "metadata", tmp_path / "iid"
    done = context.build(
        text,
        *("-t", "made/one", "-t", "made/two:2", "--build-arg", "WHO=you", "--label", "a=b"),
        *("--metadata-file", str(metadata), "--iidfile", str(iid)),
    )
    image = json.loads(docker("inspect", "made/one").stdout)[0]
    assert sorted(image["RepoTags"]) == ["made/one:latest", "made/two:2"]
    assert image["Config"]["Labels"] == {"a": "b"}
    assert iid.read_text() == image["Id"]
    facts = json.loads(metadata.read_text())
    assert facts["containerimage.digest"] == image["Id"]
    assert facts["containerimage.config.digest"] == image["Id"]
    assert facts["buildx.build.ref"].startswith("default/default/")
    assert facts["buildx.build.provenance"]["buildType"] == "https://mobyproject.org/buildkit@v1"
    names = steps(done.stderr)
    assert names["[2/4] WORKDIR /srv"] == "DONE"
    assert names["[4/4] RUN echo to you >> a.txt; echo oops >&2"] == "DONE"
    assert "oops" in done.stderr
    assert f"writing image {image['Id']} done" in done.stderr
    listed = docker("run", "--rm", "made/one", "sh", "-c", "cat a.txt; ls -a").stdout
    assert listed.split() == [
        "hello",
        "to",
        "you",
        ".",
        "..",
        ".dockerignore",
        "Dockerfile",
        "a.txt",
    ]


def test_each_build_tells_of_its_image(context: Context, docker: Client) -> None:
    for _ in range(2):  # the second is all cached, and tells as well
        since = f"{time.time():.9f}"
        context.build("FROM BASE\nENV a=told\n", "-t", "made/told")
        span = ("--since", since, "--until", f"{time.time():.9f}", "--filter", "type=image")
        assert docker("events", *span, "--format", "{{.Action}}").stdout == "tag\ncreate\n"


def test_what_did_not_change_is_cached_and_not_sent(context: Context) -> None:
    for number in range(20):
        context.file(f"files/{number}", "y" * 5000)
    text = "FROM BASE\nCOPY files /files\nRUN cat /files/* | wc -c\n"
    first = context.build(text)
    assert steps(first.stderr)["[2/3] COPY files /files"] == "DONE"
    again = context.build(text)
    assert steps(again.stderr)["[2/3] COPY files /files"] == "CACHED"
    assert steps(again.stderr)["[3/3] RUN cat /files/* | wc -c"] == "CACHED"
    (context.directory / "files/3").write_text("z" * 2500)
    (context.directory / "files/7").unlink()
    (context.directory / "files/8").unlink()
    os.symlink("9", context.directory / "files/8")
    changed = context.build(text)
    assert steps(changed.stderr)["[2/3] COPY files /files"] == "DONE"
    assert str(17 * 5000 + 2500 + 5000) in changed.stderr
    (sent,) = [line for line in changed.stderr.splitlines() if "transferring context: " in line][
        -1:
    ]
    assert sent.split(": ")[1].split()[0].endswith("kB")
    assert float(sent.split(": ")[1].split("kB")[0]) < 6


@pytest.mark.parametrize(
    ("text", "message", "marked"),
    [
        (
            "FROM BASE\nRUN echo said && exit 3\n",
            'process "/bin/sh -c echo said && exit 3" did not complete successfully: exit code: 3',
            "2 | >>> RUN echo said && exit 3",
        ),
        (
            "FROM BASE\nCOPPY a b\n",
            "dockerfile parse error on line 2: unknown instruction: COPPY (did you mean COPY?)",
            "2 | >>> COPPY a b",
        ),
        (
            "FROM BASE\nRUN --mount=type=secret,id=s,required=true true\n",
            "secret s: not found",
            "2 | >>> RUN --mount=type=secret",
        ),
        (
            "FROM BASE\nADD http://127.0.0.1:1/x /\n",
            (
                'failed to load cache key: Get "http://127.0.0.1:1/x": '
                "dial tcp 127.0.0.1:1: connect: connection refused"
            ),
            "2 | >>> ADD http",
        ),
    ],
)
def test_errors_show_the_line(context: Context, text: str, message: str, marked: str) -> None:
    done = context.build(text, check=False)
    assert done.returncode == 1
    assert done.stderr.rstrip().endswith(f"ERROR: failed to build: failed to solve: {message}")
    assert marked in done.stderr


@pytest.mark.parametrize("line", ["FROM localhost:1/no", "COPY --from=localhost:1/no /a /a"])
def test_images_that_cannot_be_had_show_the_line(context: Context, line: str) -> None:
    done = context.build(f"FROM BASE\n{line}\n", check=False)
    reason = "localhost:1/no: failed to resolve source metadata for localhost:1/no:latest: "
    assert f"ERROR: failed to build: failed to solve: {reason}" in done.stderr
    assert f"   2 | >>> {line}" in done.stderr


def test_no_dockerfile(context: Context) -> None:
    done = context.build("FROM BASE\n", "-f", str(context.directory / "other"), check=False)
    assert "failed to read dockerfile: open other: no such file or directory" in done.stderr


def test_secrets(context: Context, docker: Client, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_bytes(b"s3cr3t\x00\xff")
    text = (
        "FROM BASE\n"
        "RUN --mount=type=secret,id=s wc -c < /run/secrets/s > /size\n"
        "RUN --mount=type=secret,id=none test ! -e /run/secrets/none\n"
    )
    context.build(text, "--secret", f"id=s,src={secret}", "-t", "made/secret")
    done = docker("run", "--rm", "made/secret", "sh", "-c", "cat /size; ls /run/secrets 2>&1 || :")
    assert done.stdout.split()[0] == "8"
    assert "secrets: No such file" in done.stdout


def test_names_that_are_not_ascii(context: Context, docker: Client) -> None:
    context.file("d/ü file", "odd\n")
    context.build('FROM BASE\nCOPY ["d/ü file", "/x"]\n', "-t", "made/odd")
    assert docker("run", "--rm", "made/odd", "cat", "/x").stdout == "odd\n"


def test_stages_and_target(context: Context, docker: Client) -> None:
    text = (
        "FROM BASE AS one\nRUN echo 1 > /one\n"
        "FROM BASE AS two\nCOPY --from=one /one /two\n"
        "FROM BASE AS never\nRUN exit 1\n"
    )
    done = context.build(text, "--target", "two", "-t", "made/target")
    names = steps(done.stderr)
    assert names["[one 2/2] RUN echo 1 > /one"] == "DONE"
    assert names["[two 2/2] COPY --from=one /one /two"] == "DONE"
    assert docker("run", "--rm", "made/target", "cat", "/two").stdout == "1\n"


def test_the_client_goes_away(context: Context, docker: Client) -> None:
    context.file("Dockerfile", f"FROM {context.image}\nRUN echo begun; sleep 600\n")
    client = context.buildx.popen("build", "--progress=plain", str(context.directory))
    assert client.stderr is not None
    for line in client.stderr:
        if b" begun" in line and b"RUN" not in line:
            break
    client.kill()
    client.communicate()
    # A step's container is removed with its build, so an empty list is the end of it.
    wait_until(lambda: not docker("ps", "-aq").stdout.split(), "the step goes with the client")


def test_what_there_is_about_builders(context: Context, buildx: Client) -> None:
    context.build("FROM BASE\nRUN echo cached > /it\n")
    inspected = buildx("buildx", "inspect").stdout
    assert "Driver:" in inspected
    assert "running" in inspected
    assert "48h0m0s" in inspected  # of the garbage collection's first rule
    listed = buildx("buildx", "ls").stdout
    assert "default" in listed
    usage = buildx("buildx", "du").stdout
    assert "Total:" in usage
    newest = buildx("buildx", "history", "ls").stdout.splitlines()[1:]
    assert any("Completed" in line for line in newest)


def names_in(archive: Path) -> list[str]:
    with tarfile.open(archive) as file:
        return file.getnames()


def test_outputs(context: Context, tmp_path: Path) -> None:
    text = "FROM BASE AS base\nRUN echo made > /made\nFROM scratch\nCOPY --from=base /made /\n"
    out = tmp_path / "out"
    context.build(text, "--output", f"type=local,dest={out}")
    assert (out / "made").read_text() == "made\n"
    context.build(text, "--output", f"type=tar,dest={tmp_path}/out.tar")
    assert names_in(tmp_path / "out.tar") == ["made"]
    context.build(text, "--output", f"type=oci,dest={tmp_path}/oci.tar")
    assert "index.json" in names_in(tmp_path / "oci.tar")


def test_bake_several_at_once(context: Context, buildx: Client, docker: Client) -> None:
    context.file("Dockerfile", f"FROM {context.image}\nARG WHO\nRUN echo $WHO > /who\n")
    context.file("more/Dockerfile", "FROM one\nRUN echo more >> /who\n")
    targets = {
        "one": {"context": ".", "args": {"WHO": "first"}, "tags": ["made/bake:one"]},
        "two": {"context": ".", "args": {"WHO": "second"}, "tags": ["made/bake:two"]},
        "three": {
            "context": "more",
            "contexts": {"one": "target:one"},
            "tags": ["made/bake:three"],
        },
    }
    bake = {"group": {"default": {"targets": list(targets)}}, "target": targets}
    context.file("docker-bake.json", json.dumps(bake))
    done = subprocess.run(
        [buildx.command, "buildx", "bake", "--progress=plain"],
        cwd=context.directory,
        env=buildx.env,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    said = [
        docker("run", "--rm", f"made/bake:{name}", "cat", "/who").stdout.split() for name in targets
    ]
    assert said == [["first"], ["second"], ["first", "more"]]


def test_bake_of_a_repository(
    context: Context, buildx: Client, docker: Client, pierd: EngineProcess, tmp_path: Path
) -> None:
    """buildx has the repository read as LLB, and the files come to the build as another definition."""
    text = f"FROM {context.image}\nCOPY --from=more deep/f /f\nCOPY new /new\n"
    target = {"context": "sub", "dockerfile": "Baked", "tags": ["made/bake:git"]}
    with serve_repository(pierd.in_network, tmp_path) as url:
        work = tmp_path / "work"
        target["contexts"] = {"more": f"{url}#v1:sub"}  # type: ignore[assignment]
        (work / "sub" / "Baked").write_text(text)
        (work / "sub" / "new").write_text("new\n")
        (work / "docker-bake.json").write_text(json.dumps({"target": {"default": target}}))
        git(work, "add", ".")
        git(work, "commit", "-qm", "three")
        git(work, "push", "-q", str(tmp_path / "served" / "repo.git"), "main")
        git(tmp_path / "served" / "repo.git", "update-server-info")
        done = buildx("buildx", "bake", "--progress=plain", url, check=False)
        assert done.returncode == 0, done.stderr
        assert docker("run", "--rm", "made/bake:git", "cat", "/f", "/new").stdout == "one\nnew\n"
        again = buildx("buildx", "bake", "--progress=plain", url)
        ended = steps(again.stderr)
        assert ended["set context to sub"] == "CACHED"
        assert [how for step, how in ended.items() if "COPY" in step] == ["CACHED", "CACHED"]


COMPOSE = """
services:
  web:
    build: {{context: ., args: {{WHO: web}}}}
    image: made/web
    network_mode: none
    command: ["sh", "-c", "echo up; cat /who"]
  other:
    build: {{context: ., args: {{WHO: other}}}}
    image: made/other
    network_mode: none
    command: ["cat", "/who"]
"""


def test_compose_builds_and_goes_up(context: Context, buildx: Client, plugins: Path) -> None:
    if not (plugins / "cli-plugins/docker-compose").exists():
        pytest.skip("no docker-compose beside docker-buildx")
    context.file("Dockerfile", f"FROM {context.image}\nARG WHO\nRUN echo I am $WHO > /who\n")
    file = context.file("compose.yaml", COMPOSE.format())
    compose = ("compose", "-f", str(file), "-p", "made")
    built = buildx(*compose, "--progress=plain", "build")
    assert built.stderr.count("Built") + built.stdout.count("Built") >= 2
    up = buildx(*compose, "up", "--build")
    lines = [line.replace(" ", "") for line in up.stdout.splitlines()]
    assert {"web-1|up", "web-1|Iamweb", "other-1|Iamother"} <= set(lines)
    buildx(*compose, "down", "--rmi", "all")


def test_host_gateway(context: Context, pierd: EngineProcess) -> None:
    """buildx asks the engine for the address, and sends that."""
    done = context.build("FROM BASE\nRUN cat /etc/hosts\n", "--add-host", "here:host-gateway")
    gateway = pierd.docker(
        "network", "inspect", "-f", "{{(index .IPAM.Config 0).Gateway}}", "bridge"
    )
    assert f"{gateway.stdout.strip()}\there" in done.stderr


def test_a_context_that_is_an_image_layout(
    context: Context, pierd: EngineProcess, tmp_path: Path
) -> None:
    layout = tmp_path / "layout"
    made = "FROM BASE\nENV A=b\nRUN head -c 100000 /dev/urandom >/r; md5sum /r >/sum\n"
    context.build(made, "--network=none", "-o", f"type=oci,tar=false,dest={layout}")
    text = "FROM base\nRUN md5sum -c /sum && echo A=$A\nCOPY --from=base /sum /again\n"
    # BuildKit's clients lend the layout, `pier build` sends it.
    pier = Client(pierd.pier.command, context.buildx.env)
    for client in (context.buildx, pier):
        pierd.docker("builder", "prune", "-af")  # of the layers only the base's are here
        context.file("Dockerfile", text)
        done = client(
            *("build", "--progress=plain", "--network=none", "--build-context"),
            *(f"base=oci-layout://{layout}", str(context.directory)),
        )
        assert "/r: OK" in done.stderr
        assert "A=b" in done.stderr
    missing = context.build(
        *(text, "--build-context", f"base=oci-layout://{layout}@sha256:{'0' * 64}"), check=False
    )
    assert "not found" in missing.stderr


def test_every_step_runs_on_a_host_of_the_same_name(context: Context) -> None:
    text = (
        "FROM BASE\nRUN grep -qw $(hostname) /etc/hosts && "
        "echo name=$(hostname) $(env | grep -c ^HOSTNAME=)\n"
    )
    assert "name=buildkitsandbox 0" in context.build(text, "--no-cache").stderr
    for network in ("none", "host"):
        flags = (f"--network={network}", "--build-arg=BUILDKIT_SANDBOX_HOSTNAME=box")
        assert "name=box 0" in context.build(text, *flags, "--no-cache").stderr


def test_a_context_from_standard_input(context: Context, tmp_path: Path) -> None:
    context.file("f", "f" * 100_000)
    context.file("Dockerfile", f"FROM {context.image}\nCOPY f .\nRUN wc -c f\n")
    archive = shutil.make_archive(str(tmp_path / "context"), "gztar", context.directory)
    words = ("build", "--progress=plain", "--network=none", "-")
    assert b"100000 f" in context.buildx.raw(*words, stdin=Path(archive).read_bytes()).stderr


def test_lint(context: Context) -> None:
    text = "FROM BASE\nCMD echo hi\n"
    done = context.build(text)
    assert "1 warning found" in done.stderr
    assert "JSONArgsRecommended" in done.stderr
    checked = context.build(text, "--check", check=False)
    assert checked.returncode == 1
    assert "Check complete, 1 warning has been found!" in checked.stdout
    outline = context.build("ARG A=1\nFROM BASE AS one\nARG B\n", "--call=outline").stdout
    assert "A" in outline
    targets = context.build("FROM BASE AS one\nFROM one AS two\n", "--call=targets").stdout
    assert "two (default)" in targets


def test_history(context: Context, buildx: Client, tmp_path: Path) -> None:
    metadata = tmp_path / "metadata"
    context.build("FROM BASE\nRUN echo remember this\n", "--metadata-file", str(metadata))
    ref = json.loads(metadata.read_text())["buildx.build.ref"].rpartition("/")[2]
    shown = buildx("buildx", "history", "inspect", ref).stdout
    assert "Build Steps:" in shown
    assert "remember this" in buildx("buildx", "history", "logs", ref).stderr
    buildx("buildx", "history", "rm", ref)
    assert ref not in buildx("buildx", "history", "ls").stdout
