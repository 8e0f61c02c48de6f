"""Which files a client sends, told from the Dockerfile."""

import pytest

from pier.build.arguments import Arguments
from pier.build.context_paths import context_paths, reads_context
from pier.build.dockerfile.parse import parse_dockerfile
from pier.build.named import NamedContexts
from pier.build.plan import make_plan
from pier.model.platform import host_platform


@pytest.mark.parametrize(
    ("text", "paths"),
    [
        ("FROM a\nCOPY b c/ d/\n", ["b", "c"]),
        ("FROM a\nCOPY /b /x\nADD *.go d/e? /y\n", ["*.go", "b", "d/e?"]),
        ("FROM a\nCOPY . /x\nCOPY b /y\n", []),
        ("FROM a\nARG B\nCOPY $B /x\nCOPY c /y\n", []),
        ("FROM a AS one\nCOPY b /\nFROM a\nCOPY --from=one /b /c\n", ["b"]),
        ("FROM a AS never\nCOPY b /\nFROM a\nCOPY c /c\n", ["c"]),
        ("FROM a\nADD https://example.com/x /x\nADD git@host:me/it.git /y\nADD b /b\n", ["b"]),
        ("FROM a\nCOPY <<EOF b /x/\nEOF\n", ["b"]),
        ("FROM a\nRUN --mount=type=cache,target=/c true\n", []),
        (
            "FROM a\nRUN --mount=target=/c,source=b --mount=type=bind,src=d,dst=/d true\n",
            ["b", "d"],
        ),
        ("FROM a\nRUN --mount=target=/c true\n", []),
    ],
)
def test_paths(text: str, paths: list[str]) -> None:
    file = parse_dockerfile(text)
    arguments = Arguments.make({}, host_platform(), host_platform())
    plan = make_plan(file, arguments, "", NamedContexts({}))
    assert list(context_paths(plan)) == paths


@pytest.mark.parametrize(
    ("line", "reads"),
    [
        ("COPY . /x", True),
        ("COPY --from=b . /x", False),
        ("ADD https://example.com/x /x", False),
        ("RUN true", False),
        ("RUN --mount=type=cache,target=/c true", False),
        ("RUN --mount=type=secret,id=s true", False),
        ("RUN --mount=target=/c true", True),
        ("RUN --mount=from=b,target=/c true", False),
        ("ENV a=b", False),
    ],
)
def test_who_reads_the_context(line: str, reads: bool) -> None:
    (stage,) = parse_dockerfile(f"FROM a\n{line}\n").stages
    assert reads_context(stage.instructions[0]) is reads
