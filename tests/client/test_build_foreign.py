"""RUN for another processor: QEMU by binfmt_misc, and what is said without it."""

import contextlib
import os
import shutil
import subprocess
from collections.abc import Iterator

import pytest
from export_builds import Failed, Layout, build
from made_once import CACHE, made

from engine_process import Client, EngineProcess

BINFMT = "/proc/sys/fs/binfmt_misc"
# The start of an ELF executable for AArch64, and which of its bits count.
MAGIC = r"\x7fELF\x02\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\xb7\x00"
MASK = r"\xff\xff\xff\xff\xff\xff\xff\x00\xff\xff\xff\xff\xff\xff\xff\xff\xfe\xff\xff\xff"
_MOUNT = f"[ -e {BINFMT}/register ] || mount -t binfmt_misc none {BINFMT}"
DOCKERFILE = """\
FROM scratch AS base
ARG TARGETARCH
COPY --chmod=755 busybox-$TARGETARCH /bin/busybox
RUN ["/bin/busybox", "--install", "-s", "/bin"]
FROM base
RUN uname -m > /machine
CMD ["cat", "/machine"]
"""


@pytest.fixture(scope="module")
def files() -> dict[str, str | bytes]:
    if os.uname().machine != "x86_64":
        pytest.skip("arm64 is foreign to amd64 only")
    path = os.path.join(CACHE, "busybox-arm64")
    foreign = made("busybox-arm64", "foreign_busybox.sh", "arm64", path)
    own = shutil.which("busybox")
    assert own
    found: dict[str, str | bytes] = {"Dockerfile": DOCKERFILE}
    for name, path in (("amd64", own), ("arm64", foreign)):
        with open(path, "rb") as file:
            found[f"busybox-{name}"] = file.read()
    return found


def _in_binfmt(script: str) -> subprocess.CompletedProcess[str]:
    """Run a shell script with binfmt_misc mounted, in a mount namespace of its own."""
    return subprocess.run(
        ["unshare", "-m", "sh", "-ec", f"{_MOUNT}; {script}"],
        capture_output=True,
        text=True,
        check=False,
    )


def _is_registered() -> bool:
    """Tell whether something runs arm64 here."""
    return not _in_binfmt(f"grep -lq b700 {BINFMT}/*").returncode


@contextlib.contextmanager
def emulated() -> Iterator[None]:
    """Have arm64 executables run for the time of the block, as Debian's qemu-user-static does it."""
    if _is_registered():
        yield
        return
    emulator = shutil.which("qemu-aarch64-static")
    if emulator is None:
        pytest.skip("qemu-user-static is not installed")
    # F: the kernel opens the emulator now, so that it need not be in the image.
    line = f":pier-test-arm64:M::{MAGIC}:{MASK}:{emulator}:F"
    # What is registered goes with the last mount of it, so somebody keeps the namespace.
    script = f"{_MOUNT}; printf '%s' '{line}' > {BINFMT}/register; echo done; cat"
    keeper = subprocess.Popen(
        ["unshare", "-m", "sh", "-ec", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    with keeper:
        assert keeper.stdin is not None
        assert keeper.stdout is not None
        try:
            if keeper.stdout.readline() != b"done\n":
                pytest.skip("binfmt_misc takes no registration here")
            yield
        finally:
            keeper.stdin.close()
            _in_binfmt(f"[ ! -e {BINFMT}/pier-test-arm64 ] || echo -1 > {BINFMT}/pier-test-arm64")


def test_without_an_emulator(engine: EngineProcess, files: dict[str, str | bytes]) -> None:
    if _is_registered():
        pytest.skip("this machine runs arm64 by binfmt_misc")
    with pytest.raises(Failed) as failure:
        build(engine, files, [{"type": "oci"}], platform="linux/arm64")
    message = str(failure.value)
    assert "exec format error" in message
    assert "linux/arm64" in message
    assert "linux/amd64" in message


def test_with_an_emulator(
    engine: EngineProcess, docker: Client, files: dict[str, str | bytes]
) -> None:
    with emulated():
        built = build(
            *(engine, files, [{"type": "oci"}, {"type": "image", "name": "made/foreign"}]),
            platform="linux/amd64,linux/arm64",
        )
        layout = Layout(built.files[0])
        entries = layout.json(layout.top)["manifests"]
        assert [e["platform"]["architecture"] for e in entries] == ["amd64", "arm64"]
        for platform, machine in (("linux/amd64", "x86_64"), ("linux/arm64", "aarch64")):
            told = docker("run", "--rm", "--platform", platform, "made/foreign").stdout
            assert told == machine + "\n"
    docker("rmi", "-f", "made/foreign")
