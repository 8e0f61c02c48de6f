"""The embedded registry beyond the specification's checks: who may, crashes, garbage, the program."""

import base64
import json
import os
import socket
import ssl
import subprocess
import sysconfig
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from engine_process import wait_until
from registry_process import OCI_MANIFEST, RegistryProcess, digest_of, index, manifest

SCRIPTS = sysconfig.get_path("scripts")


@pytest.fixture(scope="module")
def registry() -> Iterator[RegistryProcess]:
    with RegistryProcess() as process:
        yield process


def run(*args: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    command = [os.path.join(SCRIPTS, "pier"), "registry", *args]
    return subprocess.run(
        command, input=stdin, capture_output=True, text=True, timeout=60, check=False
    )


# Names, limits, media types


@pytest.mark.parametrize("name", ["Upper", "a//b", "-a", "a/", "a" * 256, "a/.b", "ä"])
def test_invalid_names(registry: RegistryProcess, name: str) -> None:
    from urllib.parse import quote

    answer = registry.get(f"/v2/{quote(name)}/tags/list")
    assert (answer.status, answer.codes) == (400, ["NAME_INVALID"])


@pytest.mark.parametrize("name", ["a/blobs/uploads", "manifests/manifests", "x/tags/list", "a__b"])
def test_names_may_be_words_of_the_protocol(registry: RegistryProcess, name: str) -> None:
    digest = registry.push_image(name, "latest")
    assert registry.get(f"/v2/{name}/manifests/{digest}").status == 200
    assert registry.get(f"/v2/{name}/tags/list").json["tags"] == ["latest"]


def test_invalid_tag(registry: RegistryProcess) -> None:
    answer = registry.push_manifest("limits", "-tag", b"{}", OCI_MANIFEST)
    assert (answer.status, answer.codes) == (400, ["TAG_INVALID"])


def test_manifest_over_4_mib_is_refused(registry: RegistryProcess) -> None:
    big = b" " * ((4 << 20) + 1)
    answer = registry.push_manifest("limits", "big", big, "application/x-anything")
    assert (answer.status, answer.codes) == (413, ["SIZE_INVALID"])


def test_any_media_type_is_stored_as_it_came(registry: RegistryProcess) -> None:
    data = b"\0 not even JSON"
    done = registry.push_manifest("any/type", "v1", data, "application/vnd.example+x")
    assert done.status == 201, done
    answer = registry.get("/v2/any/type/manifests/v1")
    assert answer.body == data
    assert answer.headers["Content-Type"] == "application/vnd.example+x"


def test_manifest_of_two_minds_is_refused(registry: RegistryProcess) -> None:
    """CVE-2021-41190: one client reads an image where another reads an index."""
    data = index([])
    answer = registry.push_manifest("two/minds", "v1", data, OCI_MANIFEST)
    assert (answer.status, answer.codes) == (400, ["MANIFEST_INVALID"])


def test_manifest_ahead_of_its_blobs_is_refused(registry: RegistryProcess) -> None:
    data = manifest(b"{}", [b"never pushed"])
    registry.push_blob("ahead", b"{}")
    answer = registry.push_manifest("ahead", "v1", data)
    assert (answer.status, answer.codes) == (404, ["MANIFEST_BLOB_UNKNOWN"])
    assert answer.json["errors"][0]["detail"] == [{"digest": digest_of(b"never pushed")}]


def test_another_repository_gives_nothing_out(registry: RegistryProcess) -> None:
    digest = registry.push_blob("mine", b"secret of mine")
    assert registry.get(f"/v2/yours/blobs/{digest}").status == 404


@pytest.mark.parametrize(
    ("method", "path"),
    [("POST", "/v2/"), ("PUT", "/v2/a/tags/list"), ("DELETE", "/v2/_catalog"), ("PATCH", "/v2/")],
)
def test_methods_that_are_none(registry: RegistryProcess, method: str, path: str) -> None:
    answer = registry.request(method, path)
    assert (answer.status, answer.codes) == (405, ["UNSUPPORTED"])
    assert "GET" in answer.headers["Allow"]


@pytest.mark.parametrize("path", ["/", "/v1/", "/v2/a", "/v2/a/blobs/", "/v2/../etc/passwd"])
def test_paths_that_are_none(registry: RegistryProcess, path: str) -> None:
    assert registry.get(path).status == 404


def test_catalog_has_pages() -> None:
    with RegistryProcess() as registry:
        for name in ("b/one", "a", "b/two"):
            registry.push_image(name, "latest")
        assert registry.get("/v2/_catalog").json == {"repositories": ["a", "b/one", "b/two"]}
        first = registry.get("/v2/_catalog", {"n": 2})
        assert first.json == {"repositories": ["a", "b/one"]}
        assert first.headers["Link"] == '</v2/_catalog?n=2&last=b%2Fone>; rel="next"'
        assert registry.get("/v2/_catalog", {"n": 2, "last": "b/one"}).json["repositories"] == [
            "b/two"
        ]
        bad = registry.get("/v2/_catalog", {"n": "-1"})
        assert (bad.status, bad.codes) == (400, ["PAGINATION_NUMBER_INVALID"])


def test_pull_again_is_answered_with_304(registry: RegistryProcess) -> None:
    registry.push_image("etag", "latest")
    tag = registry.get("/v2/etag/manifests/latest").headers["ETag"]
    answer = registry.get("/v2/etag/manifests/latest", **{"If-None-Match": tag})
    assert (answer.status, answer.body) == (304, b"")


# Who may


@pytest.fixture(scope="module")
def users(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("users") / "htpasswd"
    line = run("htpasswd", "ann", stdin="s3cret\n")
    assert line.returncode == 0, line
    file.write_text(f"# who may\n{line.stdout}")
    return file


def basic(user: str, password: str) -> dict[str, str]:
    encoded = base64.b64encode(f"{user}:{password}".encode()).decode()
    return {"Authorization": f"Basic {encoded}"}


def test_basic_authentication(users: Path) -> None:
    with RegistryProcess("--htpasswd", str(users)) as registry:
        refused = registry.get("/v2/")
        assert (refused.status, refused.codes) == (401, ["UNAUTHORIZED"])
        assert refused.headers["WWW-Authenticate"].startswith("Basic realm=")
        for headers in (
            basic("ann", "wrong"),
            basic("bob", "s3cret"),
            basic("ann", "s3cret" * 20),
            {"Authorization": "Bearer token"},
            {"Authorization": "Basic !"},
        ):
            assert registry.get("/v2/", **headers).status == 401
        for _ in range(2):
            assert registry.get("/v2/", **basic("ann", "s3cret")).status == 200
        assert registry.request("POST", "/v2/a/blobs/uploads/").status == 401


def test_users_change_while_it_runs(users: Path, tmp_path: Path) -> None:
    file = tmp_path / "htpasswd"
    file.write_text(users.read_text())
    with RegistryProcess("--htpasswd", str(file)) as registry:
        ann = basic("ann", "s3cret")
        assert registry.get("/v2/", **ann).status == 200
        file.write_text("no line of a user\n")
        assert registry.get("/v2/", **ann).status == 200
        file.write_text(run("htpasswd", "bob", stdin="other\n").stdout)
        assert registry.get("/v2/", **ann).status == 401
        assert registry.get("/v2/", **basic("bob", "other")).status == 200


def test_everybody_pulls_and_users_push(users: Path) -> None:
    with RegistryProcess("--htpasswd", str(users), "--anonymous-pull") as registry:
        ann = basic("ann", "s3cret")
        data = b"for everybody"
        query = {"digest": digest_of(data)}
        uploads = "/v2/open/blobs/uploads/"
        assert registry.request("POST", uploads, query, body=data).status == 401
        assert registry.request("POST", uploads, query, body=data, headers=ann).status == 201
        assert registry.get(f"/v2/open/blobs/{digest_of(data)}").body == data
        assert registry.get("/v2/").status == 401
        assert "127.0.0.1 - ann [" in registry.log_text()


def test_hashes_other_than_bcrypt_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "htpasswd"
    file.write_text("ann:{SHA}qUqP5cyxm6YcTAhz05Hph5gvu9M=\n")
    done = run("serve", "--store", str(tmp_path / "store"), "--htpasswd", str(file))
    assert done.returncode == 1
    assert f"{file}:1: not a user with a bcrypt hash" in done.stderr


def test_tls(tmp_path: Path) -> None:
    certificate, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    subprocess.run(
        "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 "
        f"-subj /CN=registry -addext subjectAltName=IP:127.0.0.1 -keyout {key} "
        f"-out {certificate}",
        shell=True,
        check=True,
        capture_output=True,
    )
    context = ssl.create_default_context(cafile=str(certificate))
    with RegistryProcess("--tls-cert", str(certificate), "--tls-key", str(key)) as registry:
        assert registry.url.startswith("https://")
        data = os.urandom(3 << 20)
        query = {"digest": digest_of(data)}
        done = registry.request("POST", "/v2/a/blobs/uploads/", query, body=data, context=context)
        assert done.status == 201, done
        answer = registry.request("GET", done.location, context=context)
        assert answer.body == data
    only_half = run("serve", "--store", str(tmp_path / "store"), "--tls-key", str(key))
    assert "--tls-cert and --tls-key belong together" in only_half.stderr


@pytest.mark.parametrize("flag", ["--read-only", "--no-delete"])
def test_modes_that_refuse(flag: str) -> None:
    with RegistryProcess() as registry:
        digest = registry.push_image("kept", "latest")
        registry.stop()
        refusing = RegistryProcess(flag, directory=registry.directory)
        with refusing:
            path = f"/v2/kept/manifests/{digest}"
            assert refusing.get(path).status == 200
            answer = refusing.request("DELETE", path)
            assert (answer.status, answer.codes) == (405, ["UNSUPPORTED"])
            begun = refusing.request("POST", "/v2/kept/blobs/uploads/")
            assert begun.status == (405 if flag == "--read-only" else 202)


# Crashes


def test_upload_is_resumed_after_sigkill() -> None:
    with RegistryProcess() as registry:
        data = os.urandom(3 << 20)
        half = len(data) // 2
        begun = registry.request("POST", "/v2/a/blobs/uploads/")
        sent = registry.request("PATCH", begun.location, body=data[:half])
        assert sent.status == 202, sent
        registry.kill()
        registry.start()
        status = registry.get(sent.location)
        assert (status.status, status.headers["Range"]) == (204, f"0-{half - 1}")
        # No other repository may go on with it.
        assert registry.get(sent.location.replace("/v2/a/", "/v2/b/")).status == 404
        done = registry.request("PUT", sent.location, {"digest": digest_of(data)}, body=data[half:])
        assert done.status == 201, done
        assert registry.get(done.location).body == data


def test_what_was_acknowledged_is_there_after_sigkill() -> None:
    with RegistryProcess() as registry:
        stop = threading.Event()
        acknowledged: list[tuple[str, str]] = []

        def push() -> None:
            number = 0
            while not stop.is_set():
                number += 1
                try:
                    digest = registry.push_image("crash", f"v{number}", os.urandom(1 << 16))
                except (OSError, AssertionError):
                    return
                acknowledged.append((f"v{number}", digest))

        for round_ in range(3):
            pusher = threading.Thread(target=push)
            before = len(acknowledged)
            pusher.start()
            wait_until(lambda before=before: len(acknowledged) >= before + 5, "five pushes")
            registry.kill()
            stop.set()
            pusher.join()
            stop.clear()
            registry.start()
            for tag, digest in acknowledged[before:]:
                answer = registry.get(f"/v2/crash/manifests/{tag}")
                assert answer.status == 200, (round_, tag, answer)
                assert answer.headers["Docker-Content-Digest"] == digest
                for layer in json.loads(answer.body)["layers"]:
                    body = registry.get(f"/v2/crash/blobs/{layer['digest']}").body
                    assert digest_of(body) == layer["digest"]
            acknowledged.clear()


def test_client_that_goes_away_leaves_a_resumable_upload(registry: RegistryProcess) -> None:
    data = os.urandom(2 << 20)
    begun = registry.request("POST", "/v2/gone/blobs/uploads/")
    host, port = registry.address.split(":")
    with socket.create_connection((host, int(port))) as sock:
        head = f"PATCH {begun.location} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(data)}\r\n\r\n"
        sock.sendall(head.encode() + data[: 1 << 20])
    wait_until(
        lambda: registry.get(begun.location).headers["Range"] == f"0-{(1 << 20) - 1}",
        "the server has what was sent",
    )
    rest = registry.request(
        "PATCH",
        begun.location,
        body=data[1 << 20 :],
        headers={"Content-Range": f"{1 << 20}-{len(data) - 1}"},
    )
    assert rest.status == 202, rest
    done = registry.request("PUT", rest.location, {"digest": digest_of(data)})
    assert done.status == 201, done


def test_two_requests_at_once_do_not_mix(registry: RegistryProcess) -> None:
    begun = registry.request("POST", "/v2/both/blobs/uploads/")
    pieces = [os.urandom(1 << 20) for _ in range(4)]
    answers: list[int] = []

    def send(piece: bytes) -> None:
        headers = {"Content-Range": f"0-{len(piece) - 1}"}
        answers.append(
            registry.request("PATCH", begun.location, body=piece, headers=headers).status
        )

    threads = [threading.Thread(target=send, args=(piece,)) for piece in pieces]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(answers) == [202, 416, 416, 416]
    assert registry.get(begun.location).headers["Range"] == f"0-{(1 << 20) - 1}"


def test_full_disk_is_told_and_leaves_the_upload_as_it_was(tmp_path: Path) -> None:
    store = tmp_path / "store"
    store.mkdir()
    # The file system is the server's alone: it goes with its mount namespace.
    mount = f'mount -t tmpfs -o size=8m tmpfs {store} && exec "$@"'
    prefix = ("unshare", "-m", "sh", "-c", mount, "sh")
    with RegistryProcess(prefix=prefix, directory=str(tmp_path)) as registry:
        small, big = os.urandom(1 << 20), os.urandom(16 << 20)
        begun = registry.request("POST", "/v2/full/blobs/uploads/")
        sent = registry.request("PATCH", begun.location, body=small)
        assert sent.status == 202, sent
        full = registry.request("PATCH", sent.location, body=big)
        assert full.status == 507, full
        assert full.json["errors"][0]["message"] == "no space left on device"
        # What fitted of the big one may stay, the small one is whole; the next try works.
        assert registry.request("DELETE", sent.location).status == 204
        digest = registry.push_blob("full", small)
        assert registry.get(f"/v2/full/blobs/{digest}").body == small
        refused = registry.request(
            "POST", "/v2/full/blobs/uploads/", {"digest": digest_of(big)}, body=big
        )
        assert refused.status == 507, refused
        registry.push_image("full", "latest")
        assert registry.get("/v2/full/manifests/latest").status == 200


# Garbage


def test_collection() -> None:
    with RegistryProcess() as registry:
        kept = registry.push_image("kept", "latest", b"a kept layer")
        gone = registry.push_image("gone", "latest", b"a layer that goes")
        loose = registry.push_blob("kept", b"no manifest names it")
        registry.request("POST", "/v2/kept/blobs/uploads/")
        untagged = registry.push_image("kept", "moves", b"before")
        registry.push_image("kept", "moves", b"after")
        subject = {"subject": {"digest": kept, "mediaType": OCI_MANIFEST, "size": 1}}
        registry.push_blob("kept", b"{}")
        signature = manifest(b"{}", [], **subject)
        assert registry.push_manifest("kept", digest_of(signature), signature).status == 201
        assert registry.request("DELETE", f"/v2/gone/manifests/{gone}").status == 202

        busy = run("gc", "--store", registry.store)
        assert busy.returncode == 1
        assert "is in use by another process" in busy.stderr
        registry.stop()

        young = run("gc", "--store", registry.store)
        assert "0 manifests, 0 unnamed blobs, 0 uploads" in young.stdout, young
        done = run("gc", "--store", registry.store, "--keep", "0s")
        assert done.returncode == 0, done
        assert not os.listdir(f"{registry.store}/uploads")
        files = registry.blob_files()
        assert not files & {loose, gone, digest_of(b"a layer that goes")}
        assert {kept, untagged, digest_of(signature), digest_of(b"before")} <= files

        done = run("gc", "--store", registry.store, "--keep", "0s", "--untagged")
        files = registry.blob_files()
        assert not files & {untagged, digest_of(b"before")}
        assert {kept, digest_of(signature), digest_of(b"a kept layer")} <= files

        registry.start()
        assert registry.get("/v2/_catalog").json == {"repositories": ["kept"]}
        assert registry.get("/v2/kept/manifests/latest").status == 200


def test_sighup_collects_while_it_runs(tmp_path: Path) -> None:
    import signal

    with RegistryProcess(directory=str(tmp_path)) as before:
        before.push_blob("a", b"old")
    with RegistryProcess("--keep", "0s", directory=str(tmp_path)) as registry:
        # That of the start would take the upload away in the middle.
        wait_until(lambda: "collected " in registry.log_text(), "the first collection is over")
        digest = registry.push_blob("a", b"loose")
        os.kill(registry.pid, signal.SIGHUP)
        wait_until(lambda: digest not in registry.blob_files(), "it was collected")
        assert registry.get(f"/v2/a/blobs/{digest}").status == 404


# The program


def test_the_store_is_one_servers(tmp_path: Path) -> None:
    with RegistryProcess() as registry:
        second = run("serve", "--store", registry.store, "--listen", "127.0.0.1:0")
        assert second.returncode == 1
        assert second.stderr == (
            f"pier registry: registry store {registry.store} is in use by another process\n"
        )


def test_an_address_in_use(registry: RegistryProcess, tmp_path: Path) -> None:
    second = run("serve", "--store", str(tmp_path / "store"), "--listen", registry.address)
    assert second.returncode == 1
    assert second.stderr == (
        f"pier registry: listen on {registry.address}: address already in use\n"
    )


def test_log_line_cannot_be_broken(registry: RegistryProcess) -> None:
    registry.get("/v2/", **{"User-Agent": 'evil" \t200'})
    wait_until(lambda: "evil" in registry.log_text(), "the line is written")
    line = next(line for line in registry.log_text().splitlines() if "evil" in line)
    assert '"evil\\" \\t200"' in line
