"""What BuildKit (dockerd's, through buildx) makes of Dockerfiles, and what `pier build` makes of them.

The same files, the same config, the same checks. dockerd and buildx come out of a root that
PIER_PEERS_ROOT names.
"""

import os
import re
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from test_build_like_docker import config, files

from busybox_image import NAME, docker_archive, root_tar
from docker_plugins import configure, find_plugins
from engine_process import Client

sys.path.insert(0, os.path.join(os.path.dirname(__file__), "..", "..", "bench"))

CORPUS = {
    "heredocs": (
        'FROM BASE\nARG A=1\nCOPY <<one <<"two" /d/\na=$A\none\nb=$A\ntwo\n'
        "RUN <<EOF\necho $A > /r\necho more >> /r\nEOF\nRUN cat <<X > /c && echo done >> /c\nin it\nX\n"
        "RUN <<EOF\n#!/bin/sh -e\necho script $0 > /s\nEOF\nCOPY --chmod=0751 <<-f /f\n\ttabs\nf\n"
    ),
    "expansion": (
        "FROM BASE\nARG F=/a/foo.tar.gz\nENV A=${F%.*} B=${F%%.*} C=${F#*/} D=${F##*/} E=${F/foo/bar} "
        "G=${F//a/b} H=${N:-x$F} I=${F:+y} J=${N:+z} K=\\$F L='$F' M=\"${F}\"\nLABEL x.$F=${N-none}\n"
        "WORKDIR ${F%.*}\nEXPOSE ${P:-80}/udp\nUSER ${U:-5}\n"
    ),
    "modes": (
        "FROM BASE\nCOPY --chmod=640 d /d\nCOPY --chmod=755 f /x/y/f\nADD --chmod=u+x,go-r f /s\n"
        "COPY --chmod=a=rX,u+w modes /modes\n"
    ),
    "owners": (
        "FROM BASE\nCOPY --chown=alice:staff d /d\nCOPY --chown=5 f /deep/er/f\nADD --chown=6:7 t.tar /t\n"
        "COPY --link --chown=8:9 d /linked/\n"
    ),
    "excludes": ("FROM BASE\nCOPY d/* /star/\nCOPY d/?n/ /q/\nCOPY . /all/\n"),
    "links": (
        "FROM BASE AS one\nRUN mkdir /o && echo x > /o/f && ln -s f /o/l && ln /o/f /o/h\n"
        "FROM BASE\nCOPY --link f /deep/f\nCOPY --link --from=one /o /o\n"
        "COPY --from=one /o/l /followed\nCOPY f /sym2/\n"
    ),
    "mounts": (
        "FROM BASE AS one\nRUN echo one > /one\nFROM BASE\n"
        "RUN --mount=target=/ctx cp /ctx/f /a && ! touch /ctx/new\n"
        "RUN --mount=target=/ctx,rw echo x > /ctx/f && cat /ctx/f > /b\n"
        "RUN --mount=from=one,source=one,target=/m/one cat /m/one > /c\n"
        "RUN --mount=type=tmpfs,target=/t echo x > /t/x\n"
        "RUN --mount=type=cache,target=/cache,uid=5,mode=0700 stat -c %u:%a /cache > /e\n"
    ),
    "stages": (
        "ARG V=one\nFROM BASE AS one\nARG V\nARG W=w\nENV X=$V$W\nRUN echo $X > /x\n"
        "FROM ${V} AS two\nRUN echo $X$W > /y\nFROM unknown.example/never AS unused\nRUN false\n"
        'FROM two\nCOPY --from=0 /x /z\nONBUILD RUN true\nSHELL ["/bin/sh", "-ec"]\nCMD echo hi\n'
    ),
    "scratch": 'FROM scratch\nCOPY root /\nCOPY f d /f/\nWORKDIR /w\nENTRYPOINT ["x"]\n',
    "archives": (
        "FROM BASE\nADD t.tar.gz /gz/\nADD --unpack=false t.tar /kept/\nADD --unpack=true t.tar /un/\n"
    ),
    "arguments": (
        "FROM BASE\nARG TARGETPLATFORM\nARG TARGETARCH\nARG BUILDOS\nARG UNSET\nARG GIVEN=default\n"
        "RUN echo $TARGETPLATFORM $TARGETARCH $BUILDOS $UNSET $GIVEN $HTTP_PROXY > /a\n"
    ),
    "health": (
        "FROM BASE\nHEALTHCHECK --interval=5s --timeout=1m --start-period=2s --start-interval=1s --retries=3 "
        'CMD test -e /x\nSTOPSIGNAL 9\nVOLUME /v /w\nEXPOSE 1-3 80/tcp\nLABEL a=1 b="two words"\n'
    ),
}

# Each is a Dockerfile with something that the checks find, or that is wrong.
CHECKED = [
    "FROM BASE AS Base\nCMD a b\n",
    "from BASE as b\nRUN true\nRun true\nWORKDIR x\n",
    "FROM BASE AS one\nFROM BASE AS one\nCMD a\nCMD b\nMAINTAINER me\nENV a b\n",
    "FROM BASE\nARG TOKEN\nENV API_KEY=x PUBLIC_KEY=y\nCOPY $nope /x\nRUN a \\\n\n  b\n",
    "ARG V\nFROM BASE${V}\nEXPOSE 80/TCP\nWORKDIR /a\nWORKDIR b\n",
    "FROM --platform=$TARGETPLATFORM BASE\nLABEL a b\n",
    "FROM --platform=linux/amd64 BASE AS scratch\n",
    "FROM BASE\nHEALTHCHECK NONE\nHEALTHCHECK CMD x\nENTRYPOINT x\nENTRYPOINT y\n",
    "# check=skip=JSONArgsRecommended\nFROM BASE\nCMD a\nENTRYPOINT b $c\n",
    "FROM BASE AS context\nENV foo=1\nRUN echo $foo\nLABEL x=$fooo\n",
    'FROM BASE\nCMD ["a"]\n',
]

WRONG = [
    "FROM BASE\nRAN true\n",
    "FROM BASE\nCOPY f\n",
    "FROM BASE\nCOPY --what f /\n",
    "FROM BASE\nENV a\n",
    "FROM BASE\nARG\n",
    "RUN true\n",
    "FROM BASE AS 1x\n",
    "FROM BASE one two\n",
    "FROM BASE\nRUN exit 7\nRUN true\n",
    "FROM BASE\nRUN <<EOF\nno end\n",
    "FROM BASE\nHEALTHCHECK x\n",
    "FROM BASE\nONBUILD FROM x\n",
    "FROM BASE\nRUN --mount=type=what true\n",
    "FROM BASE AS a\nCOPY --from=a / /\n",
    "FROM BASE\nRUN --mount=type=secret,id=x,required true\n",
    "FROM BASE\nENV A=${x\n",
    "FROM BASE\nLABEL =x\n",
    "FROM BASE\nSHELL sh\n",
]


@pytest.fixture(scope="module")
def buildkit(engine: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    root = os.environ.get("PIER_PEERS_ROOT")
    if not root or not os.path.exists(f"{root}/usr/sbin/dockerd"):
        pytest.skip("PIER_PEERS_ROOT names no root with dockerd in it")
    plugins = find_plugins()
    if plugins is None:
        pytest.skip("there is no buildx plugin")
    from dockerd import Dockerd

    directory = tmp_path_factory.mktemp("docker")
    configure(directory, plugins)
    with Dockerd(root, "--bridge=none", "--iptables=false", "--ip6tables=false") as peer:
        environment = {
            **engine.env,
            "DOCKER_HOST": peer.host,
            "DOCKER_CONFIG": str(directory),
            "DOCKER_BUILDKIT": "1",
            "BUILDX_GIT_INFO": "false",
        }
        client = Client("docker", environment)
        client.raw("load", stdin=docker_archive(NAME, [root_tar()]))
        yield client


@pytest.fixture
def context(tmp_path: Path) -> str:
    place = tmp_path / "context"
    (place / "d" / "in").mkdir(parents=True)
    (place / "modes").mkdir(mode=0o750)
    for name in ("root/proc", "root/etc", "root/empty"):
        (place / name).mkdir(parents=True)
    for name in (
        "f",
        "no.txt",
        "d/a",
        "d/x.txt",
        "d/in/b",
        "modes/x",
        "modes/y",
        "root/etc/hosts.x",
    ):
        (place / name).write_text(name)
    (place / "modes" / "x").chmod(0o755)
    (place / "modes" / "y").chmod(0o600)
    (place / ".dockerignore").write_text("no.txt\nDockerfile\n.dockerignore\n")
    os.symlink("f", place / "link")
    for name, mode in (("t.tar", "w"), ("t.tar.gz", "w:gz")):
        with tarfile.open(place / name, mode) as tar:
            tar.add(place / "d", "in")
    return str(place)


def write(context: str, text: str, image: str) -> None:
    (Path(context) / "Dockerfile").write_text(text.replace("BASE", image))


@pytest.mark.parametrize("name", CORPUS)
def test_same(
    engine: Any, docker: Client, buildkit: Client, image: str, context: str, name: str
) -> None:
    write(context, CORPUS[name], image)
    words = ("build", "--network", "none", "-t", "made/same", context)
    buildkit("buildx", *words, "--provenance=false")
    engine.pier(*words)
    try:
        ours, theirs = config(docker), config(buildkit)
        # BuildKit says who made it, and has no author.
        for found in (ours, theirs):
            # ArgsEscaped means something on Windows alone; the classic builder leaves it out.
            for key in ("Comment", "Author", "ArgsEscaped"):
                found.pop(key, None)
        assert ours == theirs
        assert files(docker) == files(buildkit)
    finally:
        docker("rmi", "-f", "made/same")
        docker("builder", "prune", "-af")


@pytest.mark.parametrize("text", CHECKED)
def test_same_checks(engine: Any, buildkit: Client, image: str, context: str, text: str) -> None:
    write(context, text, image)
    theirs = buildkit("buildx", "build", "--check", context, check=False)
    ours = engine.pier("build", "--check", context, check=False)
    assert blocks(ours.stdout) == blocks(theirs.stdout)
    assert ours.returncode == theirs.returncode


def blocks(text: str) -> list[str]:
    """The findings, in an order that does not depend on BuildKit's."""
    # buildx has the whole path of the Dockerfile.
    text = re.sub(r"^/.*/(?=Dockerfile:\d)", "", text, flags=re.MULTILINE)
    head, *found = text.split("\nWARNING: ")
    return [head, *sorted(f"{block.rstrip()}\n" for block in found)]


@pytest.mark.parametrize("text", WRONG)
def test_same_errors(engine: Any, buildkit: Client, image: str, context: str, text: str) -> None:
    write(context, text, image)
    theirs = buildkit("buildx", "build", "--network", "none", context, check=False)
    ours = engine.pier("build", "--network", "none", context, check=False)
    assert ours.returncode != 0
    assert theirs.returncode != 0
    assert told(ours.stderr) == told(theirs.stderr)


def told(text: str) -> tuple[str, str]:
    """The excerpt, and the message without what the clients put in front of it."""
    lines = text.splitlines()
    rulers = [n for n, line in enumerate(lines) if line == "-" * 20]
    excerpt = "\n".join(lines[rulers[0] - 1 : rulers[-1] + 1]) if rulers else ""
    last = next(line for line in reversed(lines) if "failed to solve: " in line)
    return excerpt, last.partition("failed to solve: ")[2]
