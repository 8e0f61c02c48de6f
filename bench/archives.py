"""Loading, saving and importing a 300 MB image of 11,000 files, by Pier and by dockerd."""

import io
import os
import random
import tarfile
from collections.abc import Callable

from busybox_image import docker_archive

FILES, SIZE, SEED = 11_000, 300_000_000, 4
NAME = "bench/large:latest"
LAYERS, LAYERED = 20, "bench/layered:latest"


def large_root(part: int = 0, parts: int = 1) -> bytes:
    """Return the tar of a root like a distribution's: many small files, few large ones.

    Or one of several parts of about as much together.
    """
    chance = random.Random(SEED + part)
    words = [chance.randbytes(24) for _ in range(4096)]
    weights = [min(chance.paretovariate(0.9), 400) for _ in range(FILES // parts)]
    scale = SIZE / parts / sum(weights)
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for number, weight in enumerate(weights):
            place = f"usr/share/p{part}/d{number // 400}/e{number // 20}"
            if number % 20 == 0:
                directory = tarfile.TarInfo(place)
                directory.type, directory.mode = tarfile.DIRTYPE, 0o755
                tar.addfile(directory)
            content = _content(chance, words, int(weight * scale))
            info = tarfile.TarInfo(f"{place}/file{number}")
            info.size, info.mode, info.mtime = len(content), 0o644, 1_700_000_000
            tar.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def _content(chance: random.Random, words: list[bytes], size: int) -> bytes:
    """Half words, half noise: it compresses to about two thirds."""
    parts = [chance.choice(words) for _ in range(min(size, 200_000) // 48)]
    text = b"".join(parts)
    return (text + chance.randbytes(max(0, size - len(text))))[:size]


class Archives:
    """The files that are loaded and imported, in a directory that the caller removes."""

    def __init__(self, directory: str) -> None:
        self.root = os.path.join(directory, "root.tar")
        self.image = os.path.join(directory, "image.tar")
        root = large_root()
        for path, data in ((self.root, root), (self.image, docker_archive(NAME, [root]))):
            with open(path, "wb") as file:
                file.write(data)


def layered_image(path: str) -> None:
    """Write an archive of an image as large, in LAYERS layers."""
    with open(path, "wb") as file:
        parts = [large_root(part, LAYERS) for part in range(LAYERS)]
        file.write(docker_archive(LAYERED, parts))


def peak_mb(pid: int) -> float:
    """Return the most memory that a process has had resident, in MB."""
    with open(f"/proc/{pid}/status") as file:
        for line in file:
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / 1024
    raise RuntimeError(f"no VmHWM of process {pid}")


def without(remove: Callable[[], object], measure: Callable[[], float]) -> Callable[[], float]:
    """Return a measurement that is cleaned up after, outside of the time that it takes."""

    def measured() -> float:
        elapsed = measure()
        remove()
        return elapsed

    return measured
