"""Real projects' builds: an engine that reaches what this machine reaches, and the machine's settings.

Where packages come from is the machine's own affair. It is asked (apt's configuration, pip's, npm's)
and handed in as files that a step sees and no layer keeps: secrets for BuildKit's clients, files of
the context for the classic API, which has no secrets. apt's sources are in the base, as mmdebstrap
took them from the machine.

The engine has a network namespace of its own like every other one of the tests', with pasta for a
way out. Where there is none, or nothing answers at its end, the tests are skipped.
"""

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tarfile
import tempfile
import urllib.parse
from collections.abc import Iterator
from pathlib import Path

import pytest
from made_once import debian_tar

from docker_plugins import configure, find_plugins
from engine_process import Client, EngineProcess, wait_until

BASE = "pier-test/debian-apt:latest"
APT = (
    "RUN --mount=type=cache,target=/var/cache/apt,sharing=locked"
    " --mount=type=cache,target=/var/lib/apt,sharing=locked"
    " --mount=type=secret,id=apt,target=/etc/apt/apt.conf.d/99machine"
    " --mount=type=secret,id=ca"
    " export DEBIAN_FRONTEND=noninteractive; apt-get update &&"
    " apt-get install -y --no-install-recommends "
)
"""A RUN that installs what follows. apt keeps what it fetched, since nothing tells it not to."""
CA = "/run/secrets/ca"
"""Where a step finds the machine's certificates. The file of the package ca-certificates is apt's to write."""
# Debian 12's pasta sends segments without any flag. To conntrack they belong to no connection, nobody
# turns their address back, and the network itself answers with a reset that ends the connection.
DROP_INVALID = """
table inet way_out {
    chain arriving { type filter hook input priority filter; ct state invalid drop; }
}
"""
REACH = "import sys, urllib.request as u; u.urlopen(sys.argv[1], timeout=10).read(1)"


class Workshop:
    """The engine, the clients, and the machine's settings as files, by the names of secrets."""

    def __init__(self, engine: EngineProcess, settings: Path) -> None:
        self.engine = engine
        self.docker = engine.docker
        self.settings = settings
        self.secrets = {path.name: str(path) for path in sorted(settings.iterdir())}
        self.classic = Client("docker", {**engine.env, "DOCKER_BUILDKIT": "0"})

    def plugins(self, directory: Path) -> Client:
        """The docker command with buildx and compose; its configuration goes into `directory`."""
        found = find_plugins()
        if found is None:
            pytest.skip("no docker-buildx: PIER_DOCKER_PLUGINS names no directory with it")
        configure(directory, found)
        return Client("docker", {**self.engine.env, "DOCKER_CONFIG": str(directory)})

    def get(self, container: str, port: int) -> str:
        """What a container's published server says, as soon as it says anything."""
        where = self.docker("port", container, f"{port}/tcp").stdout.split()[0].split(":")[-1]
        command = [*self.engine.in_network, "curl", "-fsS", "-m", "5", f"http://127.0.0.1:{where}/"]
        said: list[str] = []

        def answers() -> bool:
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            said[:] = [done.stdout]
            return done.returncode == 0

        wait_until(answers, f"{container} answers on port {port}")
        return said[0]

    def close_project(self) -> None:
        """Remove a project's containers and images, but the base; the caches stay for the next."""
        self.engine.remove_containers()
        names = self.docker("images", "--format", "{{.Repository}}:{{.Tag}}").stdout.split()
        others = [name for name in names if name not in (BASE, "<none>:<none>")]
        if others:
            self.docker("rmi", "-f", *others)


def steps(output: str) -> dict[str, str]:
    """How each step of BuildKit's plain progress ended, by its command: DONE, CACHED or ERROR."""
    names = dict(re.findall(r"^#(\d+) (\[.*)$", output, re.MULTILINE))
    ended = re.findall(r"^#(\d+) (DONE|CACHED|ERROR)\b", output, re.MULTILINE)
    return {names[number].partition("] ")[2]: how for number, how in ended if number in names}


def classic_steps(output: str) -> dict[str, str]:
    """The same of the classic builder's stream."""
    found: dict[str, str] = {}
    for block in re.split(r"^Step \d+/\d+ : ", output, flags=re.MULTILINE)[1:]:
        command, _, rest = block.partition("\n")
        found[command] = "CACHED" if rest.startswith(" ---> Using cache") else "DONE"
    return found


def write(directory: Path, files: dict[str, str]) -> None:
    for name, content in files.items():
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)


def replace(path: Path, old: str, new: str) -> None:
    """Change one line of a file, which has to be there."""
    text = path.read_text()
    assert text.count(old) == 1, (path, old)
    path.write_text(text.replace(old, new))


@contextlib.contextmanager
def open_workshop() -> Iterator[Workshop]:
    """Start an engine with a way out and the Debian in it; skip where that is impossible."""
    if not shutil.which("docker"):
        pytest.skip("no docker command on PATH: run `make client`, which fetches one")
    for command, package in (("pasta", "passt"), ("nft", "nftables")):
        if not shutil.which(command):
            pytest.skip(f"{command} (package {package}) is not installed")
    tar = debian_tar("debian-apt")
    with contextlib.ExitStack() as stack:
        engine = EngineProcess()
        stack.enter_context(_way_out(engine))
        stack.callback(engine.close)
        _reach(engine, _mirror(tar))
        settings = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="pier-machine-")))
        write(settings, _machine())
        engine.start()
        change = [
            "--change",
            "ENV PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        ]
        engine.docker("import", *change, tar, BASE, timeout=180)
        yield Workshop(engine, settings)


@contextlib.contextmanager
def _way_out(engine: EngineProcess) -> Iterator[None]:
    """Put the engine in a network from which pasta carries what leaves it to the machine's."""
    closed = [word for option in ("-t", "-u", "-T", "-U") for word in (option, "none")]
    command = ["pasta", "-f", "--runas", "0", "--config-net", *closed, "--", "sleep", "infinity"]
    with tempfile.TemporaryFile("w+") as log:
        pasta = subprocess.Popen(command, stdout=log, stderr=log)
        try:
            wait_until(lambda: pasta.poll() is not None or _child(pasta.pid), "pasta has a network")
            if pasta.poll() is not None:
                log.seek(0)
                pytest.skip(f"pasta makes no way out of a network here: {log.read()[-500:]}")
            inside = ["nsenter", f"--net=/proc/{_child(pasta.pid)}/ns/net", "--"]
            subprocess.run([*inside, "nft", "-f", "-"], input=DROP_INVALID, text=True, check=True)
            engine.run_in(inside)
            yield
        finally:
            child = _child(pasta.pid)
            if child:
                os.kill(child, signal.SIGKILL)
            pasta.kill()
            pasta.wait()


def _child(pid: int) -> int:
    """The process that pasta has started in its network, 0 for none yet."""
    command = ["pgrep", "-P", str(pid), "-x", "sleep"]
    found = subprocess.run(command, capture_output=True, text=True, check=False).stdout.split()
    return int(found[0]) if found else 0


def _mirror(base: str) -> str:
    """A file of the first of the base's package sources."""
    with tarfile.open(base) as tar:
        file = tar.extractfile("./etc/apt/sources.list")
        assert file is not None
        text = file.read().decode()
    found = re.search(r"^deb (?:\[[^]]*\] )?(\S+) (\S+)", text, re.MULTILINE)
    assert found, text
    return f"{found[1].rstrip('/')}/dists/{found[2]}/InRelease"


def _reach(engine: EngineProcess, url: str) -> None:
    if urllib.parse.urlsplit(url).scheme not in ("http", "https"):
        pytest.skip("this machine's package sources are not for HTTP")
    command = [*engine.in_network, sys.executable, "-c", REACH, url]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        pytest.skip(f"no package source is reached from here: {done.stderr[-300:]}")


def _machine() -> dict[str, str]:
    """The machine's settings, as files for steps; which registries it has stands nowhere else."""
    bundles = (os.environ.get("SSL_CERT_FILE", ""), "/etc/ssl/certs/ca-certificates.crt")
    bundle = next((path for path in bundles if path and os.path.exists(path)), None)
    return {
        "apt": _apt(),
        "ca": Path(bundle).read_text() if bundle else "",
        "pip": _pip(),
        "npm": _npm(),
    }


def _apt() -> str:
    """What the machine's apt was told of fetching (dates, proxies, languages)."""
    done = subprocess.run(["apt-config", "dump"], capture_output=True, text=True, check=True)
    told = re.compile(r"Acquire::(Check-|https?::|Retries|Force|Languages|AllowInsecure|AllowWeak)")
    lines = [line for line in done.stdout.splitlines() if told.match(line)]
    return "\n".join([*lines, f'Acquire::https::CAInfo "{CA}";', ""])


def _pip() -> str:
    """pip's indexes; those in directories of the machine are not to be had in a build."""
    command = [sys.executable, "-m", "pip", "config", "list"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    settings: dict[str, str] = {}
    for line in done.stdout.splitlines():
        key, _, value = line.partition("=")
        settings.setdefault(key.rpartition(".")[2], value.strip("'\""))  # the environment's first
    lines = ["[global]", f"cert = {CA}", "disable-pip-version-check = true"]
    for name in ("index-url", "extra-index-url", "find-links", "trusted-host", "proxy"):
        words = settings.get(name, "").replace("\\n", " ").split()
        remote = [word for word in words if not word.startswith(("/", "file:"))]
        if remote:
            lines.append(f"{name} = {' '.join(remote)}")
    return "\n".join(lines) + "\n"


def _npm() -> str:
    """npm's registry, where the machine has an npm; without one, npm's own default."""
    lines = [f"cafile={CA}", "audit=false", "fund=false", "update-notifier=false"]
    if shutil.which("npm"):
        command = ["npm", "config", "ls", "-l", "--json"]
        settings = json.loads(subprocess.check_output(command))
        for name in ("registry", "proxy", "https-proxy", "noproxy", "strict-ssl"):
            value = settings.get(name)
            if value not in (None, "", [""], []):
                lines.append(f"{name}={json.dumps(value) if not isinstance(value, str) else value}")
    return "\n".join(lines) + "\n"
