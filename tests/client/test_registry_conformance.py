"""The distribution specification's own conformance programs, check for check.

The names and the order are those of opencontainers/distribution-spec, conformance/: the workflows
of its Go tests (01 pull … 04 management) and the later run.go, over every kind of data it makes.
"""

import json
import random
from collections.abc import Iterator
from typing import Any

import pytest

from engine_process import EngineProcess
from registry_process import (
    OCI_CONFIG,
    OCI_INDEX,
    OCI_LAYER,
    OCI_MANIFEST,
    RegistryProcess,
    Served,
    descriptor,
    digest_of,
    index,
    manifest,
)

REPO, REPO2 = "conformance/repo1", "conformance/repo2"
EMPTY_JSON = "application/vnd.oci.empty.v1+json"
ARTIFACT1 = "application/vnd.example.oci.conformance.v1"
ARTIFACT2 = "application/vnd.example.oci.conformance.v2"
OCTETS = {"Content-Type": "application/octet-stream"}
CHUNK = 1024


@pytest.fixture(scope="module", params=["directory", "engine"])
def registry(request: pytest.FixtureRequest) -> Iterator[RegistryProcess]:
    """The registry that stores into a directory, and an engine's own."""
    if request.param == "directory":
        with RegistryProcess() as process:
            yield process
        return
    engine = EngineProcess()
    try:
        listen = f"unix://{engine.directory}/registry.sock"
        engine.start("--registry-listen", listen, "--registry-push")
        yield Served(listen)
    finally:
        engine.close()


def blob(size: int = 512) -> bytes:
    return random.randbytes(size)


# Base


def test_base_route_says_the_version(registry: RegistryProcess) -> None:
    answer = registry.get("/v2/")
    assert answer.status == 200
    assert answer.headers["Docker-Distribution-API-Version"] == "registry/2.0"


def test_empty_repository_has_neither_tags_nor_referrers(registry: RegistryProcess) -> None:
    assert registry.get("/v2/conformance/empty/tags/list").status == 404
    found = registry.get(f"/v2/conformance/empty/referrers/{digest_of(blob())}")
    assert found.status == 200
    assert found.headers["Content-Type"] == OCI_INDEX
    assert found.json == {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": []}


# Blobs


def begin(registry: RegistryProcess, name: str = REPO) -> str:
    answer = registry.request("POST", f"/v2/{name}/blobs/uploads/")
    assert answer.status == 202, answer
    assert answer.headers["Docker-Upload-UUID"]
    return answer.location


def verify_created(registry: RegistryProcess, answer: Any, data: bytes, digest: str) -> None:
    assert answer.status == 201, answer
    assert answer.headers["Docker-Content-Digest"] == digest
    there = registry.get(answer.location)
    assert (there.status, there.body) == (200, data)
    head = registry.request("HEAD", f"/v2/{REPO}/blobs/{digest}")
    assert (head.status, head.body) == (200, b"")
    assert head.headers["Content-Length"] == str(len(data))
    assert head.headers["Docker-Content-Digest"] == digest


def delete_blob(registry: RegistryProcess, digest: str, name: str = REPO) -> None:
    assert registry.request("DELETE", f"/v2/{name}/blobs/{digest}").status == 202
    assert registry.request("HEAD", f"/v2/{name}/blobs/{digest}").status == 404
    assert registry.request("DELETE", f"/v2/{name}/blobs/{digest}").status == 404


@pytest.fixture(params=["sha256", "sha512"])
def algorithm(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_get_and_head_missing_blob(registry: RegistryProcess, algorithm: str) -> None:
    path = f"/v2/{REPO}/blobs/{digest_of(blob(), algorithm)}"
    assert registry.request("HEAD", path).status == 404
    answer = registry.get(path)
    assert (answer.status, answer.codes) == (404, ["BLOB_UNKNOWN"])


@pytest.mark.parametrize("data", [blob(), b"", b"{}"], ids=["random", "empty", "empty-json"])
def test_post_only(registry: RegistryProcess, algorithm: str, data: bytes) -> None:
    digest = digest_of(data, algorithm)
    done = registry.request(
        "POST", f"/v2/{REPO}/blobs/uploads/", {"digest": digest}, body=data, headers=OCTETS
    )
    verify_created(registry, done, data, digest)
    delete_blob(registry, digest)


@pytest.mark.parametrize("data", [blob(), b"", b"{}"], ids=["random", "empty", "empty-json"])
def test_post_put(registry: RegistryProcess, algorithm: str, data: bytes) -> None:
    digest = digest_of(data, algorithm)
    location = begin(registry)
    done = registry.request("PUT", location, {"digest": digest}, body=data, headers=OCTETS)
    verify_created(registry, done, data, digest)
    assert registry.get(location).codes == ["BLOB_UPLOAD_UNKNOWN"]
    delete_blob(registry, digest)


def test_stream(registry: RegistryProcess, algorithm: str) -> None:
    data = blob()
    digest = digest_of(data, algorithm)
    sent = registry.request("PATCH", begin(registry), body=data, headers=OCTETS)
    assert sent.status == 202, sent
    assert sent.headers["Range"] == f"0-{len(data) - 1}"
    done = registry.request("PUT", sent.location, {"digest": digest}, headers=OCTETS)
    verify_created(registry, done, data, digest)
    delete_blob(registry, digest)


@pytest.mark.parametrize("put_last", [False, True], ids=["patch-all", "put-last"])
@pytest.mark.parametrize("out_of_order", [False, True], ids=["in-order", "out-of-order"])
def test_chunked(
    registry: RegistryProcess, algorithm: str, put_last: bool, out_of_order: bool
) -> None:
    data = blob(CHUNK * 3 - 5)
    digest = digest_of(data, algorithm)
    location = begin(registry)
    last = -1
    done = None
    while last < len(data) - 1:
        if out_of_order:
            bad = last + 1 + CHUNK if last + 1 + CHUNK < len(data) else 0
            method = "PUT" if put_last and bad + CHUNK >= len(data) else "PATCH"
            query = {"digest": digest} if method == "PUT" else {}
            refused = send(registry, method, location, data, bad, query)
            assert (refused.status, refused.codes) == (416, ["RANGE_INVALID"])
            status = registry.get(location)
            assert status.status == 204
            assert status.headers["Range"] == f"0-{max(last, 0)}"
            location = status.location
        start, last = last + 1, min(last + CHUNK, len(data) - 1)
        is_last = put_last and last == len(data) - 1
        query = {"digest": digest} if is_last else {}
        done = send(registry, "PUT" if is_last else "PATCH", location, data, start, query)
        assert done.status == (201 if is_last else 202), done
        location = done.location
    if not put_last:
        done = registry.request("PUT", location, {"digest": digest}, headers=OCTETS)
    verify_created(registry, done, data, digest)
    delete_blob(registry, digest)


def send(
    registry: RegistryProcess,
    method: str,
    location: str,
    data: bytes,
    start: int,
    query: dict[str, str],
) -> Any:
    piece = data[start : start + CHUNK]
    headers = {**OCTETS, "Content-Range": f"{start}-{start + len(piece) - 1}"}
    return registry.request(method, location, query, body=piece, headers=headers)


@pytest.mark.parametrize("source", ["named", "anonymous"])
def test_mount(registry: RegistryProcess, algorithm: str, source: str) -> None:
    data = blob()
    digest = registry.push_blob(REPO2, data, algorithm)
    query = {"mount": digest} | ({"from": REPO2} if source == "named" else {})
    done = registry.request("POST", f"/v2/{REPO}/blobs/uploads/", query)
    verify_created(registry, done, data, digest)
    delete_blob(registry, digest)
    delete_blob(registry, digest, REPO2)


@pytest.mark.parametrize("source", ["named", "elsewhere", "anonymous"])
def test_mount_missing_falls_back_to_an_upload(registry: RegistryProcess, source: str) -> None:
    data = blob()
    digest = digest_of(data)
    if source == "elsewhere":
        registry.push_blob("conformance/third", data)
    query = {"mount": digest} | ({} if source == "anonymous" else {"from": REPO2})
    begun = registry.request("POST", f"/v2/{REPO}/blobs/uploads/", query)
    assert begun.status == 202, begun
    done = registry.request("PUT", begun.location, {"digest": digest}, body=data)
    verify_created(registry, done, data, digest)


def test_cancel(registry: RegistryProcess) -> None:
    location = begin(registry)
    assert registry.request("DELETE", location).status == 204
    assert registry.request("DELETE", location).status == 404
    late = registry.request("PATCH", location, body=b"late")
    assert (late.status, late.codes) == (404, ["BLOB_UPLOAD_UNKNOWN"])


@pytest.mark.parametrize(
    ("asked", "first", "last"),
    [
        ("500-1499", 500, 1499),
        ("500-", 500, 2047),
        ("-500", 1548, 2047),
        ("2000-5000", 2000, 2047),
        ("500-0", None, None),
        ("5000-10000", None, None),
    ],
)
def test_range(
    registry: RegistryProcess, algorithm: str, asked: str, first: int | None, last: int | None
) -> None:
    data = blob(2048)
    digest = registry.push_blob(REPO, data, algorithm)
    answer = registry.get(f"/v2/{REPO}/blobs/{digest}", Range=f"bytes={asked}")
    if first is None or last is None:
        assert answer.status == 416
    else:
        assert (answer.status, answer.body) == (206, data[first : last + 1])
        assert answer.headers["Content-Range"] == f"bytes {first}-{last}/2048"
        assert answer.headers["Content-Length"] == str(last - first + 1)
    delete_blob(registry, digest)


@pytest.mark.parametrize("how", ["post", "put", "chunked", "stream"])
def test_bad_digest(registry: RegistryProcess, algorithm: str, how: str) -> None:
    data = blob(CHUNK * 3)
    digest = digest_of(data + b"oh no", algorithm)
    query = {"digest": digest}
    if how == "post":
        answer = registry.request("POST", f"/v2/{REPO}/blobs/uploads/", query, body=data)
    elif how == "put":
        answer = registry.request("PUT", begin(registry), query, body=data)
    else:
        headers = {"Content-Range": f"0-{len(data) - 1}"} if how == "chunked" else {}
        sent = registry.request("PATCH", begin(registry), body=data, headers=headers)
        assert sent.status == 202, sent
        answer = registry.request("PUT", sent.location, query)
    assert (answer.status, answer.codes) == (400, ["DIGEST_INVALID"])
    assert registry.request("HEAD", f"/v2/{REPO}/blobs/{digest}").status == 404


# Data: what run.go makes and pushes, lists, heads, pulls, asks referrers of, and deletes.


class Data:
    """Blobs, manifests in the order of pushing, tags, and who refers to whom."""

    def __init__(self, algorithm: str = "sha256") -> None:
        self.algorithm = algorithm
        self.blobs: list[bytes] = []
        self.manifests: list[bytes] = []
        self.tags: dict[str, bytes] = {}
        self.referrers: dict[str, list[dict[str, Any]]] = {}

    def digest(self, data: bytes) -> str:
        return digest_of(data, self.algorithm)

    def image(
        self,
        tag: str = "",
        *,
        layers: int = 2,
        config: bytes | None = None,
        config_type: str = OCI_CONFIG,
        layer_type: str = OCI_LAYER,
        **more: Any,
    ) -> dict[str, Any]:
        config = json.dumps({"salt": random.random()}).encode() if config is None else config
        made = [blob() for _ in range(layers)]
        self.blobs += [config, *made]
        data = manifest(
            config,
            made,
            config_type=config_type,
            layer_type=layer_type,
            algorithm=self.algorithm,
            **more,
        )
        return self.add(data, OCI_MANIFEST, tag, more, default_type=config_type)

    def artifact(self, tag: str = "", kind: str = ARTIFACT1, **more: Any) -> dict[str, Any]:
        return self.image(
            tag,
            layers=1,
            config=b"{}",
            config_type=EMPTY_JSON,
            layer_type=kind,
            artifactType=kind,
            **more,
        )

    def index(
        self, tag: str = "", children: list[dict[str, Any]] | None = None, **more: Any
    ) -> dict[str, Any]:
        if children is None:
            children = [
                {**self.image(), "platform": {"os": "linux", "architecture": architecture}}
                for architecture in ("amd64", "arm64")
            ]
        return self.add(index(children, **more), OCI_INDEX, tag, more, default_type="")

    def add(
        self, data: bytes, media_type: str, tag: str, more: dict[str, Any], *, default_type: str
    ) -> dict[str, Any]:
        self.manifests.append(data)
        if tag:
            self.tags[tag] = data
        made = descriptor(data, media_type, self.algorithm)
        if subject := more.get("subject"):
            kind = more.get("artifactType", default_type)
            entry = dict(made)
            if kind:
                entry["artifactType"] = kind
            if more.get("annotations"):
                entry["annotations"] = more["annotations"]
            self.referrers.setdefault(subject["digest"], []).append(entry)
        return made


def plain_image() -> Data:
    data = Data()
    data.image("image")
    return data


def large_manifest() -> Data:
    data = Data()
    data.image("large", annotations={f"large-{n}": "A" * 10000 for n in range(390)})
    return data


def multi_platform() -> Data:
    data = Data()
    data.index("index")
    return data


def nested_index() -> Data:
    data = Data()
    data.index("index-of-index", [data.index(), data.index()])
    return data


def empty_index() -> Data:
    data = Data()
    data.index("empty-index", [])
    return data


def artifact() -> Data:
    data = Data()
    data.artifact("artifact")
    return data


def artifact_index() -> Data:
    data = Data()
    data.index("artifact-index", [data.artifact(), data.artifact()], artifactType=ARTIFACT1)
    return data


def artifacts_with_subject() -> Data:
    data = Data()
    subject = data.image("image")
    data.image(subject=subject)
    for number, kind in enumerate((ARTIFACT1, ARTIFACT2)):
        data.artifact(
            f"tagged-artifact{number}",
            kind,
            annotations={"org.opencontainers.conformance": "hello", "unique": str(number)},
            subject=subject,
        )
    return data


def index_with_subject() -> Data:
    data = Data()
    subject = data.index("index")
    data.index(
        "tagged-artifact",
        [data.artifact()],
        artifactType=ARTIFACT1,
        annotations={"org.opencontainers.conformance": "hello"},
        subject=subject,
    )
    return data


def missing_subject() -> Data:
    data = Data()
    data.artifact("tagged-artifact", subject=descriptor(b"missing content", OCI_MANIFEST))
    return data


def data_field() -> Data:
    data = Data()
    data.image("data-field", subject=None, config=b"{}")
    tree = json.loads(data.manifests[0])
    tree["config"]["data"] = "e30="
    data.manifests[0] = data.tags["data-field"] = json.dumps(tree).encode()
    return data


def nondistributable_layers() -> Data:
    data = Data()
    data.image("nondistributable", layers=1)
    tree = json.loads(data.manifests[0])
    for suffix in ("+gzip", ""):
        kind = f"application/vnd.oci.image.layer.nondistributable.v1.tar{suffix}"
        far = {**descriptor(blob(), kind), "urls": ["https://store.example.com/blob"]}
        tree["layers"].insert(0, far)
    data.manifests[0] = data.tags["nondistributable"] = json.dumps(tree).encode()
    return data


def custom_fields() -> Data:
    data = Data()
    data.index("custom-fields", [data.image(**{"org.example": "x"})], **{"org.example": [1]})
    return data


def no_layers() -> Data:
    data = Data()
    data.image("no-layers", layers=0)
    return data


def sha512_by_digest() -> Data:
    data = Data("sha512")
    data.index()
    return data


@pytest.mark.parametrize(
    "make",
    [
        plain_image,
        large_manifest,
        multi_platform,
        nested_index,
        empty_index,
        artifact,
        artifact_index,
        artifacts_with_subject,
        index_with_subject,
        missing_subject,
        data_field,
        nondistributable_layers,
        custom_fields,
        no_layers,
        sha512_by_digest,
    ],
)
def test_data(registry: RegistryProcess, make: Any) -> None:
    data: Data = make()
    for item in data.blobs:
        registry.push_blob(REPO, item, data.algorithm)
    for item in data.manifests:
        push(registry, data.digest(item), item, data)
    for tag, item in data.tags.items():
        push(registry, tag, item, data)
    listed(registry, data)
    for reference, item in [*data.tags.items(), *((data.digest(m), m) for m in data.manifests)]:
        pull(registry, reference, item, data)
    for item in data.blobs:
        answer = registry.get(f"/v2/{REPO}/blobs/{data.digest(item)}")
        assert (answer.status, answer.body) == (200, item)
    referred(registry, data)
    delete(registry, data)


def push(registry: RegistryProcess, reference: str, item: bytes, data: Data) -> None:
    done = registry.push_manifest(REPO, reference, item)
    assert done.status == 201, done
    assert done.headers["Docker-Content-Digest"] == data.digest(item)
    assert registry.get(done.location).body == item
    subject = json.loads(item).get("subject")
    assert done.headers["OCI-Subject"] == (subject["digest"] if subject else None)


def listed(registry: RegistryProcess, data: Data) -> None:
    tags = registry.get(f"/v2/{REPO}/tags/list").json["tags"]
    assert set(data.tags) <= set(tags)
    assert tags == sorted(tags)
    if len(tags) >= 2:
        half = len(tags) // 2
        after = registry.get(f"/v2/{REPO}/tags/list", {"last": tags[half - 1]})
        assert after.json["tags"] == tags[half:]


def pull(registry: RegistryProcess, reference: str, item: bytes, data: Data) -> None:
    path = f"/v2/{REPO}/manifests/{reference}"
    head, whole = registry.request("HEAD", path), registry.get(path, Accept=OCI_INDEX)
    assert (head.status, head.body) == (200, b"")
    assert (whole.status, whole.body) == (200, item)
    for answer in (head, whole):
        assert answer.headers["Content-Type"] == json.loads(item)["mediaType"]
        assert answer.headers["Content-Length"] == str(len(item))
        assert answer.headers["Docker-Content-Digest"] == data.digest(item)


def referred(registry: RegistryProcess, data: Data) -> None:
    for subject, expected in data.referrers.items():
        path = f"/v2/{REPO}/referrers/{subject}"
        answer = registry.get(path)
        assert answer.status == 200
        assert "OCI-Filters-Applied" not in answer.headers
        assert by_digest(answer.json["manifests"]) == by_digest(expected)
        for kind in {entry.get("artifactType", "") for entry in expected} - {""}:
            filtered = registry.get(path, {"artifactType": kind})
            assert filtered.headers["OCI-Filters-Applied"] == "artifactType"
            wanted = [entry for entry in expected if entry.get("artifactType") == kind]
            assert by_digest(filtered.json["manifests"]) == by_digest(wanted)


def by_digest(entries: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return sorted(entries, key=lambda entry: str(entry["digest"]))


def delete(registry: RegistryProcess, data: Data) -> None:
    paths = [f"/v2/{REPO}/manifests/{tag}" for tag in data.tags]
    paths += [f"/v2/{REPO}/manifests/{data.digest(m)}" for m in reversed(data.manifests)]
    paths += [f"/v2/{REPO}/blobs/{digest}" for digest in {data.digest(b) for b in data.blobs}]
    for path in paths:
        assert registry.request("DELETE", path).status == 202, path
        assert registry.request("HEAD", path).status == 404, path
    for subject in data.referrers:
        assert registry.get(f"/v2/{REPO}/referrers/{subject}").json["manifests"] == []


@pytest.mark.parametrize("algorithm", ["sha256", "sha512"])
def test_tag_parameters(registry: RegistryProcess, algorithm: str) -> None:
    data = Data(algorithm)
    data.index("tag-param")
    for item in data.blobs:
        registry.push_blob(REPO, item, algorithm)
    for number, item in enumerate(data.manifests):
        tags = [f"tag-param-{number}", f"tag-more-{number}"]
        done = registry.push_manifest(REPO, data.digest(item), item, tag=tags)
        assert done.status == 201, done
        assert done.headers["OCI-Tag"].split(", ") == tags
        for tag in tags:
            pull(registry, tag, item, data)


# Errors


def test_manifest_of_another_digest(registry: RegistryProcess) -> None:
    data = plain_image()
    for item in data.blobs:
        registry.push_blob(REPO, item)
    done = registry.push_manifest(REPO, digest_of(data.manifests[0]), data.manifests[0] + b"  ")
    assert (done.status, done.codes) == (400, ["DIGEST_INVALID"])


def test_malformed_digest(registry: RegistryProcess) -> None:
    data = plain_image()
    done = registry.push_manifest(REPO, "sha256:baddigeststring", data.manifests[0])
    assert (done.status, done.codes) == (400, ["DIGEST_INVALID"])
    assert registry.get(f"/v2/{REPO}/manifests/sha256:baddigeststring").status == 400


def test_invalid_manifest_is_told_in_the_specified_form(registry: RegistryProcess) -> None:
    done = registry.push_manifest(REPO, "latest", b"not a manifest", OCI_MANIFEST)
    assert done.status == 400
    assert done.headers["Content-Type"] == "application/json"
    (error,) = done.json["errors"]
    assert error["code"] == "MANIFEST_INVALID"
    assert error["message"]


@pytest.mark.parametrize("reference", ["missing-tag", digest_of(b"missing")])
def test_missing_manifest(registry: RegistryProcess, reference: str) -> None:
    registry.push_blob(REPO, b"so that the repository is known")
    path = f"/v2/{REPO}/manifests/{reference}"
    assert registry.request("HEAD", path).status == 404
    answer = registry.get(path)
    assert (answer.status, answer.codes) == (404, ["MANIFEST_UNKNOWN"])


# The older suite's workflows where run.go has none


def test_discovery_of_tags(registry: RegistryProcess) -> None:
    name = "conformance/discovery"
    tags = [f"test{number}" for number in range(4)]
    for tag in tags:
        registry.push_image(name, tag)
    path = f"/v2/{name}/tags/list"
    assert registry.get(path).json == {"name": name, "tags": tags}
    first = registry.get(path, {"n": 2})
    assert first.json["tags"] == tags[:2]
    assert first.headers["Link"] == f'<{path}?n=2&last=test1>; rel="next"'
    rest = registry.get(path, {"n": 2, "last": "test1"})
    assert rest.json["tags"] == tags[2:]
    assert "Link" not in rest.headers
    assert registry.get(path, {"n": 0}).json["tags"] == []


def test_management(registry: RegistryProcess) -> None:
    name = "conformance/management"
    digest = registry.push_image(name, "tagtest0")
    assert registry.request("DELETE", f"/v2/{name}/manifests/tagtest0").status == 202
    assert registry.get(f"/v2/{name}/manifests/tagtest0").status == 404
    assert registry.get(f"/v2/{name}/manifests/{digest}").status == 200
    assert registry.request("DELETE", f"/v2/{name}/manifests/{digest}").status == 202
    assert registry.get(f"/v2/{name}/manifests/{digest}").status == 404
    assert registry.get(f"/v2/{name}/tags/list").json["tags"] == []
    delete_blob(registry, digest_of(b"a layer"), name)


def test_blobs_may_be_deleted_before_their_manifest(registry: RegistryProcess) -> None:
    name = "conformance/before"
    digest = registry.push_image(name, "latest")
    delete_blob(registry, digest_of(b"a layer"), name)
    assert registry.request("DELETE", f"/v2/{name}/manifests/{digest}").status == 202
