import pytest

from pier.errors import InvalidParameter
from pier.model.platform import Platform, host_platform, parse_platform, rank


@pytest.mark.parametrize(
    ("text", "parsed"),
    [
        ("linux/amd64", "linux/amd64"),
        ("linux/x86_64", "linux/amd64"),
        ("linux/aarch64", "linux/arm64"),
        ("linux/arm64/v8", "linux/arm64"),
        ("linux/arm", "linux/arm/v7"),
        ("linux/arm/v6", "linux/arm/v6"),
        ("Linux/AMD64", "linux/amd64"),
        ("windows/amd64", "windows/amd64"),
        ("arm64", "linux/arm64"),
        ("linux", str(host_platform())),
    ],
)
def test_parse(text, parsed):
    assert str(parse_platform(text)) == parsed


@pytest.mark.parametrize("text", ["", "linux/", "a/b/c/d", "linux/a b", "nonsense"])
def test_refused(text):
    with pytest.raises(InvalidParameter):
        parse_platform(text)


# offered, wanted, in this order of preference (None: does not run)
@pytest.mark.parametrize(
    ("wanted", "best_first", "never"),
    [
        ("linux/amd64", ["linux/amd64", "linux/386"], ["linux/arm64", "windows/amd64"]),
        ("linux/amd64/v3", ["linux/amd64/v3", "linux/amd64/v2", "linux/amd64"], ["linux/amd64/v4"]),
        ("linux/arm64", ["linux/arm64", "linux/arm/v8", "linux/arm/v7"], ["linux/amd64"]),
        ("linux/arm/v7", ["linux/arm/v7", "linux/arm/v6", "linux/arm/v5"], ["linux/arm64"]),
        ("linux/riscv64", ["linux/riscv64"], ["linux/amd64"]),
    ],
)
def test_rank(wanted, best_first, never):
    target = parse_platform(wanted)
    ranks = [rank(parse_platform(text), target) for text in best_first]
    assert None not in ranks
    assert ranks == sorted(set(ranks))
    assert all(rank(parse_platform(text), target) is None for text in never)


def test_image_without_variant_suits():
    assert rank(Platform("arm", "linux"), parse_platform("linux/arm/v6")) is None
    assert rank(Platform("amd64", ""), parse_platform("linux/amd64")) == 0
