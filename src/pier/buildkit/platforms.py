"""Which platforms' steps run here, as clients show it (`docker buildx ls`): the processor's own, by what
it can do, and those that binfmt_misc has an emulator for.
"""

import contextlib
import os
from collections.abc import Iterator

from pier.buildkit.messages.ops import Platform
from pier.model.platform import host_platform

# What each level of the x86-64 psABI adds, by Linux's names in /proc/cpuinfo.
_LEVELS = {
    "v2": {"cx16", "lahf_lm", "popcnt", "sse4_1", "sse4_2", "ssse3"},
    "v3": {"abm", "avx", "avx2", "bmi1", "bmi2", "f16c", "fma", "movbe", "xsave"},
    "v4": {"avx512bw", "avx512cd", "avx512dq", "avx512f", "avx512vl"},
}
_EMULATED = {
    "qemu-aarch64": ("arm64", ""),
    "qemu-arm": ("arm", "v7"),
    "qemu-i386": ("386", ""),
    "qemu-loongarch64": ("loong64", ""),
    "qemu-mips64": ("mips64", ""),
    "qemu-mips64el": ("mips64le", ""),
    "qemu-ppc64le": ("ppc64le", ""),
    "qemu-riscv64": ("riscv64", ""),
    "qemu-s390x": ("s390x", ""),
    "qemu-x86_64": ("amd64", ""),
}


def supported(proc: str = "/proc") -> list[Platform]:
    """Return the platforms, the host's own first. What is not known is left out."""
    host = host_platform()
    found = [Platform(Architecture=host.architecture, OS=host.os, Variant=host.variant)]
    if host.architecture == "amd64":
        found += [
            Platform(Architecture="amd64", OS=host.os, Variant=level)
            for level in _levels(_read(f"{proc}/cpuinfo"))
        ]
        # Only a kernel that runs programs of 32 bits has it.
        if os.path.exists(f"{proc}/sys/abi/vsyscall32"):
            found.append(Platform(Architecture="386", OS=host.os))
    for name, (architecture, variant) in _EMULATED.items():
        handler = _read(f"{proc}/sys/fs/binfmt_misc/{name}")
        if handler.startswith("enabled") and architecture not in {p.Architecture for p in found}:
            found.append(Platform(Architecture=architecture, OS=host.os, Variant=variant))
    return found


def _levels(cpuinfo: str) -> Iterator[str]:
    line = next((line for line in cpuinfo.splitlines() if line.startswith("flags")), "")
    flags = set(line.partition(":")[2].split())
    for level, needed in _LEVELS.items():
        if not needed <= flags:
            return
        yield level


def _read(path: str) -> str:
    with contextlib.suppress(OSError), open(path, encoding="ascii", errors="replace") as file:
        return file.read()
    return ""
