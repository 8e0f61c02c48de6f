"""Lint checks: each rule by BuildKit's name and words, the directive, and excerpts."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pier.build.dockerfile.errors import DockerfileError
from pier.build.dockerfile.excerpt import excerpt
from pier.build.dockerfile.parse import parse_dockerfile
from pier.build.ignore import Ignore
from pier.build.lint.check import Surroundings, check
from pier.build.lint.findings import Checks, parse_checks, violation
from pier.build.lint.rules import RULES
from pier.build.lint.text import as_text
from pier.errors import InvalidParameter
from pier.model.platform import Platform

HOST = Platform("linux", "amd64")
ALL = Checks(asks_all=True)


def found(text, *, checks=ALL, ignore=(), given=()):
    around = Surroundings(dict(given), HOST, HOST, lambda _name: None, Ignore(ignore))
    return check(parse_dockerfile(text), checks, around)


# Each case is one finding: the rule, what it says, its line, and the Dockerfile.
CASES = [
    ("StageNameCasing", "Stage name 'Base' should be lowercase", 1, "FROM x AS Base\n"),
    ("FromAsCasing", "'as' and 'FROM' keywords' casing do not match", 1, "FROM x as b\n"),
    ("NoEmptyContinuation", "Empty continuation line", 4, "FROM x\nRUN a \\\n\n  b\n"),
    (
        "ConsistentInstructionCasing",
        "Command 'Run' should match the case of the command majority (uppercase)",
        *(2, "FROM x\nRun a\nRUN b\n"),
    ),
    (
        "ConsistentInstructionCasing",
        "Command 'RUN' should match the case of the command majority (lowercase)",
        *(2, "from x\nRUN a\nrun b\n"),
    ),
    (
        "DuplicateStageName",
        'Duplicate stage name "a", stage names should be unique',
        *(2, "FROM x AS a\nFROM x AS a\n"),
    ),
    (
        "ReservedStageName",
        'Stage name should not use the same name as reserved stage "scratch"',
        *(1, "FROM x AS scratch\n"),
    ),
    (
        "JSONArgsRecommended",
        "JSON arguments recommended for CMD to prevent unintended behavior related to OS signals",
        *(2, "FROM x\nCMD a b\n"),
    ),
    (
        "MaintainerDeprecated",
        "Maintainer instruction is deprecated in favor of using label",
        *(2, "FROM x\nMAINTAINER me\n"),
    ),
    (
        "UndefinedArgInFrom",
        "FROM argument 'VERSON' is not declared (did you mean VERSION?)",
        *(2, "ARG VERSION=1\nFROM x:1$VERSON\n"),
    ),
    (
        "WorkdirRelativePath",
        'Relative workdir "a/b" can have unexpected results if the base image changes',
        *(2, "FROM x\nWORKDIR a/b\nWORKDIR /c\nWORKDIR d\n"),
    ),
    (
        "UndefinedVar",
        "Usage of undefined variable '$foo' (did you mean $food?)",
        *(3, "FROM scratch\nENV food=1\nCOPY $foo .\n"),
    ),
    (
        "MultipleInstructionsDisallowed",
        ("Multiple CMD instructions should not be used in the same stage because only the last one "
        "will be used"),
        *(2, 'FROM x\nCMD ["a"]\nCMD ["b"]\n'),
    ),
    (
        "LegacyKeyValueFormat",
        '"ENV key=value" should be used instead of legacy "ENV key value" format',
        *(2, "FROM x\nENV a b\n"),
    ),
    (
        "RedundantTargetPlatform",
        ("Setting platform to predefined $TARGETPLATFORM in FROM is redundant as this is the default "
        "behavior"),
        *(1, "FROM --platform=$TARGETPLATFORM x\n"),
    ),
    (
        "SecretsUsedInArgOrEnv",
        'Do not use ARG or ENV instructions for sensitive data (ARG "API_KEY")',
        *(2, "FROM x\nARG API_KEY\nENV PUBLIC_KEY=1 MONKEY=2 TOKEN_FILE=/x\n"),
    ),
    (
        "InvalidDefaultArgInFrom",
        "Default value for ARG x:$V results in empty or invalid base image name",
        *(2, "ARG V\nFROM x:$V\n"),
    ),
    (
        "FromPlatformFlagConstDisallowed",
        'FROM --platform flag should not use constant value "linux/arm64"',
        *(1, "FROM --platform=linux/arm64 x AS a\nFROM --platform=linux/arm64 x AS for_arm64\n"),
    ),
    (
        "CopyIgnoredFile",
        'Attempting to Copy file "./d/x.tmp" that is excluded by .dockerignore',
        *(2, "FROM x\nCOPY ./d/x.tmp ok /y/\n"),
    ),
    (
        "InvalidDefinitionDescription",
        "Comment for FROM should follow the format: `# base <description>`",
        *(2, "# what it is\nFROM x AS base\n\n# far away\n\nARG A\n# B is told\n# A is told\nARG A\n"),
    ),
    (
        "ExposeProtoCasing",
        "Defined protocol '80/TcP' in EXPOSE instruction should be lowercase",
        *(2, "FROM x\nEXPOSE 80/TcP 81/udp\n"),
    ),
    (
        "ExposeInvalidFormat",
        ("EXPOSE instruction should not define an IP address or host-port mapping, found "
        "'127.0.0.1:80:80'"),
        *(2, "FROM x\nEXPOSE 127.0.0.1:80:80 8000-8001\n"),
    ),
]  # fmt: skip


@pytest.mark.parametrize(("name", "detail", "line", "text"), CASES)
def test_rules(name, detail, line, text):
    things = found(text, ignore=["*/*.tmp"], given={"V": "1"})
    assert [(f.rule.name, f.detail, f.first) for f in things] == [
        (name, detail.replace("./d", "d"), line)
    ]


def test_every_rule_has_a_case():
    assert {case[0] for case in CASES} == set(RULES) - {"InvalidBaseImagePlatform"}


def test_nothing_is_wrong():
    text = (
        "# syntax=docker/dockerfile:1\nARG V=1\nFROM scratch AS base\nARG V\nARG T\n"
        "ENV A=${V} B=$T C=${NO:-x}\nWORKDIR /a\nWORKDIR b\nRUN echo $HOME\n"
        'SHELL ["sh", "-c"]\nCMD run it\nFROM base\nCOPY $A $PATH /x/\nCMD run it\n'
    )
    assert found(text) == []


def test_directive():
    assert parse_checks("") == Checks()
    assert parse_checks("skip=A, B;error=true").skipped == {"A", "B"}
    assert parse_checks("error=true").fails
    assert parse_checks("skip=all").skips_all
    text = "FROM x AS Base\nCMD a\n"
    assert [f.rule.name for f in found(text, checks=parse_checks("skip=StageNameCasing"))] == [
        "JSONArgsRecommended"
    ]
    assert found(text, checks=parse_checks("skip=all")) == []
    assert violation(found(text)) == (
        "lint violation found for rules: JSONArgsRecommended, StageNameCasing"
    )
    for wrong in ("skip", "what=1", "error=maybe"):
        with pytest.raises(InvalidParameter):
            parse_checks(wrong)


def test_excerpts():
    text = "FROM x\nRUN a\nCMD b\n"
    assert excerpt("Dockerfile", text, 3, 3) == (
        "Dockerfile:3\n--------------------\n   1 |     FROM x\n   2 |     RUN a\n"
        "   3 | >>> CMD b\n   4 |     \n--------------------\n"
    )
    assert excerpt("x", text, 9, 9) == ""
    things = found(text)
    assert as_text(things, "Dockerfile", text) == (
        "\nWARNING: JSONArgsRecommended - "
        "https://docs.docker.com/go/dockerfile/rule/json-args-recommended/\n"
        "JSON arguments recommended for CMD to prevent unintended behavior related to OS signals\n"
        + excerpt("Dockerfile", text, 3, 3)
    )
    assert things[0].short.endswith("to OS signals (line 3)")


PIECES = st.sampled_from(
    ["FROM ", "from x", " AS ", "as", "RUN ", "\\\n", "\n", " ", "$", "${A", "}", ":-", "ARG A", "=", "'",
     '"', "[", "]", "<<EOF", "EOF", "#", "# check=skip=all", "COPY ", "--from=", "--chmod=", "a", "ENV ",
     "ONBUILD ", "HEALTHCHECK ", "EXPOSE 1", "/", "%", "#x", "\t", "`", "WORKDIR ", "\0", "\r\n"]
)  # fmt: skip


@given(st.lists(PIECES, max_size=30).map("".join))
@settings(max_examples=400, deadline=None)
def test_no_text_breaks_parser_or_checks(text):
    for whole in (text, "FROM x\n" + text):
        try:
            file = parse_dockerfile(whole)
        except DockerfileError:
            continue
        around = Surroundings({}, HOST, HOST, lambda _name: None, Ignore(()))
        for finding in check(file, ALL, around):
            assert 1 <= finding.first <= finding.last <= whole.count("\n") + 1
