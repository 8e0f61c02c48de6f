"""Builds of the classic API by the docker command, on a busybox base."""

import json
import subprocess
from pathlib import Path
from typing import Any

from engine_process import Client


class Build:
    """Builds Dockerfiles whose base is called BASE, in a context below a temporary directory."""

    def __init__(self, docker: Client, image: str, directory: Path) -> None:
        self.docker = docker
        self.image = image
        self.directory = directory / "context"
        self.directory.mkdir()

    def file(self, name: str, content: str = "x\n", mode: int = 0o644) -> Path:
        path = self.directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
        path.chmod(mode)
        return path

    def __call__(
        self, text: str, *flags: str, check: bool = True
    ) -> subprocess.CompletedProcess[str]:
        self.file("Dockerfile", text.replace("BASE", self.image))
        words = ("build", "--network", "none", "-t", "made/it", *flags, str(self.directory))
        return self.docker(*words, check=check)

    def run(self, *command: str) -> str:
        return self.docker("run", "--rm", "made/it", *command).stdout

    def config(self, name: str = "made/it") -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.docker("image", "inspect", name).stdout)[0]
        return found
