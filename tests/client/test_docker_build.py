"""The classic builder: `docker build` without BuildKit, on a busybox base."""

import hashlib
import io
import os
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import pytest
from classic_build import Build

from engine_process import EngineProcess


def test_first_steps(build: Build) -> None:
    build.file("a.txt", "hello\n")
    done = build(
        'FROM BASE\nRUN echo made > /made && echo told\nCOPY a.txt /copied\nCMD ["cat", "/copied"]\n'
    )
    lines = done.stdout.splitlines()
    assert "told" in lines
    assert "Step 2/4 : RUN echo made > /made && echo told" in lines
    assert lines[-1] == "Successfully tagged made/it:latest"
    assert build.run() == "hello\n"
    assert build.run("cat", "/made") == "made\n"
    again = build(
        'FROM BASE\nRUN echo made > /made && echo told\nCOPY a.txt /copied\nCMD ["cat", "/copied"]\n'
    ).stdout.splitlines()
    assert again.count(" ---> Using cache") == 3
    assert "told" not in again


def test_config_and_history(build: Build) -> None:
    build(
        'FROM BASE\nENV A=1 B="two words"\nLABEL l=$A\nARG Q=5\nRUN true $Q\nWORKDIR /place\n'
        "WORKDIR deep\nEXPOSE 80 70/udp\nUSER 7\nVOLUME /data\nSTOPSIGNAL SIGINT\n"
        'ENTRYPOINT ["/bin/echo", "x"]\nCMD run\nONBUILD RUN echo trig\n'
        "HEALTHCHECK --interval=5s CMD true\nMAINTAINER me\n"
    )
    found = build.config()
    config = found["Config"]
    assert {"A=1", "B=two words"} < set(config["Env"])
    assert config["Labels"] == {"l": "1"}
    assert config["WorkingDir"] == "/place/deep"
    assert set(config["ExposedPorts"]) == {"80/tcp", "70/udp"}
    assert (config["User"], config["StopSignal"], found["Author"]) == ("7", "SIGINT", "me")
    assert config["Cmd"] == ["/bin/sh", "-c", "run"]
    assert config["OnBuild"] == ["RUN echo trig"]
    assert config["Healthcheck"] == {"Test": ["CMD-SHELL", "true"], "Interval": 5_000_000_000}
    told = build.docker("history", "--no-trunc", "--format", "{{.CreatedBy}}", "made/it").stdout
    nop = "/bin/sh -c #(nop) "
    assert told.splitlines()[:12] == [
        f"{nop} MAINTAINER me",
        f"{nop} HEALTHCHECK &{{[CMD-SHELL true] 5s 0s 0s 0s 0}}",
        f"{nop} ONBUILD RUN echo trig",
        f'{nop} CMD ["/bin/sh" "-c" "run"]',
        f'{nop} ENTRYPOINT ["/bin/echo" "x"]',
        f"{nop} STOPSIGNAL SIGINT",
        f"{nop} VOLUME [/data]",
        f"{nop} USER 7",
        f"{nop} EXPOSE 70/udp 80",
        f"{nop}WORKDIR /place/deep",
        f"{nop}WORKDIR /place",
        "|1 Q=5 /bin/sh -c true $Q",
    ]


def test_stages(build: Build) -> None:
    done = build(
        "ARG WHAT=BASE\nFROM $WHAT AS One\nRUN echo one > /f\n"
        "FROM BASE AS unused\nRUN false\n"
        "FROM one AS two\nRUN echo two >> /f\n"
        "FROM BASE\nCOPY --from=ONE /f /f1\nCOPY --from=2 /f /dir/\n"
    )
    assert "RUN false" not in done.stdout
    assert build.run("cat", "/f1", "/dir/f") == "one\none\ntwo\n"
    build("FROM BASE AS a\nENV X=a\nFROM BASE\nENV X=b\n", "--target", "a")
    assert "X=a" in build.config()["Config"]["Env"]
    failed = build("FROM BASE\n", "--target", "nope", check=False)
    assert 'target stage "nope" could not be found' in failed.stderr


def test_onbuild(build: Build) -> None:
    build("FROM BASE\nONBUILD RUN echo triggered > /t\n")
    build.docker("tag", "made/it", "made/base")
    done = build("FROM made/base\nRUN cat /t\n")
    assert "# Executing 1 build trigger" in done.stdout
    assert "triggered" in done.stdout.splitlines()
    assert not build.config()["Config"].get("OnBuild")


def test_copies(build: Build) -> None:
    build.file("d/a", "a\n", 0o755)
    build.file("d/sub/b", "b\n")
    os.symlink("a", build.directory / "d" / "link")
    build.file("x.txt", "x\n")
    build.file("y.txt", "y\n")
    build.file("no.txt", "no\n")
    build.file(".dockerignore", "no.*\n")
    build(
        "FROM BASE\nWORKDIR /w\nCOPY *.txt ./\nCOPY d /d\nCOPY --chown=alice:staff x.txt /own\n"
        "COPY --chmod=600 x.txt /mode\nCOPY --exclude=sub d /e\nCOPY --parents d/sub/b /p/\n"
        "COPY <<one <<'two' /here/\n$HOME $MISSING.\none\n$HOME\ntwo\nRUN <<END\necho run > /ran\nEND\n"
    )
    listed = build.run(
        "sh", "-c", "ls /w; readlink /d/link; stat -c '%A %u %g' /d/a /own /mode; ls /e"
    )
    assert listed.splitlines() == [
        *("x.txt", "y.txt", "a", "-rwxr-xr-x 0 0", "-rw-r--r-- 1000 50", "-rw------- 0 0"),
        *("a", "link"),
    ]
    assert build.run("cat", "/p/d/sub/b", "/here/one", "/here/two", "/ran") == (
        "b\n .\n$HOME\nrun\n"
    )


def test_cache_goes_by_content(build: Build) -> None:
    path = build.file("f", "same\n")
    text = "FROM BASE\nARG A\nCOPY f /f\nRUN echo $A > /a\n"
    build(text)
    os.utime(path, (1, 1))
    assert build(text).stdout.count("Using cache") == 3
    assert build(text, "--no-cache").stdout.count("Using cache") == 0
    assert build(text, "--build-arg", "A=1").stdout.count("Using cache") == 2
    path.write_text("other\n")
    assert build(text).stdout.count("Using cache") == 1
    assert build.run("cat", "/f") == "other\n"


def test_add_unpacks(build: Build) -> None:
    with tarfile.open(build.directory / "t.tar.gz", "w:gz") as tar:
        info = tarfile.TarInfo("in/side")
        info.size = 3
        info.uid = 5
        tar.addfile(info, io.BytesIO(b"yes"))
    build("FROM BASE\nADD t.tar.gz /t/\nCOPY t.tar.gz /t.tar.gz\n")
    assert build.run("sh", "-c", "cat /t/in/side; stat -c ' %u' /t/in/side; ls /t.tar.gz") == (
        "yes 5\n/t.tar.gz\n"
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("FROM BASE\nFOO x\n", "dockerfile parse error on line 2: unknown instruction: FOO"),
        ("FROM BASE\nRUN exit 3\n", "The command '/bin/sh -c exit 3' returned a non-zero code: 3"),
        (
            "FROM BASE\nCOPY nope /x\n",
            (
                "COPY failed: file not found in build context or excluded by .dockerignore: "
                "stat nope: file does not exist"
            ),
        ),
        ("FROM BASE\nADD no* /x\n", "ADD failed: no source files were specified"),
        (
            "FROM BASE\nCOPY ../x /y\n",
            "COPY failed: forbidden path outside the build context: ../x ()",
        ),
        ("FROM scratch\n", "No image was generated. Is your Dockerfile empty?"),
        ("", "the Dockerfile (Dockerfile) cannot be empty"),
        ("\n\t\n", "file with no instructions"),
    ],
)
def test_errors(build: Build, text: str, message: str) -> None:
    failed = build(text, check=False)
    assert failed.returncode != 0
    assert message in failed.stderr


def test_a_dockerfile_from_standard_input(build: Build) -> None:
    """The command's archive then lacks its end."""
    build.file("f", "content\n")
    text = f"FROM {build.image}\nCOPY f .\nRUN cat f\n"
    done = build.docker("build", "--network=none", "-f", "-", str(build.directory), stdin=text)
    assert "\ncontent\n" in done.stdout


def test_scratch_and_links_that_lead_out(build: Build) -> None:
    build.file("f", "mine\n")
    build(
        "FROM BASE AS src\nRUN ln -s /etc /d/../esc; ln -s ../../../../../../tmp /up\n", check=False
    )
    build("FROM BASE\nRUN ln -s ../../../../../../../tmp /up\nCOPY f /up/pier-escaped\n")
    assert not os.path.exists("/tmp/pier-escaped")
    assert build.run("cat", "/tmp/pier-escaped") == "mine\n"
    build("FROM scratch\nCOPY f /only\n")
    names = subprocess.run(
        ["tar", "t"],
        input=build.docker.raw("export", _created(build)).stdout,
        check=True,
        capture_output=True,
    ).stdout.decode()
    assert "only\n" in names


def test_mounts_of_a_step(build: Build) -> None:
    build.file("d/f", "context\n")
    text = (
        "FROM BASE AS other\nRUN echo other > /o\nFROM BASE\nARG N\n"
        "RUN --mount=type=cache,target=/var/cache/c,id=pier-test echo $N >> /var/cache/c/log && "
        "cp /var/cache/c/log /log\n"
        "RUN --mount=target=/mnt/d,source=d --mount=type=tmpfs,target=/t "
        "--mount=from=other,target=/mnt/o cat /mnt/d/f /mnt/o/o > /both; echo x > /t/x; "
        "! touch /mnt/d/new\n"
    )
    build(text, "--build-arg", "N=1")
    build(text, "--build-arg", "N=2")
    assert build.run("cat", "/log", "/both") == "1\n2\ncontext\nother\n"
    assert build.run("sh", "-c", "ls -d /var/cache /mnt /t; true") == ""
    build.file("d/f", "changed\n")
    assert build(text, "--build-arg", "N=2").stdout.count("Using cache") == 3
    assert build.run("cat", "/both") == "changed\nother\n"
    build.docker("builder", "prune", "-af")
    build(text, "--build-arg", "N=3", "--no-cache")
    assert build.run("cat", "/log") == "3\n"
    os.symlink("/etc/shadow", build.directory / "link")
    failed = build("FROM BASE\nRUN --mount=target=/s,source=link cat /s\n", check=False)
    assert "no such file or directory" in failed.stderr
    failed = build("FROM BASE\nRUN --mount=type=secret,id=s true\n", check=False)
    assert "secret s: no active sessions" in failed.stderr
    failed = build("FROM BASE\nRUN --mount=type=ssh true\n", check=False)
    assert "ssh agent default: no active sessions" in failed.stderr


def test_cache_from(build: Build) -> None:
    build.file("f", "same\n")
    text = "FROM BASE\nCOPY f /f\nRUN cat /proc/sys/kernel/random/uuid > /u\nENV A=b\n"
    build(text)
    first = build.run("cat", "/u")
    saved = build.docker.raw("save", "made/it").stdout
    build.docker("rmi", "made/it")
    build.docker("builder", "prune", "-af")
    build.docker.raw("load", stdin=saved)
    build.docker("tag", "made/it", "made/from")
    assert build(text, "--cache-from", "made/from").stdout.count("Using cache") == 3
    assert build.run("cat", "/u") == first
    # Docker's classic builder has no cache beside the images that are named.
    assert build(text, "--cache-from", "made/nowhere").stdout.count("Using cache") == 0
    more = text + "RUN cat /proc/sys/kernel/random/uuid > /v\n"
    build(more)
    assert build(more).stdout.count("Using cache") == 4
    assert build(more, "--cache-from", "made/from").stdout.count("Using cache") == 3
    build.docker("rmi", "made/it")


def test_epoch(build: Build) -> None:
    build.file("f")
    text = "FROM BASE\nCOPY f /d/f\nRUN echo x > /x; mkdir /y\n"
    flags = ("--build-arg", "SOURCE_DATE_EPOCH=1000000000", "--no-cache")
    build(text, *flags)
    first = build.config()
    build(text, *flags)
    assert build.config()["Id"] == first["Id"]
    assert first["Created"] == "2001-09-09T01:46:40Z"
    assert build.run("stat", "-c", "%Y", "/x", "/y", "/d/f").split() == ["1000000000"] * 3


@pytest.mark.parametrize("flag", ["--rm=true", "--rm=false"])
def test_deletions(build: Build, flag: str) -> None:
    build(
        "FROM BASE\nRUN mkdir -p /a/b && touch /a/b/c /a/d /e\n"
        "RUN rm -r /a /e /etc/passwd && mkdir /a && touch /a/new\nRUN rm -r /home\n",
        flag,
    )
    assert build.docker("ps", "-aq").stdout.count("\n") == (0 if flag == "--rm=true" else 3)
    assert build.run("sh", "-c", "ls /a; ls -d /e /home /etc/passwd 2>/dev/null; true") == "new\n"


def test_forced_removal(build: Build) -> None:
    build("FROM BASE\nRUN exit 1\n", check=False)
    assert build.docker("ps", "-aq").stdout.count("\n") == 1
    build("FROM BASE\nRUN exit 1\n", "--force-rm", check=False)
    assert build.docker("ps", "-aq").stdout.count("\n") == 1


def test_add_of_a_url(build: Build, pierd: EngineProcess) -> None:
    served = build.directory / "served"
    served.mkdir()
    (served / "x.bin").write_bytes(b"served")
    server = subprocess.Popen(
        [*pierd.in_network, sys.executable, "-u", "-m", "http.server", "-b", "127.0.0.1", "18080"],
        cwd=served,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    try:
        assert server.stdout is not None
        assert b"Serving" in server.stdout.readline()
        url = "http://127.0.0.1:18080/x.bin"
        right = "sha256:" + hashlib.sha256(b"served").hexdigest()
        text = f"FROM BASE\nADD --checksum={right} {url} /u/\nADD {url} /named\n"
        build(text)
        assert build.run("sh", "-c", "cat /u/x.bin /named; stat -c ' %a' /named") == (
            "servedserved 600\n"
        )
        assert build(text).stdout.count("Using cache") == 2
        wrong = "sha256:" + 64 * "0"
        failed = build(f"FROM BASE\nADD --checksum={wrong} {url} /u\n", check=False)
        assert "digest mismatch" in failed.stderr
        failed = build(f"FROM BASE\nADD {url}.no /u\n", check=False)
        assert "with status 404" in failed.stderr
    finally:
        server.kill()
        server.communicate()


def test_client_gone(build: Build) -> None:
    build.file("Dockerfile", f"FROM {build.image}\nRUN echo begun; sleep 60\n")
    process = build.docker.popen("build", "--network", "none", str(build.directory))
    assert process.stdout is not None
    while process.stdout.readline() != b"begun\n":
        assert process.poll() is None
    assert build.docker("ps", "-q").stdout
    process.kill()
    process.communicate()
    deadline = time.monotonic() + 20
    while build.docker("ps", "-aq").stdout:
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_side_by_side(build: Build) -> None:
    """Each of two stages waits for the other, through a cache mount that both have."""
    mount = "--mount=type=cache,target=/c,id=pier-meet"
    wait = "i=0; while ! [ -e /c/{} ]; do sleep 0.05; i=$((i+1)); [ $i -lt 200 ] || exit 9; done"
    done = build(
        f"FROM BASE AS one\nRUN {mount} touch /c/one; {wait.format('two')}; echo first\n"
        f"FROM BASE AS two\nRUN {mount} touch /c/two; {wait.format('one')}; echo second\n"
        "FROM BASE\nCOPY --from=one /etc/passwd /1\nCOPY --from=two /etc/passwd /2\n"
    )
    lines = done.stdout.splitlines()
    assert lines.index("first") < lines.index("Step 3/7 : FROM " + build.image + " AS two")


def test_the_same_step_at_the_same_time(build: Build) -> None:
    build.file("Dockerfile", f"FROM {build.image}\nRUN sleep 0.3; echo made\n")
    words = ("build", "-q", "--network", "none", str(build.directory))
    both = [build.docker.popen(*words) for _ in range(2)]
    assert len({process.communicate(timeout=30)[0] for process in both}) == 1


def _created(build: Build) -> str:
    return build.docker("create", "made/it", "x").stdout.strip()


def test_a_directory_that_is_there_keeps_owner_and_mode(build: Build) -> None:
    build.file("tree/sub/file")
    (build.directory / "tree").chmod(0o700)
    build(
        "FROM BASE\n"
        "RUN mkdir /there && chmod 750 /there && chown 33:34 /there\n"
        "COPY tree /there/\n"
        "COPY --chown=5:6 tree /there\n"
        "COPY --chown=5:6 tree /new\n"
    )
    shown = build.run("stat", "-c", "%n %a %u:%g", "/there", "/there/sub", "/new", "/new/sub")
    assert shown.splitlines() == [
        "/there 750 33:34",
        "/there/sub 755 5:6",
        "/new 755 5:6",
        "/new/sub 755 5:6",
    ]


def test_targets_that_are_links(build: Build) -> None:
    build.file("file", "new\n")
    build.file("tree/inner")
    build(
        "FROM BASE\n"
        "RUN ln -s /../../nowhere/a /absolute && ln -s other/place /relative && ln -s file2 /file1\n"
        "COPY file /absolute/\n"
        "COPY tree /relative\n"
        "COPY file /file1\n"
    )
    wanted = ("/nowhere/a/file", "/other/place/inner", "/file2")
    assert build.run("ls", *wanted).split() == sorted(wanted)
    assert build.run("readlink", "/file1") == "file2\n"


def test_targets_that_cannot_be(build: Build) -> None:
    build.file("file")
    build.file("tree/inner")
    base = "FROM BASE\nRUN ln -s loop /loop && touch /is-a-file\n"
    for step, words in {
        "COPY file /loop/": "too many links",
        "COPY file /is-a-file/": "mkdir /is-a-file: not a directory",
        "COPY tree /is-a-file": "cannot copy to non-directory: /is-a-file",
    }.items():
        failed = build(base + step, "-q", check=False)
        assert failed.returncode == 1
        # What a quiet build holds back is told when it fails.
        assert f"Step 3/3 : {step}" in failed.stdout + failed.stderr
        assert words in failed.stderr


def test_cache_from_what_this_engine_built_is_that_image(build: Build, tmp_path: Path) -> None:
    build.file("baz")
    text = "FROM BASE\nENV FOO=bar\nADD baz /\nRUN touch bax\n"
    build(text)
    first = build.config()["Id"]
    assert build(text, "--cache-from", "made/it").stdout.count("Using cache") == 3
    assert build.config()["Id"] == first
    # Also where nothing is known of its parents any more.
    tar = str(tmp_path / "it.tar")
    build.docker("save", "-o", tar, "made/it")
    build.docker("rmi", "-f", "made/it")
    build.docker("load", "-i", tar)
    assert build(text, "--cache-from", "made/it").stdout.count("Using cache") == 3
    assert build.config()["Id"] == first


def test_arguments_that_nobody_asked_for(build: Build) -> None:
    flags = ("--build-arg", "B=1", "--build-arg", "A", "--build-arg", "C", "--build-arg", "D=")
    said = build("FROM BASE\nARG C\n", *flags).stdout
    assert "[Warning] One or more build-args [A B D] were not consumed" in said
