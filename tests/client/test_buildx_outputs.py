"""Outputs, attestations, platforms and caches with the genuine docker-buildx."""

import json
import subprocess
import tarfile
from pathlib import Path
from typing import Any

import pytest
from export_builds import Layout, inspected
from registry_servers import docker_registry
from test_docker_buildx import Context, buildx, context, plugins, steps

from engine_process import Client, EngineProcess

__all__ = ["buildx", "context", "plugins"]

PORT = 5091
TEXT = 'FROM BASE\nARG A=1\nRUN echo $A > /a\nCOPY f /d/f\nCMD ["cat", "/a"]\n'


@pytest.fixture
def filled(context: Context) -> Context:
    context.file("f", "content\n")
    return context


def predicate(layout: Layout) -> Any:
    attestation = layout.json(layout.top)["manifests"][-1]
    (layer,) = layout.json(attestation)["layers"]
    return layout.json(layer)["predicate"]


def test_archives(filled: Context, docker: Client, tmp_path: Path) -> None:
    archive = tmp_path / "oci.tar"
    metadata = tmp_path / "metadata"
    filled.build(
        *(TEXT, "-o", f"type=oci,dest={archive}", "-t", "made/x:1", "--provenance=mode=max"),
        *("--metadata-file", str(metadata), "--build-arg", "A=2"),
    )
    layout = Layout(archive.read_bytes())
    assert layout.top["digest"] == json.loads(metadata.read_text())["containerimage.digest"]
    said = predicate(layout)
    assert said["invocation"]["parameters"]["args"]["build-arg:A"] == "2"
    assert said["invocation"]["parameters"]["locals"] == [
        *({"name": "context"}, {"name": "dockerfile"})
    ]
    # What buildx asks for when nobody did is not for archives.
    filled.build(TEXT, "-o", f"type=oci,dest={archive}")
    assert Layout(archive.read_bytes()).top["mediaType"].endswith("manifest.v1+json")
    place = tmp_path / "layout"
    filled.build(TEXT, "-o", f"type=oci,dest={place},tar=false", "-t", "made/dir:1")
    (top,) = json.loads((place / "index.json").read_text())["manifests"]
    assert top["annotations"]["org.opencontainers.image.ref.name"] == "1"
    manifest = json.loads((place / "blobs" / top["digest"].replace(":", "/")).read_text())
    for part in (manifest["config"], *manifest["layers"]):
        found = place / "blobs" / part["digest"].replace(":", "/")
        assert found.stat().st_size == part["size"]
    docker_tar = tmp_path / "docker.tar"
    filled.build(TEXT, "-o", f"type=docker,dest={docker_tar}", "-t", "made/docker:1")
    docker("load", "-i", str(docker_tar))
    assert docker("run", "--rm", "made/docker:1").stdout == "1\n"


def test_files(filled: Context, tmp_path: Path) -> None:
    place = tmp_path / "out"
    filled.build(TEXT, "-o", f"type=local,dest={place}", "--sbom=true")
    assert (place / "d" / "f").read_text() == "content\n"
    assert json.loads((place / "sbom.spdx.json").read_text())["predicate"]["spdxVersion"]
    scratch = tmp_path / "scratch"
    filled.build("FROM scratch\nCOPY f /only\n", "-o", str(scratch))
    assert [path.name for path in scratch.iterdir()] == ["only"]
    archive = tmp_path / "files.tar"
    filled.build(TEXT, "-o", f"type=tar,dest={archive}")
    with tarfile.open(archive) as tar:
        assert tar.getmember("d/f").size == len("content\n")


def test_several_platforms(
    engine: EngineProcess, filled: Context, docker: Client, tmp_path: Path
) -> None:
    text = "FROM scratch\nARG TARGETARCH\nENV WHERE=$TARGETARCH\nCOPY f /f\n"
    place = tmp_path / "out"
    platforms = "linux/amd64,linux/arm64"
    filled.build(text, "--platform", platforms, "-o", str(place))
    assert sorted(path.name for path in place.iterdir()) == ["linux_amd64", "linux_arm64"]
    with docker_registry(engine, PORT) as registry:
        name = f"{registry}/made/several:1"
        filled.build(text, "--platform", platforms, "--push", "-t", name)
        told = subprocess.run(
            [
                *(*engine.in_network, filled.buildx.command),
                *("buildx", "imagetools", "inspect", "--raw", name),
            ],
            env=filled.buildx.env,
            capture_output=True,
            check=True,
        )
        entries = json.loads(told.stdout)["manifests"]
        kinds = [entry["platform"]["architecture"] for entry in entries]
        assert kinds == ["amd64", "arm64", "unknown", "unknown"]
    assert (
        docker(
            *("image", "inspect", "--platform", "linux/arm64", "-f", "{{.Architecture}}", name)
        ).stdout
        == "arm64\n"
    )
    docker("rmi", "-f", name)


def test_caches(engine: EngineProcess, filled: Context, docker: Client, tmp_path: Path) -> None:
    cache = tmp_path / "cache"

    def forget() -> None:
        docker("builder", "prune", "-af")
        if left := docker("images", "-aq", "--filter", "dangling=true").stdout.split():
            docker("rmi", "-f", *left, check=False)

    run = "[2/3] RUN echo 1 > /a"
    done = filled.build(TEXT, "--cache-to", f"type=local,dest={cache},mode=max")
    assert steps(done.stderr)[run] == "DONE"
    (top,) = json.loads((cache / "index.json").read_text())["manifests"]
    assert (cache / "blobs" / top["digest"].replace(":", "/")).exists()
    forget()
    again = filled.build(TEXT, "--cache-from", f"type=local,src={cache}")
    assert steps(again.stderr)[run] == "CACHED"
    with docker_registry(engine, PORT + 1) as registry:
        # What is pushed carries the provenance that buildx asks for when nobody did.
        pushed = f"{registry}/made/pushed:1"
        filled.build(TEXT, "--push", "-t", pushed)
        assert len(inspected(engine, pushed)["manifests"]) == 2
        docker("rmi", "-f", pushed)
        ref = f"{registry}/made/cache:1"
        filled.build(TEXT, "--cache-to", f"type=registry,ref={ref}")
        forget()
        again = filled.build(TEXT, "--cache-from", ref)
        assert steps(again.stderr)[run] == "CACHED"
