"""Registries that die, disks that fill up, addresses that are not trusted: with the real things.

The engine is one of this file's own, since settings and its disk are what is looked at.
"""

import json
import os
import re
import shutil
import signal
import subprocess
from collections.abc import Iterator

import pytest
from registry_servers import docker_registry_at, make_certificates, trusted

from busybox_image import docker_archive, layer_tar, root_tar
from engine_process import Client, EngineProcess, wait_until

PORT = 5095
ADDRESS = "203.0.113.7"  # of TEST-NET-3: on the namespace's loopback, and not a loopback address
SMALL, LARGE = layer_tar({"small": b"x" * 50_000}), layer_tar({"large": os.urandom(60_000_000)})


@pytest.fixture
def apart() -> Iterator[EngineProcess]:
    """An engine that was not started, with ADDRESS in its network."""
    engine = EngineProcess()
    try:
        add = ["ip", "address", "add", f"{ADDRESS}/32", "dev", "lo"]
        subprocess.run([*engine.in_network, *add], check=True, capture_output=True)
        yield engine
    finally:
        engine.close()


def load(docker: Client, name: str, *layers: bytes) -> None:
    docker.raw("load", stdin=docker_archive(name, [*layers]))


def image_ids(docker: Client) -> str:
    return docker("images", "-aq").stdout


def received(engine: EngineProcess) -> int:
    """How much of unfinished downloads is there, in bytes."""
    partial = f"{engine.data_root}/partial"
    return sum(os.stat(f"{partial}/{name}").st_size for name in os.listdir(partial))


def wait_until_kept(engine: EngineProcess) -> None:
    """Wait until what was compressed for a push is kept, which happens behind the client's back."""
    ingest = f"{engine.data_root}/ingest"
    wait_until(lambda: not os.listdir(ingest), "what was pushed has its place")


def test_a_registry_that_dies_half_way_of_a_pull(apart: EngineProcess):
    apart.start()
    docker, name = apart.docker, f"localhost:{PORT}/large:1"
    load(docker, name, SMALL, LARGE)
    with docker_registry_at(apart, PORT) as registry:
        docker("push", name)
        wait_until_kept(apart)
        docker("rmi", name)
        client = docker.popen("pull", name)
        wait_until(lambda: received(apart) > 1_000_000, "something was received")
        registry.send_signal(signal.SIGKILL)
        client.terminate()
        client.communicate(timeout=30)
    assert image_ids(docker) == ""
    have = received(apart)
    assert 0 < have < 60_000_000
    with docker_registry_at(apart, PORT):
        docker("pull", name)
    assert received(apart) == 0
    with open(f"{apart.directory}/server-{PORT}.log") as file:
        ranges = [line for line in file if "http.response.status=206" in line]
    sent = [int(found[1]) for line in ranges if (found := re.search(r"written=(\d+)", line))]
    assert sent
    assert 0 < min(sent) < 60_000_000


def test_a_registry_that_dies_half_way_of_a_push(apart: EngineProcess):
    apart.start()
    docker, name = apart.docker, f"localhost:{PORT}/large:1"
    load(docker, name, SMALL, LARGE)
    with docker_registry_at(apart, PORT) as registry:
        client = docker.popen("push", name)
        assert client.stdout is not None
        assert any(line.endswith(b": Pushed\n") for line in client.stdout), (
            "the small layer is there"
        )
        registry.send_signal(signal.SIGKILL)
        client.terminate()
        client.communicate(timeout=30)
    with docker_registry_at(apart, PORT):
        pushed = docker("push", name).stdout
        assert "Layer already exists" in pushed
        assert "1: digest: sha256:" in pushed
        before = docker("inspect", "-f", "{{.Id}}", name).stdout
        docker("rmi", name)
        docker("pull", name)
        assert docker("inspect", "-f", "{{.Id}}", name).stdout == before


def test_a_disk_that_is_full_during_a_pull(apart: EngineProcess):
    os.makedirs(apart.data_root)
    size = ["-o", "size=80m"]
    subprocess.run(["mount", "-t", "tmpfs", *size, "tmpfs", apart.data_root], check=True)
    try:
        apart.start()
        docker, large = apart.docker, f"localhost:{PORT}/large:1"
        with docker_registry_at(apart, PORT):
            source = EngineProcess()
            source.share_network(apart)
            try:
                source.start()
                for name, layers in ((large, (SMALL, LARGE)), (large[:-1] + "2", (SMALL,))):
                    load(source.docker, name, *layers)
                    source.docker("push", name)
            finally:
                source.close()
            done = docker("pull", large, check=False)
            assert done.returncode != 0
            assert "no space left on device" in done.stderr
            assert image_ids(docker) == ""
            assert received(apart) == 0
            for kind in ("layers", "blobs/sha256"):
                assert os.listdir(f"{apart.data_root}/{kind}") == []
            docker("pull", large[:-1] + "2")
        apart.stop()
    finally:
        subprocess.run(["umount", "--lazy", apart.data_root], check=True)


def test_certificates_that_are_not_trusted(apart: EngineProcess):
    tls, another = f"{apart.directory}/tls", f"{apart.directory}/another"
    make_certificates(tls, f"IP:{ADDRESS}")
    make_certificates(another, "IP:203.0.113.99")
    apart.start()
    docker, host = apart.docker, f"{ADDRESS}:{PORT}"
    load(docker, f"{host}/secure:1", SMALL)
    unknown = "tls: failed to verify certificate: x509: certificate signed by unknown authority"
    with docker_registry_at(apart, PORT, address=ADDRESS, tls=tls):
        assert unknown in docker("push", f"{host}/secure:1", check=False).stderr
        with trusted(host, {"ca.crt": f"{another}/ca.pem"}):
            apart.restart()
            assert unknown in docker("push", f"{host}/secure:1", check=False).stderr
        with trusted(host, {"ca.crt": f"{tls}/ca.pem"}):
            apart.restart()
            docker("push", f"{host}/secure:1")
            docker("rmi", f"{host}/secure:1")
            docker("pull", f"{host}/secure:1")
    host = f"{ADDRESS}:{PORT + 1}"
    docker("tag", f"{ADDRESS}:{PORT}/secure:1", f"{host}/secure:1")
    # The right CA, another server's name.
    with (
        docker_registry_at(apart, PORT + 1, address=ADDRESS, tls=another),
        trusted(host, {"ca.crt": f"{another}/ca.pem"}),
    ):
        refused = docker("push", f"{host}/secure:1", check=False).stderr
        assert "tls: failed to verify certificate: x509: certificate is not valid" in refused


def test_insecure_registries_by_network(apart: EngineProcess):
    apart.start()
    docker, name = apart.docker, f"{ADDRESS}:{PORT}/plain:1"
    load(docker, name, SMALL)
    with docker_registry_at(apart, PORT, address=ADDRESS):
        refused = docker("push", name, check=False).stderr
        assert "http: server gave HTTP response to HTTPS client" in refused
        apart.stop()
        apart.start("--insecure-registry", "203.0.113.0/24")
        docker("push", name)
        docker("rmi", name)
        docker("pull", name)


def test_mirrors(apart: EngineProcess):
    config = f"{apart.directory}/daemon.json"
    mirror = f"http://localhost:{PORT}"
    settings = {
        "registry-mirrors": ["http://localhost:1", mirror],
        "registries": {"far.invalid:5000": {"mirrors": [mirror]}},
    }
    with open(config, "w") as file:
        json.dump(settings, file)
    apart.start("--config-file", config)
    docker = apart.docker
    shown = docker("info", "--format", "{{json .RegistryConfig.Mirrors}}").stdout
    assert json.loads(shown) == ["http://localhost:1/", f"{mirror}/"]
    load(docker, f"localhost:{PORT}/library/thing:1", SMALL)
    docker("tag", f"localhost:{PORT}/library/thing:1", f"localhost:{PORT}/team/thing:1")
    with docker_registry_at(apart, PORT):
        for path in ("library", "team"):
            docker("push", f"localhost:{PORT}/{path}/thing:1")
            docker("rmi", f"localhost:{PORT}/{path}/thing:1")
        for name in ("thing:1", "far.invalid:5000/team/thing:1"):
            assert f"Downloaded newer image for {name}" in docker("pull", name).stdout
            assert docker("images", "-q", name).stdout
            docker("rmi", name)
        missing = docker("pull", "far.invalid:5000/team/nothing:1", check=False).stderr
        # What is told is of the registry itself.
        assert "far.invalid" in missing


def test_zstd_there_and_back(apart: EngineProcess):
    if not shutil.which("skopeo"):
        pytest.skip("skopeo is not installed")
    archive = f"{apart.directory}/image.tar"
    with open(archive, "wb") as file:
        file.write(docker_archive("made/z:1", [root_tar(), SMALL]))
    apart.start()
    docker, host = apart.docker, f"localhost:{PORT}"
    skopeo = [*apart.in_network, "skopeo", "--insecure-policy"]
    with docker_registry_at(apart, PORT):
        copy = ["copy", "--dest-tls-verify=false", "--dest-compress-format", "zstd", "-f", "oci"]
        source, target = f"docker-archive:{archive}", f"docker://{host}/z:1"
        subprocess.run([*skopeo, *copy, source, target], check=True, capture_output=True)
        docker("pull", f"{host}/z:1")
        ran = docker("run", "--rm", "--network", "none", f"{host}/z:1", "wc", "-c", "/small")
        assert ran.stdout == "50000 /small\n"
        docker("tag", f"{host}/z:1", f"{host}/other/z:1")
        docker("push", f"{host}/other/z:1")

        def manifest(name: str) -> bytes:
            raw = ["inspect", "--raw", "--tls-verify=false", f"docker://{host}/{name}"]
            return subprocess.run([*skopeo, *raw], check=True, capture_output=True).stdout

        assert manifest("other/z:1") == manifest("z:1")
        assert b"tar+zstd" in manifest("z:1")
