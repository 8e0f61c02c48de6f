import pytest
from hypothesis import given
from hypothesis import strategies as st

from pier.errors import InvalidParameter
from pier.model.digest import digest_of
from pier.model.reference import (
    familiar_match,
    parse_any,
    parse_reference,
    parse_repo_tag,
)

DIGEST = digest_of(b"")


# what a user writes; full form; familiar form
@pytest.mark.parametrize(
    ("text", "full", "familiar"),
    [
        ("ubuntu", "docker.io/library/ubuntu", "ubuntu"),
        ("ubuntu:24.04", "docker.io/library/ubuntu:24.04", "ubuntu:24.04"),
        ("docker.io/ubuntu", "docker.io/library/ubuntu", "ubuntu"),
        ("index.docker.io/library/ubuntu", "docker.io/library/ubuntu", "ubuntu"),
        ("library/ubuntu", "docker.io/library/ubuntu", "ubuntu"),
        ("a/b", "docker.io/a/b", "a/b"),
        ("library/a/b", "docker.io/library/a/b", "library/a/b"),
        ("localhost/a", "localhost/a", "localhost/a"),
        ("localhost:5000/a:b", "localhost:5000/a:b", "localhost:5000/a:b"),
        ("example.com/a/b:c", "example.com/a/b:c", "example.com/a/b:c"),
        ("[fe80::1]:5000/a", "[fe80::1]:5000/a", "[fe80::1]:5000/a"),
        ("Upper/a", "Upper/a", "Upper/a"),
        ("a__b/c.d-e", "docker.io/a__b/c.d-e", "a__b/c.d-e"),
        (f"a@{DIGEST}", f"docker.io/library/a@{DIGEST}", f"a@{DIGEST}"),
        (f"a:t@{DIGEST}", f"docker.io/library/a:t@{DIGEST}", f"a:t@{DIGEST}"),
    ],
)
def test_forms(text, full, familiar):
    reference = parse_reference(text)
    assert (str(reference), reference.familiar) == (full, familiar)
    assert parse_reference(full) == parse_reference(familiar) == reference


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "invalid reference format"),
        ("a b", "invalid reference format"),
        (":tag", "invalid reference format"),
        ("a:", "invalid reference format"),
        ("-a", "invalid reference format"),
        ("a..b", "invalid reference format"),
        ("a//b", "invalid reference format"),
        ("a/../b", "invalid reference format"),
        ("a:b\n", "invalid reference format"),
        ("a:" + "t" * 129, "invalid reference format"),
        ("a@sha256:abcd", "invalid reference format"),
        (f"a@{DIGEST[:-1]}", "invalid checksum digest length"),
        ("Ubuntu", "repository name (library/Ubuntu) must be lowercase"),
        ("a/B:c", "repository name (a/B) must be lowercase"),
        ("a/" * 130 + "a", "repository name must not be more than 255 characters"),
        ("f" * 64, "cannot specify 64-byte hexadecimal strings"),
    ],
)
def test_refused(text, message):
    with pytest.raises(InvalidParameter) as caught:
        parse_reference(text)
    assert message in caught.value.message


def test_ids_are_no_names():
    assert parse_any("f" * 64) == "sha256:" + "f" * 64
    assert parse_any(DIGEST) == DIGEST
    assert str(parse_any("f" * 12)) == "docker.io/library/" + "f" * 12


def test_what_is_looked_up():
    assert parse_reference("a").lookup_key() == "docker.io/library/a:latest"
    assert parse_reference(f"a:t@{DIGEST}").lookup_key() == f"docker.io/library/a@{DIGEST}"


@pytest.mark.parametrize(
    ("repo", "tag", "made"),
    [
        ("a", "", "a:latest"),
        ("a", "b", "a:b"),
        ("a:b", "", "a:b"),
        ("a:b", "c", "a:c"),
        ("a", "not/a/tag", "invalid tag format"),
        (f"a@{DIGEST}", "", "refusing to create a tag with a digest reference"),
        ("sha256", "x", "refusing to create an ambiguous tag using digest algorithm as name"),
    ],
)
def test_repo_and_tag(repo, tag, made):
    if " " not in made:
        assert parse_repo_tag(repo, tag).familiar == made
        return
    with pytest.raises(InvalidParameter, match=made):
        parse_repo_tag(repo, tag)


@pytest.mark.parametrize(
    ("pattern", "fits"),
    [
        ("a/b", True),
        ("a/b:*", True),
        ("*/b", True),
        ("*", False),
        ("a/[abc]", True),
        ("a/[^abc]", False),
        ("a/?:v1", True),
        ("b", False),
        (r"a/\b", True),
    ],
)
def test_patterns(pattern, fits):
    assert familiar_match(pattern, parse_reference("a/b:v1")) is fits


@pytest.mark.parametrize("pattern", ["[", "a\\", "[z-a]"])
def test_pattern_errors(pattern):
    with pytest.raises(InvalidParameter, match="syntax error in pattern"):
        familiar_match(pattern, parse_reference("a"))


@given(st.text(max_size=80))
def test_any_text_is_parsed_or_refused(text):
    try:
        reference = parse_reference(text)
    except InvalidParameter:
        return
    assert parse_reference(str(reference)) == reference
    assert parse_reference(reference.familiar) == reference
