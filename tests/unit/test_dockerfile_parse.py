"""The Dockerfile language: lines, words, instructions, and what is said about wrong ones."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pier.build.dockerfile import instructions as ins
from pier.build.dockerfile.errors import DockerfileError
from pier.build.dockerfile.expand import Expander
from pier.build.dockerfile.parse import parse_dockerfile

VALUES = {"x": "abc.tar.gz", "e": "", "p": "a b  c", "path": "/a/b/c"}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("$x", "abc.tar.gz"),
        ("${x}y", "abc.tar.gzy"),
        ("${no:-d$e$x}", "dabc.tar.gz"),
        ("${e:-d}", "d"),
        ("${e-d}", ""),
        ("${x:+y}", "y"),
        ("${e:+y}", ""),
        ("${e+y}", "y"),
        ("${x%.*}", "abc.tar"),
        ("${x%%.*}", "abc"),
        ("${x#*.}", "tar.gz"),
        ("${x##*.}", "gz"),
        ("${path##*/}", "c"),
        ("${path%/*}", "/a/b"),
        ("${x/a/Z}", "Zbc.tar.gz"),
        ("${x//a/Z}", "Zbc.tZr.gz"),
        ("${path//\\//-}", "-a-b-c"),
        ("'$x'", "$x"),
        ('"$x \\$x \\n"', "abc.tar.gz $x \\n"),
        ("\\$x", "$x"),
        ("a$", "a$"),
        ("${x:-${e:-q}}z", "abc.tar.gzz"),
        ("${no}", ""),
    ],
)
def test_expansion(text: str, expected: str) -> None:
    assert Expander(VALUES).word(text) == expected


def test_words_of_variables_are_split_unless_quoted() -> None:
    assert Expander(VALUES).words("$p \"$p\" '' x") == ["a", "b", "c", "a b  c", "", "x"]


def test_what_has_no_value_is_remembered() -> None:
    expander = Expander({})
    assert expander.word("$a ${b} ${c:-d} ${e#x}") == "  d "
    assert expander.unmatched == {"a", "b", "e"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("${x:?}", None),
        ("${no:?is missing}", "no: is missing"),
        ("${no?}", "no: is not allowed to be unset"),
        ("${x", 'failed to process "${x": unsupported modifier (\ufffd) in substitution'),
        ("${x:x}", "unsupported modifier (x) in substitution"),
        ("${}", "bad substitution"),
        ("'x", "unexpected end of statement while looking for matching single-quote"),
        ('"x', "unexpected end of statement while looking for matching double-quote"),
    ],
)
def test_bad_expansion(text: str, message: str | None) -> None:
    if message is None:
        assert Expander(VALUES).word(text) == "abc.tar.gz"
        return
    with pytest.raises(DockerfileError) as caught:
        Expander(VALUES).word(text)
    assert message in caught.value.message


WHOLE = r"""# syntax=docker/dockerfile:1
# escape=\
ARG VERSION=1 OTHER
FROM --platform=$BUILDPLATFORM debian:${VERSION} AS Base
# a comment
RUN --mount=type=cache,target=/c --network=none apt-get update \
    # inside

    && true
RUN ["/bin/echo", "x y"]
ENV A=1 B="two words" C=a\ b
ENV OLD the old form
LABEL "x y"=z
COPY --from=Base --chown=1:2 --link --exclude=*.o --exclude=x a "b" /dst/
ADD ["a b", "c d"]
COPY <<EOF <<-'RAW' /etc/
one $A
EOF
	two $A
	RAW
FROM scratch
HEALTHCHECK --interval=5s --retries=3 CMD curl -f x || exit 1
ONBUILD RUN make
CMD ["x"]
"""


def test_a_whole_file() -> None:
    found = parse_dockerfile(WHOLE)
    assert found.directives == {"syntax": "docker/dockerfile:1", "escape": "\\"}
    assert found.globals[0].values == [("VERSION", "1"), ("OTHER", None)]
    base, last = found.stages
    assert (base.base.image, base.base.alias, base.base.platform) == (
        "debian:${VERSION}", "Base", "$BUILDPLATFORM",
    )  # fmt: skip
    run, listed, env, old, label, copy, add, here = base.instructions
    assert isinstance(run, ins.Run)
    assert run.command.words == ["apt-get update     && true"]
    assert run.command.is_shell
    assert (run.mounts, run.network) == (["type=cache,target=/c"], "none")
    assert (run.first, run.last) == (6, 9)
    assert isinstance(listed, ins.Run)
    assert listed.command == ins.Command(["/bin/echo", "x y"], is_shell=False)
    assert isinstance(env, ins.Env)
    assert env.values == [("A", "1"), ("B", '"two words"'), ("C", "a\\ b")]
    assert isinstance(old, ins.Env)
    assert (old.values, old.is_legacy) == ([("OLD", "the old form")], True)
    assert isinstance(label, ins.Label)
    assert label.values == [('"x y"', "z")]
    assert isinstance(copy, ins.Copy)
    assert (copy.stage, copy.chown, copy.link) == ("Base", "1:2", True)
    assert copy.exclude == ["*.o", "x"]
    assert (copy.sources, copy.target) == (["a", '"b"'], "/dst/")
    assert isinstance(add, ins.Add)
    assert (add.sources, add.target) == (["a b"], "c d")
    assert isinstance(here, ins.Copy)
    assert [(h.name, h.content, h.expand) for h in here.heredocs] == [
        ("EOF", "one $A\n", True),
        ("RAW", "two $A\n", False),
    ]
    health, onbuild, cmd = last.instructions
    assert isinstance(health, ins.Healthcheck)
    assert health.test == ["CMD-SHELL", "curl -f x || exit 1"]
    assert (health.interval, health.retries) == (5_000_000_000, 3)
    assert isinstance(onbuild, ins.Onbuild)
    assert onbuild.trigger == "RUN make"
    assert isinstance(cmd, ins.Cmd)


def test_the_other_escape() -> None:
    found = parse_dockerfile("# escape=`\nFROM x\nRUN a `\n  b\nCOPY a C:\\\n")
    run, copy = found.stages[0].instructions
    assert isinstance(run, ins.Run)
    assert run.command.words == ["a   b"]
    assert isinstance(copy, ins.Copy)
    assert copy.target == "C:\\"


def test_a_heredoc_is_a_script() -> None:
    found = parse_dockerfile("FROM x\nRUN <<EOF\nfirst\n# no comment\nEOF\nRUN echo '<<no'\n")
    run, other = found.stages[0].instructions
    assert isinstance(run, ins.Run)
    assert run.command.heredocs[0].content == "first\n# no comment\n"
    assert isinstance(other, ins.Run)
    assert other.command.heredocs == ()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "file with no instructions"),
        ("RUN x", "no build stage in current context"),
        ("FROM x\nRUNN y", "line 2: unknown instruction: RUNN (did you mean RUN?)"),
        ("FROM a b", "FROM requires either one or three arguments"),
        ("FROM a AS 1x", 'invalid name for build stage: "1x"'),
        ("FROM a\nCOPY x", "COPY requires at least two arguments, but only one was provided."),
        ("FROM a\nENV", "ENV requires at least one argument"),
        ("FROM a\nENV A", "ENV must have two arguments"),
        ("FROM a\nENV A=1 B", 'can\'t find = in "B". Must be of the form: name=value'),
        ("FROM a\nENV =1", "ENV names can not be blank"),
        ("FROM a\nRUN --nope x", "unknown flag: --nope"),
        ("FROM a\nCOPY --chown x y", "missing a value on flag: chown"),
        ("FROM a\nCOPY --link=x a b", 'expecting boolean value for flag link, not: "x"'),
        ("FROM a\nSHELL sh", "SHELL requires the arguments to be in JSON form"),
        ("FROM a\nUSER a b", "USER requires exactly one argument"),
        ("FROM a\nHEALTHCHECK x", 'Unknown type "X" in HEALTHCHECK (try CMD)'),
        ("FROM a\nHEALTHCHECK CMD", "Missing command after HEALTHCHECK CMD"),
        ("FROM a\nHEALTHCHECK NONE x", "HEALTHCHECK NONE takes no arguments"),
        ("FROM a\nONBUILD ONBUILD RUN x", "Chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed"),
        ("FROM a\nONBUILD FROM x", "FROM isn't allowed as an ONBUILD trigger"),
        ("FROM a\nRUN <<EOF\nx", "unterminated heredoc"),
        ("# escape=x\nFROM a", "invalid ESCAPE 'x'. Must be ` or \\"),
        ("# syntax=a\n# syntax=b\nFROM a", "only one syntax parser directive can be used"),
    ],
)
def test_errors(text: str, message: str) -> None:
    with pytest.raises(DockerfileError) as caught:
        parse_dockerfile(text)
    assert message in caught.value.message


@given(st.text(alphabet=st.sampled_from("FROM RUNCOPYENV\\\n\"'<>=-$ {}[]#`ax:%/"), max_size=80))
def test_nothing_but_its_own_error(text: str) -> None:
    """Whatever is thrown at it: a Dockerfile or a DockerfileError."""
    try:
        found = parse_dockerfile("FROM x\n" + text)
    except DockerfileError:
        return
    assert found.stages
    for stage in found.stages:
        for instruction in stage.instructions:
            with contextlib.suppress(DockerfileError):
                Expander(VALUES).words(instruction.original)
