"""Caches elsewhere: written by one build, read by another on an engine that has forgotten."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from export_builds import Built, Failed, Layout, build
from registry_servers import docker_registry

from engine_process import Client, EngineProcess

PORT = 5081


@pytest.fixture
def files(image: str) -> dict[str, str]:
    return {
        "Dockerfile": (
            f"FROM {image} AS first\nRUN echo first > /first\n"
            f"FROM {image}\nARG A=1\nENV B=2\nRUN echo made $A > /a\nCOPY f /f\n"
            'COPY --from=first /first /\nCMD ["cat", "/first"]\n'
        ),
        "f": "content\n",
    }


@pytest.fixture(autouse=True)
def _clean(engine: EngineProcess) -> Iterator[None]:
    yield
    forget(engine)


def forget(engine: EngineProcess) -> None:
    """Remove everything that builds have left."""
    engine.calls.remove_built("made/")
    assert all(image["RepoTags"] for image in engine.calls.images(all="1"))


def cached(built: Built) -> int:
    return built.text.count(" ---> Using cache")


def steps(docker: Client, engine: EngineProcess, files: dict[str, str], **query: str) -> Built:
    return build(engine, files, [{"type": "image", "name": "made/cached"}], **query)


@pytest.mark.parametrize(("mode", "taken"), [("max", 7), ("min", 6)])
def test_directory(
    engine: EngineProcess,
    docker: Client,
    files: dict[str, str],
    tmp_path: Path,
    mode: str,
    taken: int,
) -> None:
    place = str(tmp_path / "cache")
    entry = f"type=local,dest={place},mode={mode}"
    first = steps(docker, engine, files, cacheto=json.dumps([entry]))
    assert cached(first) == 0
    identity = docker("inspect", "-f", "{{.Id}}", "made/cached").stdout
    forget(engine)
    source = json.dumps([f"type=local,src={place}"])
    again = steps(docker, engine, files, cachefrom=source)
    assert cached(again) == taken
    assert docker("run", "--rm", "made/cached").stdout == "first\n"
    if mode == "max":
        assert docker("inspect", "-f", "{{.Id}}", "made/cached").stdout == identity
    forget(engine)
    files["f"] = "changed\n"
    changed = steps(docker, engine, files, cachefrom=source)
    # The stage `first` in its cache, and what comes before the COPY.
    assert cached(changed) == (4 if mode == "max" else 3)


def test_layout_is_buildkits(
    engine: EngineProcess, docker: Client, files: dict[str, str], tmp_path: Path
) -> None:
    place = tmp_path / "cache"
    steps(docker, engine, files, cacheto=json.dumps([f"type=local,dest={place},tag=t"]))
    index = json.loads((place / "index.json").read_text())
    (top,) = index["manifests"]
    assert top["annotations"] == {"org.opencontainers.image.ref.name": "t"}

    def blob(descriptor: dict[str, str]) -> bytes:
        return (place / "blobs" / descriptor["digest"].replace(":", "/")).read_bytes()

    manifest = json.loads(blob(top))
    assert manifest["mediaType"] == "application/vnd.oci.image.manifest.v1+json"
    assert manifest["config"]["mediaType"] == "application/vnd.buildkit.cacheconfig.v0"
    config = json.loads(blob(manifest["config"]))
    blobs = {layer["digest"] for layer in manifest["layers"]}
    assert {layer["blob"] for layer in config["layers"]} == blobs
    for layer in manifest["layers"]:
        assert layer["annotations"]["containerd.io/uncompressed"].startswith("sha256:")
        assert len(blob(layer)) == layer["size"]
    for record in config["records"]:
        assert record["digest"].startswith("sha256:")
        for result in record.get("layers", []):
            assert result.get("layer", 0) < len(config["layers"])


def test_registry_and_inline(engine: EngineProcess, docker: Client, files: dict[str, str]) -> None:
    with docker_registry(engine, PORT) as registry:
        ref = f"{registry}/made/cache:1"
        steps(docker, engine, files, cacheto=json.dumps([f"type=registry,ref={ref},mode=max"]))
        forget(engine)
        again = steps(docker, engine, files, cachefrom=json.dumps([f"type=registry,ref={ref}"]))
        assert cached(again) == 7
        forget(engine)
        name = f"{registry}/made/inline:1"
        order = {"type": "image", "name": name, "push": "true"}
        build(engine, files, [order], buildargs='{"BUILDKIT_INLINE_CACHE": "1"}')
        assert docker("run", "--rm", name).stdout == "first\n"
        forget(engine)
        source = json.dumps([f"type=registry,ref={name}"])
        again = steps(docker, engine, files, cachefrom=source)
        assert cached(again) == 6  # the other stage is not in the image
        forget(engine)
        # An image that says nothing of a cache, but whose history begins with the same words.
        plain = f"{registry}/made/plain:1"
        build(engine, files, [{"type": "image", "name": plain, "push": "true"}])
        forget(engine)
        again = steps(docker, engine, files, cachefrom=json.dumps([f"type=registry,ref={plain}"]))
        assert cached(again) == 6
        missing = json.dumps([f"type=registry,ref={registry}/made/none:1"])
        lost = steps(docker, engine, files, cachefrom=missing, nocache="1")
        assert f"importing cache manifest from {registry}/made/none:1: " in lost.text
        assert cached(lost) == 0


def test_refused(engine: EngineProcess, docker: Client, files: dict[str, str]) -> None:
    for query, message in (
        ({"cacheto": '["type=s3,bucket=b"]'}, 'unknown cache exporter: "s3"'),
        ({"cachefrom": '["type=gha"]'}, 'unknown cache importer: "gha"'),
        ({"cacheto": '["type=registry"]'}, "ref not set for registry cache"),
        ({"cacheto": '["type=local,dest=/x,mode=most"]'}, "invalid cache export mode: most"),
        ({"cacheto": '["type=local,dest=relative"]'}, "must be absolute"),
    ):
        with pytest.raises(Failed, match=message):
            steps(docker, engine, files, **query)


def test_inline_document(engine: EngineProcess, files: dict[str, str]) -> None:
    built = build(engine, files, [{"type": "oci"}], cacheto='["type=inline"]')
    layout = Layout(built.files[0])
    config = layout.json(layout.json(layout.top)["config"])
    assert "moby.buildkit.cache.v0" in config


def test_pier_build(
    engine: EngineProcess, docker: Client, files: dict[str, str], tmp_path: Path
) -> None:
    context = tmp_path / "context"
    context.mkdir()
    for name, content in files.items():
        (context / name).write_text(content)
    cache = f"{tmp_path}/../{tmp_path.name}/cache"
    words = ("build", "--network", "none", "--progress", "plain", "-t", "made/pier")
    engine.pier(*words, "--cache-to", f"type=local,dest={cache},mode=max", str(context))
    identity = docker("inspect", "-f", "{{.Id}}", "made/pier").stdout
    forget(engine)
    engine.pier(*words, "--cache-from", f"type=local,src={cache}", str(context))
    assert docker("inspect", "-f", "{{.Id}}", "made/pier").stdout == identity
