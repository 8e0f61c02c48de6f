"""Pull, push and login with real clients against Debian's docker-registry."""

import gzip
import hashlib
import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import docker as docker_py
import pytest
from registry_servers import docker_registry, make_certificates, trusted

from busybox_image import docker_archive, layer_tar, oci_layout, root_tar
from engine_process import Client, EngineProcess, wait_until

OPEN, CLOSED, SECURE, HELPED, CHANGED = 5081, 5082, 5083, 5084, 5086


@pytest.fixture(scope="module")
def registry(engine: EngineProcess) -> Iterator[str]:
    with docker_registry(engine, OPEN) as address:
        yield address


@pytest.fixture(scope="module")
def app(engine: EngineProcess) -> str:
    """A local image of three layers, one of them the same as busybox's."""
    layers = [root_tar(), layer_tar({"a": b"a" * 500_000}), layer_tar({"b": b"b"})]
    engine.docker.raw("load", stdin=docker_archive("pier-test/app:1", layers))
    return "pier-test/app:1"


def image_id(docker: Client, name: str) -> str:
    return docker("inspect", "-f", "{{.Id}}", name).stdout.strip()


def test_push_and_pull(docker: Client, registry: str, app: str):
    name = f"{registry}/some/app:1"
    docker("tag", app, name)
    before = image_id(docker, name)
    pushed = docker("push", name).stdout
    assert f"The push refers to repository [{registry}/some/app]" in pushed
    assert pushed.count(": Preparing") == 3
    assert pushed.count(": Pushed") == 3
    digest = next(line for line in pushed.splitlines() if "digest: " in line).split()[2]
    assert pushed.splitlines()[-1].startswith(f"1: digest: {digest} size: ")
    assert docker("push", name).stdout.count(": Layer already exists") == 3
    docker("tag", app, f"{registry}/other/app:2")
    mounted = docker("push", f"{registry}/other/app:2").stdout
    assert mounted.count(": Mounted from some/app") == 3
    docker("rmi", "-f", before)

    pulled = docker("pull", name).stdout
    assert pulled.startswith("1: Pulling from some/app\n")
    # The base's layer may be there: other images, and the builder's cache, stand on it.
    assert pulled.count(": Pull complete") >= 2
    assert pulled.count(": Pull complete") + pulled.count(": Already exists") == 3
    assert f"Digest: {digest}\nStatus: Downloaded newer image for {name}\n{name}\n" in pulled
    assert f"Status: Image is up to date for {name}" in docker("pull", name).stdout
    assert image_id(docker, name) == before
    by_digest = docker("pull", f"{registry}/some/app@{digest}").stdout
    assert f"Digest: {digest}" in by_digest
    out = docker("run", "--rm", "--network", "none", name, "wc", "-c", "/a").stdout
    assert out == "500000 /a\n"
    # What was pulled goes out byte for byte.
    docker("tag", name, f"{registry}/third/app:3")
    assert f"3: digest: {digest} size:" in docker("push", f"{registry}/third/app:3").stdout
    docker("rmi", "-f", before)
    docker("pull", f"{registry}/some/app@{digest}")
    untagged = docker("images", "--digests", "--filter", "dangling=true").stdout.split()
    assert digest in untagged
    docker("rmi", "-f", before)


def test_what_a_push_compressed_is_kept(docker: Client, engine: EngineProcess, registry: str):
    """A plain tar has no file; what went out of it has, and the next registry gets the same bytes."""
    layer = layer_tar({"c": b"kept" * 100_000})
    plain = hashlib.sha256(layer).hexdigest()
    docker.raw("load", stdin=docker_archive("pier-test/kept:1", [layer]))
    blobs = Path(engine.data_root, "blobs", "sha256")
    assert not (blobs / plain).exists()
    there = {path.name for path in blobs.iterdir()}
    before = image_id(docker, "pier-test/kept:1")
    names = [f"{registry}/kept/one:1", f"{registry}/kept/two:1"]
    for name in names:
        docker("tag", "pier-test/kept:1", name)
    first = docker("push", names[0]).stdout
    wait_until(lambda: {path.name for path in blobs.iterdir()} > there, "it is kept")
    (kept,) = {path.name for path in blobs.iterdir()} - there
    assert gzip.decompress((blobs / kept).read_bytes()) == layer
    assert first.splitlines()[-1] == docker("push", names[1]).stdout.splitlines()[-1]
    saved = docker.raw("save", "pier-test/kept:1").stdout
    for name in (*names, "pier-test/kept:1"):
        docker("rmi", name)
    docker.raw("load", stdin=saved)
    assert image_id(docker, "pier-test/kept:1") == before
    assert image_id(docker, docker("pull", "-q", names[1]).stdout.strip()) == before
    docker("rmi", "-f", before)


def test_a_damaged_layer_is_not_pushed(docker: Client, engine: EngineProcess, registry: str):
    layer = layer_tar({"hurt": b"2" * 100_000})
    name = f"{registry}/hurt/app:1"
    docker.raw("load", stdin=docker_archive(name, [layer]))
    chain = hashlib.sha256(layer).hexdigest()
    Path(engine.data_root, "layers", chain, "diff", "hurt").write_bytes(b"3" * 100_000)
    done = docker("push", name, check=False)
    assert done.returncode != 0
    assert (
        f"content sha256:{chain} cannot be assembled: hurt of its layer was changed" in done.stderr
    )
    assert docker("pull", name, check=False).returncode != 0
    docker("rmi", name)


def test_all_tags(docker: Client, registry: str, image: str):
    for tag in ("x", "y"):
        docker("tag", image, f"{registry}/tags:{tag}")
    pushed = docker("push", "--all-tags", f"{registry}/tags").stdout
    assert "x: digest: " in pushed
    assert "y: digest: " in pushed
    docker("rmi", f"{registry}/tags:x", f"{registry}/tags:y")
    pulled = docker("pull", "--all-tags", f"{registry}/tags").stdout
    assert "x: Pulling from tags" in pulled
    assert "y: Pulling from tags" in pulled
    docker("rmi", f"{registry}/tags:x", f"{registry}/tags:y")


def test_pull_of_nothing(docker: Client, registry: str, image: str):
    docker("tag", image, f"{registry}/there:1")
    docker("push", f"{registry}/there:1")
    docker("rmi", f"{registry}/there:1")
    for name in ("there:2", "none:2"):
        done = docker("pull", f"{registry}/{name}", check=False)
        assert done.returncode == 1
        words = f"manifest for {registry}/{name} not found: manifest unknown: manifest unknown"
        assert words in done.stderr
    done = docker("pull", "--all-tags", f"{registry}/none", check=False)
    words = f"repository {registry}/none not found: name unknown: repository name not known"
    assert words in done.stderr


def test_push_of_nothing(docker: Client, registry: str):
    done = docker("push", f"{registry}/none:v1", check=False)
    assert f"An image does not exist locally with the tag: {registry}/none" in done.stderr


def test_nobody_listens(docker: Client):
    done = docker("pull", "localhost:5999/x:1", check=False)
    assert 'Get "http://localhost:5999/v2/": dial tcp ' in done.stderr
    assert ":5999: connect: connection refused" in done.stderr


def test_login(docker: Client, engine: EngineProcess, image: str):
    with docker_registry(engine, CLOSED, users=True) as closed:
        name = f"{closed}/private/image:1"
        docker("tag", image, name)
        refused = docker("push", name, check=False)
        assert "no basic auth credentials" in refused.stderr
        wrong = docker("login", "-u", "alice", "--password-stdin", closed, stdin="x", check=False)
        assert "failed with status: 401 Unauthorized" in wrong.stderr
        for client in (docker, engine.pier):
            done = client("login", "-u", "alice", "--password-stdin", closed, stdin="secret\n")
            assert "Login Succeeded" in done.stdout
            client("push", name)
            docker("rmi", name)
            client("pull", name)
            client("logout", closed)
        docker("rmi", name)
        missing = engine.pier("pull", name, check=False)
        assert (
            f'Head "http://{closed}/v2/private/image/manifests/1": no basic auth' in missing.stderr
        )


HELPER = """#!/bin/sh
# What docker-credential-helpers' programs do, for one server and into a file.
store=$(dirname "$0")/stored
case $1 in
store) cat > "$store" ;;
erase) rm -f "$store" ;;
get) cat "$store" 2> /dev/null || { echo credentials not found in native keychain; exit 1; } ;;
list) echo {} ;;
esac
"""


@pytest.mark.parametrize("command", ["docker", "pier"])
def test_credential_helper(engine: EngineProcess, image: str, tmp_path: Path, command: str):
    helper = tmp_path / "docker-credential-piertest"
    helper.write_text(HELPER)
    helper.chmod(0o755)
    config = tmp_path / "config.json"
    config.write_text('{"credsStore": "piertest"}')
    plain = engine.docker if command == "docker" else engine.pier
    path = f"{tmp_path}:{plain.env['PATH']}"
    client = Client(plain.command, {**plain.env, "DOCKER_CONFIG": str(tmp_path), "PATH": path})
    with docker_registry(engine, HELPED + (command == "pier"), users=True) as closed:
        name = f"{closed}/private/image:1"
        client("tag", image, name)
        client("login", "-u", "alice", "--password-stdin", closed, stdin="secret\n")
        assert json.loads((tmp_path / "stored").read_text())["Secret"] == "secret"
        assert "secret" not in config.read_text()
        assert "YWxpY2U" not in config.read_text()  # alice, in base64
        client("push", name)
        client("rmi", name)
        client("pull", name)
        client("rmi", name)
        client("logout", closed)
        assert not (tmp_path / "stored").exists()


def test_login_where_everybody_was_welcome(engine: EngineProcess, docker: Client):
    """A minute ago: what is remembered of a registry is asked again."""
    with docker_registry(engine, CHANGED) as registry:
        assert "not found" in docker("pull", f"{registry}/missing", check=False).stderr
    with docker_registry(engine, CHANGED, users=True) as registry:
        docker("login", "-u", "alice", "--password-stdin", registry, stdin="secret\n")
        docker("logout", registry)
        refused = docker("pull", f"{registry}/missing", check=False).stderr
        assert "no basic auth credentials" in refused
    with docker_registry(engine, CHANGED) as registry:
        assert "not found" in docker("pull", f"{registry}/missing", check=False).stderr


def test_tls_with_certs_d(engine: EngineProcess, docker: Client, image: str):
    """A registry that wants a client's certificate, and whose own is nobody's but certs.d's."""
    directory = os.path.join(engine.directory, "tls")
    make_certificates(directory)
    with docker_registry(engine, SECURE, tls=directory):
        # A name that is on no loopback network as far as the settings go must verify; here all are
        # loopback, so what is seen is that the client's certificate is asked for and shown.
        name = f"localhost:{SECURE}/secure:1"
        docker("tag", image, name)
        refused = docker("push", name, check=False)
        assert refused.returncode == 1
        files = {"ca.crt": "ca.pem", "client.cert": "client.pem", "client.key": "client.key"}
        there = {name: f"{directory}/{source}" for name, source in files.items()}
        with trusted(f"localhost:{SECURE}", there):
            engine.stop()
            engine.start()
            docker("push", name)
            docker("rmi", name)
            docker("pull", name)
            docker("rmi", name)


def test_docker_py(engine: EngineProcess, registry: str, image: str):
    client = docker_py.DockerClient(base_url=engine.host)
    try:
        client.images.get(image).tag(f"{registry}/py/image", "1")
        lines = list(client.images.push(f"{registry}/py/image", tag="1", stream=True, decode=True))
        assert any(line.get("aux", {}).get("Tag") == "1" for line in lines)
        assert not any("error" in line for line in lines)
        data = client.images.get_registry_data(f"{registry}/py/image:1")
        assert data.has_platform("linux/" + client.version()["Arch"])
        client.images.remove(f"{registry}/py/image:1")
        assert client.images.pull(f"{registry}/py/image", tag="1").tags
        client.images.remove(f"{registry}/py/image:1")
    finally:
        client.close()


def test_skopeo_sees_what_was_pushed(engine: EngineProcess, docker: Client, registry: str):
    """An OCI image that was loaded goes to the registry as it came, and skopeo reads it."""
    if not shutil.which("skopeo"):
        pytest.skip("skopeo is not installed")
    docker.raw("load", stdin=oci_layout("oci:1", [root_tar(), layer_tar({"c": b"c"})]))
    docker("tag", "oci:1", f"{registry}/oci:1")
    docker("push", f"{registry}/oci:1")
    raw = subprocess.run(
        [
            *(*engine.in_network, "skopeo", "inspect", "--raw", "--tls-verify=false"),
            f"docker://{registry}/oci:1",
        ],
        capture_output=True,
        check=True,
    ).stdout
    manifest = json.loads(raw)
    assert manifest["mediaType"] == "application/vnd.oci.image.manifest.v1+json"
    assert manifest["config"]["digest"] == image_id(docker, "oci:1")
    docker("rmi", "oci:1", f"{registry}/oci:1")


def test_events(engine: EngineProcess, docker: Client, registry: str, image: str):
    name = f"{registry}/events:1"
    docker("tag", image, name)
    since = docker("run", "--rm", "--network", "none", image, "date", "+%s").stdout.strip()
    docker("push", name)
    docker("pull", name)
    span = ("--since", since, "--until", f"{time.time():.6f}")
    seen = docker("events", *span, "--format", "{{.Action}} {{.Actor.ID}}").stdout
    assert f"push {name}" in seen
    assert f"pull {name}" in seen
    docker("rmi", name)
