"""The platforms that a builder tells its clients, out of a /proc of our own."""

import os

import pytest

from pier.buildkit.platforms import supported

V2 = "cx16 lahf_lm popcnt sse4_1 sse4_2 ssse3"
V3 = "abm avx avx2 bmi1 bmi2 f16c fma movbe xsave"


@pytest.mark.skipif(os.uname().machine != "x86_64", reason="about x86-64's levels")
@pytest.mark.parametrize(
    ("flags", "handlers", "expected"),
    [
        ("fpu", {}, ["amd64"]),
        (f"fpu {V2}", {}, ["amd64", "amd64/v2"]),
        (f"{V3} {V2}", {}, ["amd64", "amd64/v2", "amd64/v3"]),
        (V3, {}, ["amd64"]),
        ("", {"qemu-aarch64": "enabled\n", "qemu-arm": "disabled\n"}, ["amd64", "arm64"]),
        ("", {"qemu-x86_64": "enabled\n", "jar": "enabled\n"}, ["amd64"]),
    ],
)
def test_supported(tmp_path, flags, handlers, expected):
    (tmp_path / "cpuinfo").write_text(f"processor : 0\nflags\t\t: {flags}\n")
    (tmp_path / "sys/fs/binfmt_misc").mkdir(parents=True)
    for name, text in handlers.items():
        (tmp_path / "sys/fs/binfmt_misc" / name).write_text(text)
    found = supported(str(tmp_path))
    assert ["/".join(filter(None, (p.Architecture, p.Variant))) for p in found] == expected
    assert {p.OS for p in found} == {"linux"}
