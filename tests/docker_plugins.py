"""The genuine docker-buildx and docker-compose, in a configuration of docker's of the tests' own."""

import os
from pathlib import Path


def find_plugins() -> str | None:
    """The directory with the plugins, None when there is none."""
    given = os.environ.get("PIER_DOCKER_PLUGINS", "")
    peers = os.environ.get("PIER_PEERS_ROOT", "")
    for path in (given, f"{peers}/usr/libexec/docker/cli-plugins" if peers else ""):
        if path and os.path.exists(f"{path}/docker-buildx"):
            return path
    return None


def configure(directory: Path, plugins: str) -> None:
    os.symlink(plugins, directory / "cli-plugins")
