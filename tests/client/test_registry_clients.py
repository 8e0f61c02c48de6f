"""The embedded registry with other people's clients, found below PIER_PEERS_ROOT or on PATH."""

import json
import subprocess
import sysconfig
from collections.abc import Iterator
from pathlib import Path

import pytest
from peers import podman as podman_words
from peers import run

from busybox_image import docker_archive, root_tar
from registry_process import RegistryProcess, digest_of


@pytest.fixture(scope="module")
def registry() -> Iterator[RegistryProcess]:
    with RegistryProcess() as process:
        yield process


@pytest.fixture
def shared(tmp_path: Path) -> Path:
    """A directory that clients see under the same path, wherever they run."""
    return tmp_path


@pytest.fixture
def archive(shared: Path) -> str:
    """A docker-archive of two layers in the shared directory."""
    (shared / "image.tar").write_bytes(docker_archive("made/app:v1", [root_tar()]))
    return "image.tar"


def test_skopeo(registry: RegistryProcess, shared: Path, archive: str) -> None:
    target = f"docker://{registry.address}/skopeo/app:v1"
    plain = ("--dest-tls-verify=false", "--src-tls-verify=false")
    run(
        "skopeo", "--insecure-policy", "copy", plain[0], f"docker-archive:{archive}", target,
        directory=shared,
    )  # fmt: skip
    seen = json.loads(run("skopeo", "inspect", "--tls-verify=false", target, directory=shared))
    assert seen["Digest"] == digest_of(registry.get("/v2/skopeo/app/manifests/v1").body)
    assert seen["RepoTags"] == ["v1"]
    again = f"docker://{registry.address}/skopeo/copy:v2"
    run("skopeo", "--insecure-policy", "copy", *plain, target, again, directory=shared)
    run("skopeo", "--insecure-policy", "copy", plain[1], again, "oci:layout:v2", directory=shared)
    assert (shared / "layout" / "oci-layout").exists()
    run("skopeo", "delete", "--tls-verify=false", again, directory=shared)
    assert registry.get("/v2/skopeo/copy/manifests/v2").status == 404


def test_crane(registry: RegistryProcess, shared: Path, archive: str) -> None:
    app = f"{registry.address}/crane/app"
    run("crane", "push", "--insecure", archive, f"{app}:v1", directory=shared)
    run("crane", "tag", "--insecure", f"{app}:v1", "v2", directory=shared)
    assert run("crane", "ls", "--insecure", app, directory=shared).split() == ["v1", "v2"]
    run("crane", "copy", "--insecure", f"{app}:v2", f"{app}2:v3", directory=shared)
    assert "crane/app2" in run("crane", "catalog", "--insecure", registry.address, directory=shared)
    run("crane", "validate", "--insecure", "--remote", f"{app}2:v3", directory=shared)
    run("crane", "pull", "--insecure", f"{app}2:v3", "out.tar", directory=shared)
    assert (shared / "out.tar").stat().st_size > 0


def test_oras(registry: RegistryProcess, shared: Path) -> None:
    name = f"{registry.address}/oras/thing:v1"
    (shared / "thing.txt").write_text("a thing")
    (shared / "sbom.json").write_text("{}")
    kinds = ("--artifact-type", "application/vnd.example.sbom")
    run("oras", "push", "--plain-http", name, "thing.txt", directory=shared)
    run("oras", "attach", "--plain-http", *kinds, name, "sbom.json", directory=shared)
    found = run(
        "oras", "discover", "--plain-http", "--format", "json", *kinds, name, directory=shared
    )
    assert "application/vnd.example.sbom" in found
    (shared / "thing.txt").unlink()
    run("oras", "pull", "--plain-http", name, directory=shared)
    assert (shared / "thing.txt").read_text() == "a thing"


def test_podman(registry: RegistryProcess, shared: Path, archive: str) -> None:
    podman = podman_words(shared)
    name = f"{registry.address}/podman/app:v1"
    run(*podman, "load", "-q", "-i", archive, directory=shared)
    run(*podman, "tag", "made/app:v1", name, directory=shared)
    run(*podman, "push", "-q", "--tls-verify=false", name, directory=shared)
    run(*podman, "rmi", "-af", directory=shared)
    run(*podman, "pull", "-q", "--tls-verify=false", name, directory=shared)
    assert name in run(*podman, "images", "--format={{.Repository}}:{{.Tag}}", directory=shared)


def test_skopeo_logs_in_over_tls(shared: Path, archive: str) -> None:
    """As a team has it: a certificate of its own authority, and users."""
    scripts = sysconfig.get_path("scripts")
    line = subprocess.run(
        [f"{scripts}/pier-registry", "htpasswd", "ann"],
        input="s3cret\n", capture_output=True, text=True, check=True,
    )  # fmt: skip
    (shared / "users").write_text(line.stdout)
    subprocess.run(
        "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 "
        "-subj /CN=registry -addext subjectAltName=IP:127.0.0.1 -keyout key.pem -out ca.crt",
        shell=True, cwd=shared, check=True, capture_output=True,
    )  # fmt: skip
    flags = ("--htpasswd", f"{shared}/users", "--tls-cert", f"{shared}/ca.crt")
    with RegistryProcess(*flags, "--tls-key", f"{shared}/key.pem") as registry:
        (shared / "certs").mkdir()
        (shared / "ca.crt").rename(shared / "certs" / "ca.crt")
        target = f"docker://{registry.address}/team/app:v1"
        copy = ("skopeo", "--insecure-policy", "copy", "--dest-cert-dir", "certs")
        with pytest.raises(AssertionError, match=r"authentication required|unauthorized"):
            run(*copy, f"docker-archive:{archive}", target, directory=shared)
        creds = ("--dest-creds", "ann:s3cret")
        run(*copy, *creds, f"docker-archive:{archive}", target, directory=shared)
        seen = run(
            "skopeo", "inspect", "--cert-dir", "certs", "--creds", "ann:s3cret", target,
            directory=shared,
        )  # fmt: skip
        assert json.loads(seen)["RepoTags"] == ["v1"]
