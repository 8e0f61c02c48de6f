"""An ext4 with project quotas, in a file: what limits on volumes and containers need."""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

SIZE = 64 << 20


@contextmanager
def quota_disk(directory: Path) -> Iterator[Path]:
    """Mount one below `directory`; the test is skipped where the kernel has no such quotas."""
    image, place = directory / "image", directory / "disk"
    with open(image, "wb") as file:
        file.truncate(SIZE)
    place.mkdir()
    commands = (
        ["mke2fs", "-q", "-F", "-t", "ext4", "-O", "quota,project", str(image)],
        ["mount", "-o", "loop,prjquota", str(image), str(place)],
    )
    for command in commands:
        try:
            done = subprocess.run(command, capture_output=True, text=True, check=False)
        except FileNotFoundError:
            pytest.skip(f"{command[0]} is not installed")
        if done.returncode != 0:
            pytest.skip(f"no project quotas in this kernel: {done.stderr.splitlines()[0][-60:]}")
    try:
        yield place
    finally:
        subprocess.run(["umount", str(place)], check=True)
