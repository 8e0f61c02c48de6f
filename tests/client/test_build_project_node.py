"""A Node application through buildx: `npm ci` with npm's cache in a cache mount."""

import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from projects import APT, BASE, Workshop, replace, steps, write

NPM = "npm@10.9.2"
NPM_CI = (
    "RUN --mount=type=cache,target=/root/.npm"
    " --mount=type=secret,id=npm,target=/root/.npmrc"
    " --mount=type=secret,id=ca"
    " npm ci --omit=dev"
)
# npm itself comes from its registry as it does in Node's own images: Debian's is four hundred packages.
DOCKERFILE = f"""\
FROM {BASE} AS node
{APT}nodejs
FROM node AS build
ADD --unpack npm.tgz /opt/
RUN ln -s /opt/package/bin/npm-cli.js /usr/local/bin/npm
WORKDIR /src
COPY package.json package-lock.json ./
{NPM_CI}
COPY server.js .
FROM node
COPY --from=build /src /srv
WORKDIR /srv
USER nobody
CMD ["node", "server.js"]
"""
SERVER = """
const ms = require("ms"), parse = require("yargs-parser");
require("http").createServer((request, response) => {
    response.end(`two days are ${ms("2 days")} ms, ${JSON.stringify(parse("--port 80"))}`);
}).listen(8080);
"""
DEPENDENCIES = {"ms": "2.1.3", "yargs-parser": "21.1.1"}
INTEGRITY = {
    "ms": "sha512-6FlzubTLZG3J2a/NVCAleEhjzq5oxgHyaCU9yYXvcLsvoVaHJq/s5xXI6/XXP6tz7R9xAOtHnSO/tXtF3WRTlA==",
    "yargs-parser": "sha512-tVpsJW7DdjecAiFpbIB1e3qxIQsE6NoPc5/eTdrbbIC4h0LVsWhnoa3g+m2HclBIujHzsxZ4VJVA+GUuc2/LBw==",
}


def lock() -> str:
    """A lock without the registry's address, as `omit-lockfile-registry-resolved` writes it."""
    package = {"name": "days", "version": "1.0.0"}
    packages: dict[str, object] = {"": {**package, "dependencies": DEPENDENCIES}}
    for name, version in DEPENDENCIES.items():
        packages[f"node_modules/{name}"] = {"version": version, "integrity": INTEGRITY[name]}
    return json.dumps({**package, "lockfileVersion": 3, "requires": True, "packages": packages})


@pytest.fixture
def project(workshop: Workshop, tmp_path: Path) -> Iterator[Path]:
    if not shutil.which("npm"):
        pytest.skip("npm is not installed: where its registry is cannot be asked")
    directory = tmp_path / "days"
    package = {"name": "days", "version": "1.0.0", "dependencies": DEPENDENCIES}
    files = {
        "Dockerfile": DOCKERFILE,
        "package.json": json.dumps(package),
        "package-lock.json": lock(),
        "server.js": SERVER,
    }
    write(directory, files)
    command = ["npm", "pack", NPM, "--pack-destination", str(directory)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        pytest.skip(f"npm's registry is not reached from here: {done.stderr[-300:]}")
    (packed,) = directory.glob("*.tgz")
    packed.rename(directory / "npm.tgz")
    yield directory
    workshop.close_project()


def test_buildx(workshop: Workshop, project: Path, tmp_path: Path) -> None:
    (tmp_path / "config").mkdir()
    buildx = workshop.plugins(tmp_path / "config")
    flags = [f"--secret=id={name},src={path}" for name, path in workshop.secrets.items()]

    def build() -> str:
        command = ("build", "--progress=plain", "-t", "days:1", *flags, str(project))
        return buildx(*command, timeout=150).stderr

    def ask() -> str:
        workshop.docker("run", "-d", "--name", "days", "-p", "127.0.0.1::8080", "days:1")
        said = workshop.get("days", 8080)
        workshop.docker("rm", "-f", "days")
        return said

    assert "added 2 packages" in build()
    assert ask() == 'two days are 172800000 ms, {"_":[],"port":80}'

    replace(project / "server.js", "two days are", "two days last")
    ended = steps(build())
    ran = {command for command, how in ended.items() if how == "DONE"}
    assert {"COPY server.js .", "COPY --from=build /src /srv", "WORKDIR /srv"} <= ran
    assert not any(command.startswith(("RUN", "ADD")) for command in ran)
    assert ask().startswith("two days last 172800000 ms")

    # The same packages with no registry to ask: they can only come out of the cache mount.
    replace(project / "Dockerfile", "npm ci --omit=dev", "npm ci --omit=dev --offline")
    assert "added 2 packages" in build()
    assert ask().startswith("two days last")
