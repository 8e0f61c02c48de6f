"""Which stages are built, which arguments they see, what a source's wildcards match, what steps are called."""

import pytest

from pier.build.arguments import Arguments
from pier.build.dockerfile.parse import parse_dockerfile
from pier.build.globs import match_regex
from pier.build.mounts import parse_mount
from pier.build.named import NamedContexts
from pier.build.plan import make_plan
from pier.build.words import duration, quoted_list, run_words
from pier.errors import InvalidParameter
from pier.model.platform import Platform

HOST = Platform("amd64", "linux")


def planned(text, target="", given=None):
    arguments = Arguments.make(given or {}, HOST, HOST)
    return make_plan(parse_dockerfile(text), arguments, target, NamedContexts({})).stages


@pytest.mark.parametrize(
    ("text", "target", "indexes"),
    [
        ("FROM a\n", "", [0]),
        ("FROM a AS x\nFROM b\n", "", [1]),
        ("FROM a AS x\nFROM b\nCOPY --from=X /f /\n", "", [0, 1]),
        ("FROM a\nFROM b\nCOPY --from=0 /f /\n", "", [0, 1]),
        ("FROM a AS x\nFROM x AS y\nFROM b\nFROM y\n", "", [0, 1, 3]),
        ("FROM a AS x\nFROM b AS y\n", "x", [0]),
        ("FROM a AS x\nFROM b AS y\nFROM c\n", "1", [1]),
        ("FROM a AS x\nFROM b\nRUN --mount=from=x,target=/m true\n", "", [0, 1]),
        # Files may come of a stage behind; the target is always the last.
        ("FROM a\nCOPY --from=x /f /\nFROM b AS x\nFROM c\n", "0", [1, 0]),
    ],
)
def test_stages_that_are_needed(text, target, indexes):
    assert [stage.stage.index for stage in planned(text, target)] == indexes


@pytest.mark.parametrize(
    "text",
    [
        "FROM a AS x\nCOPY --from=x /f /\n",
        "FROM a AS x\nCOPY --from=y / /\nFROM b AS y\nRUN --mount=from=x,target=/m true\n",
    ],
)
def test_circles(text):
    with pytest.raises(InvalidParameter, match="circular dependency detected on stage: "):
        planned(text)


def test_an_unknown_target():
    with pytest.raises(InvalidParameter, match='target stage "no" could not be found'):
        planned("FROM a\n", "no")


def test_global_arguments_in_from():
    text = "ARG V=1\nARG N=img:$V\nFROM ${N}-$TARGETARCH\n"
    assert planned(text)[0].base == "img:1-amd64"
    assert planned(text, given={"V": "2"})[0].base == "img:2-amd64"
    assert planned("ARG A\nFROM --platform=$BUILDPLATFORM x$A\n")[0].platform == "linux/amd64"


def test_scopes_of_arguments():
    arguments = Arguments.make({"A": "given", "HTTP_PROXY": "p", "N": None, "U": "u"}, HOST, HOST)
    arguments.declare("G", "global")
    stage = arguments.stage()
    assert stage.values() == {}
    for name, default in (("A", "default"), ("G", None), ("TARGETOS", None), ("X", None)):
        stage.declare(name, default)
    assert stage.values() == {"A": "given", "G": "global", "TARGETOS": "linux"}
    found = stage.environment({"G": "of the image"})
    assert found == {"A": "given", "HTTP_PROXY": "p", "TARGETOS": "linux"}
    assert stage.recorded(found) == {"A": "given", "TARGETOS": "linux"}
    assert arguments.unused() == ["N", "U"]


# From the documentation of Go's path/filepath.Match, and its own test's cases.
@pytest.mark.parametrize(
    ("pattern", "text", "matches"),
    [
        ("*c", "abc", True),
        ("a*/b", "a/c/b", False),
        ("a*b*c*d*e*", "axbxcxdxe", True),
        ("ab[c]", "abc", True),
        ("ab[b-d]", "abc", True),
        ("ab[e-g]", "abc", False),
        ("ab[^c]", "abc", False),
        ("ab[^e-g]", "abc", True),
        ("a\\*b", "a*b", True),
        ("a\\*b", "ab", False),
        ("a[^a]b", "a☺b", True),
        ("[\\]a]", "]", True),
        ("[x\\-]", "-", True),
        ("[a-b-c]", "a", None),
        ("[]a]", "]", None),
        ("[-]", "-", None),
        ("a[", "a", None),
        ("[", "a", None),
        ("a[\\]b", "a", None),
        ("*", ".hidden", True),
        ("a?b", "a\nb", True),
    ],
)
def test_wildcards(pattern, text, matches):
    if matches is None:
        with pytest.raises(InvalidParameter, match="syntax error in pattern"):
            match_regex(pattern)
    else:
        assert bool(match_regex(pattern).match(text)) is matches


def test_words_of_go():
    assert quoted_list(["/bin/sh", 'say "\\x"', "a\tb"]) == r'["/bin/sh" "say \"\\x\"" "a\tb"]'
    assert run_words(["/bin/sh", "-c", "x"], {"A": "1", "B": "2"}) == "|2 A=1 B=2 /bin/sh -c x"
    assert run_words(["x"], {}) == "x"


@pytest.mark.parametrize(
    ("ns", "text"),
    [
        (0, "0s"),
        (1, "1ns"),
        (1_500_000, "1.5ms"),
        (5_000_000_000, "5s"),
        (90_000_000_000, "1m30s"),
        (3_600_000_000_000, "1h0m0s"),
        (3_723_500_000_000, "1h2m3.5s"),
    ],
)
def test_durations(ns, text):
    assert duration(ns) == text


def test_mounts():
    found = parse_mount("type=cache,dst=/c,id=x,sharing=locked,uid=5,mode=0700")
    assert (found.kind, found.target, found.id, found.sharing) == ("cache", "/c", "x", "locked")
    assert (found.uid, found.mode, found.read_only) == (5, 0o700, False)
    assert parse_mount("target=/x").read_only
    assert not parse_mount("target=/x,rw").read_only
    assert parse_mount("type=tmpfs,target=/t,size=2m").size == 2 << 20
    secret = parse_mount("type=secret,id=dir/token,required")
    assert (secret.id, secret.target, secret.mode) == ("dir/token", "/run/secrets/token", 0o400)
    assert secret.required
    assert parse_mount("type=secret,target=/x/name").id == "name"
    assert parse_mount("type=secret,id=a,env=A").target == ""
    agent = parse_mount("type=ssh")
    assert (agent.id, agent.target, agent.mode) == ("default", "", 0o600)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("type=no,target=/x", 'unsupported mount type "no"'),
        ("type=bnd,target=/x", 'unsupported mount type "bnd" (did you mean bind?)'),
        ("type=cache", "cache mount requires a target"),
        ("target=/x,what=1", "unexpected key 'what' in 'what=1'"),
        ("target=/x,taget=1", "unexpected key 'taget' in 'taget=1' (did you mean target?)"),
        ("target=/x,word", "invalid field 'word' must be a key=value pair"),
        ("target=/x,mode=755", 'mode not allowed for "bind" type mounts'),
        ("type=cache,target=/x,mode=9", "invalid value 9 for mode"),
        ("type=secret", "invalid secret mount. one of source, target required"),
        ("type=secret,id=a,source=b", "both source and id can't be set"),
        ("type=secret,id=a,from=b", "secret mount should not have a from"),
        ("type=secret,id=a,sharing=shared", "secret mount should not define sharing"),
        ("target=/x,sharing=locked", "invalid cache sharing set for bind mount"),
        ("target=/x,sharing=mine", 'unsupported sharing value "mine"'),
        ("type=secret,id=a,required=maybe", "invalid value for required: maybe"),
    ],
)
def test_wrong_mounts(text, words):
    with pytest.raises(InvalidParameter) as raised:
        parse_mount(text)
    assert str(raised.value) == words
