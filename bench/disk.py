"""A file system of its own for a run: a new ext4 with a journal, in a file that is thrown away.

What the machine's own does would otherwise decide: an ext4 without a journal takes ten times as
long to create files for a minute after others were removed, since it does not use their inodes
again (fs/ext4/ialloc.c, recently_deleted), and all transfers make and remove thousands.
"""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress

SIZE = 40 << 30  # sparse: it takes what is written


def used_mb(directory: str) -> float:
    """Return what a tree takes of its disk, in MB, each file once; what goes meanwhile is left out."""
    blocks: dict[tuple[int, int], int] = {}
    for place, names, files in os.walk(directory):
        for name in (*names, *files):
            with suppress(FileNotFoundError):
                info = os.lstat(os.path.join(place, name))
                blocks[info.st_dev, info.st_ino] = info.st_blocks
    return sum(blocks.values()) * 512 / 1e6


@contextmanager
def fresh_disk() -> Iterator[str]:
    """Mount it, let everything below tests/ and bench/ use it; yields a word about what it is."""
    directory = tempfile.mkdtemp(prefix="pier-bench-disk-", dir="/var/tmp")
    mounted = os.path.join(directory, "disk")
    image = os.path.join(directory, "image")
    before = os.environ.get("PIER_TEST_PLACE")
    try:
        os.mkdir(mounted)
        with open(image, "wb") as file:
            file.truncate(SIZE)
        commands = (["mkfs.ext4", "-q", image], ["mount", "-o", "loop", image, mounted])
        try:
            for command in commands:
                subprocess.run(command, check=True, capture_output=True)
        except (OSError, subprocess.CalledProcessError) as exc:
            yield f"this machine's /var/tmp: no disk of its own could be mounted ({exc})"
            return
        os.environ["PIER_TEST_PLACE"] = mounted
        try:
            yield "a new ext4 in a loop-mounted file, for all sides"
        finally:
            subprocess.run(["umount", mounted], check=True)
    finally:
        if before is None:
            os.environ.pop("PIER_TEST_PLACE", None)
        else:
            os.environ["PIER_TEST_PLACE"] = before
        shutil.rmtree(directory, ignore_errors=True)
