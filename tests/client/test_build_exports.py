"""Outputs of builds: images, archives, files, with attestations, in every compression."""

import contextlib
import gzip
import io
import json
import os
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from export_builds import Built, Connection, Failed, Layout, begin, build, inspected
from git_server import serve_repository
from registry_servers import docker_registry

from engine_process import Client, EngineProcess, wait_until
from registry_process import RegistryProcess

PORT = 5071
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar"


@pytest.fixture(autouse=True)
def _clean(engine: EngineProcess) -> Iterator[None]:
    yield
    engine.calls.remove_built("made/")


@pytest.fixture
def files(image: str) -> dict[str, str]:
    return {
        "Dockerfile": f'FROM {image}\nARG A=1\nRUN echo $A > /a && ln -s a /link\nCOPY f /d/f\nCMD ["cat", "/a"]\n',
        "f": "content\n",
    }


def test_oci_archive_as_buildx_lays_it_out(
    engine: EngineProcess, docker: Client, files: dict[str, str]
) -> None:
    built = build(
        *(engine, files, [{"type": "oci", "name": "localhost:5000/made/y:1"}]),
        buildargs='{"A": "2"}',
        provenance="mode=max",
    )
    layout = Layout(built.files[0])
    assert json.loads(layout.members["oci-layout"]) == {"imageLayoutVersion": "1.0.0"}
    assert layout.top["mediaType"] == INDEX
    said = layout.top["annotations"]
    assert said["io.containerd.image.name"] == "localhost:5000/made/y:1"
    assert said["org.opencontainers.image.ref.name"] == "1"
    assert built.answers[0]["containerimage.digest"] == layout.top["digest"]
    image, attestation = layout.json(layout.top)["manifests"]
    assert image["platform"]["os"] == "linux"
    assert attestation == {
        "mediaType": MANIFEST,
        "digest": attestation["digest"],
        "size": attestation["size"],
        "annotations": {
            "vnd.docker.reference.digest": image["digest"],
            "vnd.docker.reference.type": "attestation-manifest",
        },
        "platform": {"architecture": "unknown", "os": "unknown"},
    }
    manifest = layout.json(image)
    assert {layer["mediaType"] for layer in manifest["layers"]} == {LAYER + "+gzip"}
    assert b"2\n" in gzip.decompress(layout.blob(manifest["layers"][-2]))
    carried = layout.json(attestation)
    (layer,) = carried["layers"]
    assert layer["mediaType"] == "application/vnd.in-toto+json"
    kind = "https://slsa.dev/provenance/v0.2"
    assert layer["annotations"] == {"in-toto.io/predicate-type": kind}
    assert layout.json(carried["config"]) == {
        "architecture": "unknown",
        "os": "unknown",
        "config": {},
        "rootfs": {"type": "layers", "diff_ids": [layer["digest"]]},
    }
    statement = layout.json(layer)
    platform = image["platform"]["architecture"]
    assert statement["_type"] == "https://in-toto.io/Statement/v0.1"
    assert statement["predicateType"] == kind
    assert statement["subject"] == [
        {
            "name": f"pkg:docker/localhost:5000/made/y@1?platform=linux%2F{platform}",
            "digest": {"sha256": image["digest"].removeprefix("sha256:")},
        }
    ]
    predicate = statement["predicate"]
    assert predicate["invocation"]["parameters"]["args"]["build-arg:A"] == "2"
    assert predicate["invocation"]["configSource"] == {"entryPoint": "Dockerfile"}
    (material,) = predicate["materials"]
    assert material["uri"].startswith("pkg:docker/")
    assert [step["name"] for step in predicate["buildConfig"]["steps"]][1].startswith("RUN echo")
    docker.raw("load", stdin=built.files[0])
    assert docker("run", "--rm", "localhost:5000/made/y:1").stdout == "2\n"


def test_min_provenance_keeps_arguments_to_itself(
    engine: EngineProcess, files: dict[str, str]
) -> None:
    built = build(
        *(engine, files, [{"type": "oci"}]),
        buildargs='{"A": "private"}',
        provenance="mode=min,version=v1",
    )
    layout = Layout(built.files[0])
    attestation = layout.json(layout.top)["manifests"][1]
    (layer,) = layout.json(attestation)["layers"]
    data = layout.blob(layer)
    assert b"private" not in data
    statement = json.loads(data)
    assert statement["predicateType"] == "https://slsa.dev/provenance/v1"
    definition = statement["predicate"]["buildDefinition"]
    assert definition["externalParameters"]["configSource"] == {"path": "Dockerfile"}
    assert "buildConfig" not in definition["internalParameters"]
    with pytest.raises(Failed, match='invalid mode "much"'):
        build(engine, files, [{"type": "oci"}], provenance="mode=much")


def test_sbom_of_databases_inside(engine: EngineProcess, files: dict[str, str]) -> None:
    files["Dockerfile"] += (
        "COPY status /var/lib/dpkg/status\nCOPY os-release /etc/os-release\n"
        "COPY m /usr/lib/python3/dist-packages/My_Thing-2.dist-info/METADATA\n"
    )
    files["os-release"] = 'ID=debian\nVERSION_ID="13"\nPRETTY_NAME="Debian GNU/Linux 13"\n'
    files["status"] = (
        "Package: bash\nStatus: install ok installed\nVersion: 5.2-1\nArchitecture: amd64\n\n"
        "Package: gone\nStatus: deinstall ok config-files\nVersion: 1\nArchitecture: all\n"
    )
    files["m"] = "Metadata-Version: 2.1\nName: My_Thing\nVersion: 2.0\nLicense: MIT\n\nAbout: it\n"
    built = build(engine, files, [{"type": "oci"}, {"type": "tar"}], sbom="true")
    layout = Layout(built.files[0])
    attestation = layout.json(layout.top)["manifests"][1]
    (layer,) = layout.json(attestation)["layers"]
    assert layer["annotations"] == {"in-toto.io/predicate-type": "https://spdx.dev/Document"}
    document = layout.json(layer)["predicate"]
    assert document["spdxVersion"] == "SPDX-2.3"
    found = {
        package["name"]: package["externalRefs"][0]["referenceLocator"]
        for package in document["packages"]
        if "externalRefs" in package
    }
    assert found == {
        "bash": "pkg:deb/debian/bash@5.2-1?arch=amd64&distro=debian-13",
        "My_Thing": "pkg:pypi/my-thing@2.0",
    }
    with tarfile.open(fileobj=io.BytesIO(built.files[1])) as tar:
        beside = tar.extractfile("sbom.spdx.json")
        assert beside is not None
        subjects = json.loads(beside.read())["subject"]
    assert "d/f" in {subject["name"] for subject in subjects}


def test_compressions(engine: EngineProcess, docker: Client, files: dict[str, str]) -> None:
    heads = {"gzip": b"\x1f\x8b", "zstd": b"\x28\xb5\x2f\xfd", "uncompressed": b""}
    types = {"gzip": LAYER + "+gzip", "zstd": LAYER + "+zstd", "uncompressed": LAYER}
    for kind, head in heads.items():
        order = {"type": "oci", "compression": kind, "force-compression": "true"}
        layout = Layout(build(engine, files, [order]).files[0])
        manifest = layout.json(layout.top)
        for layer in manifest["layers"]:
            assert layer["mediaType"] == types[kind]
            assert layout.blob(layer).startswith(head)
    sizes = {}
    for level in ("1", "9"):
        # A layer that was pushed meanwhile is gzip already: only force makes it anew.
        order = {"type": "oci", "compression-level": level, "force-compression": "true"}
        sizes[level] = len(build(engine, files, [order]).files[0])
    assert sizes["9"] < sizes["1"]
    with pytest.raises(Failed, match="unsupported layer compression type: lzma"):
        build(engine, files, [{"type": "oci", "compression": "lzma"}])
    with pytest.raises(Failed, match="compression level 10 of gzip"):
        build(engine, files, [{"type": "oci", "compression": "gzip", "compression-level": "10"}])
    built = build(engine, files, [{"type": "docker", "name": "made/archive"}])
    assert json.loads(Layout(built.files[0]).members["manifest.json"])[0]["RepoTags"] == [
        "made/archive:latest"
    ]
    docker.raw("load", stdin=built.files[0])
    assert docker("run", "--rm", "made/archive").stdout == "1\n"


def test_names_by_digest(engine: EngineProcess, docker: Client, files: dict[str, str]) -> None:
    output = {"type": "image", "name": "made/named:1", "name-canonical": "true"}
    build(engine, files, [output])
    (named,) = json.loads(docker("inspect", "-f", "{{json .RepoDigests}}", "made/named:1").stdout)
    assert named.startswith("made/named@sha256:")
    assert docker("run", "--rm", named).stdout == "1\n"
    files["f"] = "other\n"
    build(engine, files, [{"type": "image", "dangling-name-prefix": "made/dangling"}])
    (dangling,) = docker("images", "-q", "--no-trunc", "made/dangling").stdout.split()
    (named,) = json.loads(docker("inspect", "-f", "{{json .RepoDigests}}", dangling).stdout)
    assert named.startswith("made/dangling@sha256:")
    docker("rmi", "-f", dangling)


def test_files(engine: EngineProcess, files: dict[str, str]) -> None:
    built = build(engine, files, [{"type": "tar"}, {"type": "local"}], provenance="mode=min")
    for data in built.files.values():
        with tarfile.open(fileobj=io.BytesIO(data)) as tar:
            names = tar.getnames()
            assert {"a", "d/f", "provenance.json"} < set(names)
            assert tar.getmember("link").linkname == "a"
            content = tar.extractfile("d/f")
            assert content is not None
            assert content.read() == b"content\n"
    with pytest.raises(Failed, match="unknown attribute"):
        build(engine, files, [{"type": "tar", "nonsense": "1"}])
    with pytest.raises(Failed, match='exporter "floppy" could not be found'):
        build(engine, files, [{"type": "floppy"}])


def test_push_what_was_built(
    engine: EngineProcess, docker: Client, files: dict[str, str], tmp_path: Path
) -> None:
    with docker_registry(engine, PORT) as registry:
        name = f"{registry}/made/pushed:1"
        order = {"type": "image", "name": name, "push": "true"}
        built = build(engine, files, [order], provenance="mode=max", sbom="true")
        index = inspected(engine, name)
        assert [m["platform"]["os"] for m in index["manifests"]] == ["linux", "unknown"]
        attestation = index["manifests"][1]["digest"]
        manifest = inspected(engine, f"{registry}/made/pushed@{attestation}")
        assert len(manifest["layers"]) == 2
        digest = built.answers[0]["containerimage.digest"]
        config = built.answers[0]["containerimage.config.digest"]
        assert docker("inspect", "-f", "{{.Id}}", name).stdout.strip() == config
        assert docker("inspect", "-f", "{{.Id}}", digest).stdout.strip() == config
        docker("rmi", name)
        docker("pull", f"{registry}/made/pushed@{digest}")
        assert docker("run", "--rm", f"{registry}/made/pushed@{digest}").stdout == "1\n"
        docker("rmi", "-f", config)
        # Kept, and kept again: what was said the last time is let go of.
        docker("rmi", "-f", config, check=False)
        blobs = Path(engine.data_root, "blobs", "sha256")
        for _ in range(2):
            build(engine, files, [{"type": "image", "name": name}], provenance="mode=max")
        said = [b for b in blobs.iterdir() if b"in-toto.io/Statement" in b.read_bytes()[:100]]
        assert len(said) == 1
        # Saved and loaded again it is the same, with what is said of it.
        archive = docker.raw("save", name).stdout
        docker("rmi", name)
        docker("builder", "prune", "-af")
        docker.raw("load", stdin=archive)
        # Kept first, pushed later: the same bytes.
        docker("push", name)
        assert [m["platform"]["os"] for m in inspected(engine, name)["manifests"]] == [
            *("linux", "unknown")
        ]
        plain = f"{registry}/made/plain:1"
        order = {"type": "image", "name": plain, "push": "true", "compression": "uncompressed"}
        build(engine, files, [{**order, "force-compression": "true"}])
        layers = inspected(engine, plain)["layers"]
        assert {layer["mediaType"] for layer in layers} == {LAYER}
        digest_only = f"{registry}/made/nameless"
        built = build(
            *(engine, files),
            [{"type": "image", "name": digest_only, "push": "true", "push-by-digest": "true"}],
        )
        assert inspected(engine, f"{digest_only}@{built.answers[0]['containerimage.digest']}")


def test_annotations(engine: EngineProcess, files: dict[str, str]) -> None:
    order = {
        "type": "oci",
        "annotation.a": "1",
        "annotation-manifest-descriptor.b": "2",
        "annotation-index.c": "3",
    }
    with pytest.raises(Failed, match="index annotations not supported"):
        build(engine, files, [order])
    layout = Layout(build(engine, files, [order], provenance="true").files[0])
    index = layout.json(layout.top)
    assert index["annotations"] == {"c": "3"}
    assert index["manifests"][0]["annotations"] == {"b": "2"}
    assert layout.json(index["manifests"][0])["annotations"] == {"a": "1"}


def test_same_input_same_bytes(
    engine: EngineProcess, docker: Client, files: dict[str, str]
) -> None:
    def once(**attributes: str) -> Built:
        order = {"type": "oci", "name": "made/same", **attributes}
        return build(
            *(engine, files, [order]),
            nocache="1",
            sbom="true",
            buildargs='{"SOURCE_DATE_EPOCH": "1000000000"}',
        )

    assert once().files[0] == once().files[0]
    order = {
        "type": "oci",
        "source-date-epoch": "1000000000",
        "rewrite-timestamp": "true",
    }
    archives = [build(engine, files, [order], nocache="1").files[0] for _ in range(2)]
    assert archives[0] == archives[1]
    layout = Layout(archives[0])
    manifest = layout.json(layout.top)
    data = gzip.decompress(layout.blob(manifest["layers"][-1]))
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        assert max(member.mtime for member in tar) == 1_000_000_000
    assert layout.json(manifest["config"])["created"] == "2001-09-09T01:46:40Z"


def test_several_platforms(engine: EngineProcess, docker: Client, files: dict[str, str]) -> None:
    text = "FROM scratch\nARG TARGETARCH\nENV WHERE=$TARGETARCH\nCOPY f /f\n"
    files["Dockerfile"] = text
    platforms = "linux/amd64,linux/arm64"
    built = build(
        *(engine, files),
        [{"type": "oci"}, {"type": "tar"}, {"type": "image", "name": "made/several"}],
        platform=platforms,
        provenance="true",
    )
    layout = Layout(built.files[0])
    entries = layout.json(layout.top)["manifests"]
    assert [e["platform"]["architecture"] for e in entries] == [
        *("amd64", "arm64", "unknown", "unknown")
    ]
    for entry in entries[:2]:
        config = layout.json(layout.json(entry)["config"])
        assert f"WHERE={entry['platform']['architecture']}" in config["config"]["Env"]
    with tarfile.open(fileobj=io.BytesIO(built.files[1])) as tar:
        assert {"linux_amd64/f", "linux_arm64/f", "linux_arm64/provenance.json"} < set(
            tar.getnames()
        )
    for architecture in ("amd64", "arm64"):
        told = docker(
            *("image", "inspect", "--platform", f"linux/{architecture}"),
            *("-f", "{{.Architecture}}", "made/several"),
        ).stdout.strip()
        assert told == architecture
    with pytest.raises(Failed, match="does not currently support exporting manifest lists"):
        build(engine, files, [{"type": "docker"}], platform=platforms)
    with docker_registry(engine, PORT + 1) as registry:
        docker("tag", "made/several", f"{registry}/made/several")
        docker("push", f"{registry}/made/several")
        index = inspected(engine, f"{registry}/made/several")
        assert len(index["manifests"]) == 4


def test_materials_from_elsewhere(
    engine: EngineProcess, files: dict[str, str], tmp_path: Path
) -> None:
    with serve_repository(engine.in_network, tmp_path) as url:
        head = f"{url.rpartition('/')[0]}/repo.git/HEAD"
        files["Dockerfile"] += f"ADD {url}#v1 /r/\nADD {head} /h\n"
        built = build(engine, files, [{"type": "oci"}], provenance="mode=min")
        layout = Layout(built.files[0])
        (layer,) = layout.json(layout.json(layout.top)["manifests"][1])["layers"]
        found = {m["uri"]: m["digest"] for m in layout.json(layer)["predicate"]["materials"]}
        assert list(found[f"{url}#v1"]) == ["sha1"]
        assert list(found[head]) == ["sha256"]
        remote = build(engine, {}, [{"type": "oci"}], provenance="mode=min", remote=f"{url}#v1")
        layout = Layout(remote.files[0])
        (layer,) = layout.json(layout.json(layout.top)["manifests"][1])["layers"]
        invocation = layout.json(layer)["predicate"]["invocation"]
        assert invocation["configSource"] == {
            "uri": f"{url}#v1",
            "digest": found[f"{url}#v1"],
            "entryPoint": "Dockerfile",
        }
        assert "locals" not in invocation["parameters"]


def test_push_to_the_embedded_registry(engine: EngineProcess, files: dict[str, str]) -> None:
    with RegistryProcess(prefix=engine.in_network) as registry:
        port = registry.address.rpartition(":")[2]
        name = f"localhost:{port}/made/embedded:1"
        order = {"type": "image", "name": name, "push": "true", "store": "false"}
        platforms = "linux/amd64,linux/arm64"
        files["Dockerfile"] = "FROM scratch\nCOPY f /f\n"
        build(engine, files, [{**order, "compression": "zstd"}], platform=platforms, sbom="true")
        index = inspected(engine, name)
        assert len(index["manifests"]) == 4
        digest = index["manifests"][1]["digest"]
        manifest = inspected(engine, f"localhost:{port}/made/embedded@{digest}")
        assert manifest["layers"][0]["mediaType"] == LAYER + "+zstd"


def test_a_client_that_goes_leaves_nothing(
    engine: EngineProcess, docker: Client, files: dict[str, str]
) -> None:
    """The client reads of the export, and goes without fetching it."""
    place = Path(engine.data_root)
    path = engine.env["DOCKER_HOST"].removeprefix("unix://")
    for fetch in (False, True):
        with contextlib.ExitStack() as stack:
            connection = stack.enter_context(contextlib.closing(Connection(path)))
            order = {"type": "oci", "force-compression": "true"}
            response = stack.enter_context(begin(connection, files, [order]))
            told = next(
                filter(None, (json.loads(x).get("aux", {}).get("Export") for x in response))
            )
            if fetch:
                other = stack.enter_context(contextlib.closing(Connection(path)))
                other.request("GET", f"/pier/build/export?id={told['ID']}")
                assert stack.enter_context(other.getresponse()).read(512)
        wait_until(lambda: not list(place.glob("staging/*/context")), "the build to end")

    def only_images_left() -> bool:
        # A prune passes by what the build holds until its very end.
        docker("builder", "prune", "-af")
        left = os.listdir(place / "blobs" / "sha256")
        known = docker("images", "-aq", "--no-trunc").stdout.split()
        return len(left) <= 2 * len(known) + 1

    wait_until(only_images_left, "the build's blobs to go")


def test_pier_build_pushes(engine: EngineProcess, files: dict[str, str], tmp_path: Path) -> None:
    context = tmp_path / "context"
    context.mkdir()
    files["Dockerfile"] = "FROM scratch\nCOPY f /f\n"
    for name, content in files.items():
        (context / name).write_text(content)
    with docker_registry(engine, PORT + 2) as registry:
        name = f"{registry}/made/pier:1"
        metadata = tmp_path / "metadata"
        engine.pier(
            *("build", "--platform", "linux/amd64,linux/arm64", "--provenance", "mode=max"),
            *("--sbom", "true", "--push", "-t", name, "--metadata-file", str(metadata)),
            *("--annotation", "index:k=v", str(context)),
        )
        index = inspected(engine, name)
        assert len(index["manifests"]) == 4
        assert index["annotations"] == {"k": "v"}
        told = json.loads(metadata.read_text())
        assert told["image.name"] == name
    place = tmp_path / "out"
    engine.pier("build", "-o", str(place), str(context))
    assert (place / "f").read_text() == "content\n"
