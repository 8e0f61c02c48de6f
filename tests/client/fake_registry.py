"""A registry that misbehaves: run in an engine's network, `fake_registry.py PORT DIRECTORY`.

It serves one image under every name; the repository's name says what goes wrong. Every request is a
line of JSON in DIRECTORY/requests.
"""

import base64
import gzip
import hashlib
import json
import os
import re
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import ClassVar

from busybox_image import layer_tar

OCI = "application/vnd.oci.image"
MANIFEST = f"{OCI}.manifest.v1+json"
INDEX = f"{OCI}.index.v1+json"
SCHEMA1 = "application/vnd.docker.distribution.manifest.v1+prettyjws"
# Random, so that gzip leaves it as large as it is; large enough to break off in the middle of.
CONTENT = hashlib.shake_256(b"pier").digest(3_000_000)
LAYER = gzip.compress(layer_tar({"content": CONTENT}), 1, mtime=0)
LAYER_TAR = layer_tar({"content": CONTENT})
BELOW = layer_tar({"below": b"right"})


def digest(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


class Image:
    """The blobs and the manifest of a repository, wrong as its name asks."""

    def __init__(self, repository: str) -> None:
        layer = LAYER
        if repository == "corrupt":
            layer = LAYER[:1000] + b"\0" * 1000 + LAYER[2000:]
        diff_id = digest(b"another") if repository in ("diffid", "upper") else digest(LAYER_TAR)
        # Below it, for what goes wrong when a layer has its place already.
        below = [BELOW] if repository == "upper" else []
        machine = {"x86_64": "amd64", "aarch64": "arm64"}[os.uname().machine]
        config = json.dumps(
            {
                "architecture": machine,
                "os": "linux",
                "rootfs": {"type": "layers", "diff_ids": [*map(digest, below), diff_id]},
                "config": {"Cmd": [repository]},
            }
        ).encode()
        self.layer = digest(layer)
        kind = f"{OCI}.layer.v1.tar+gzip"
        config_kind = "application/x-chart" if repository == "chart" else f"{OCI}.config.v1+json"
        manifest = {
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": {"mediaType": config_kind, "digest": digest(config), "size": len(config)},
            "layers": [
                *(
                    {"mediaType": f"{OCI}.layer.v1.tar", "digest": digest(b), "size": len(b)}
                    for b in below
                ),
                {"mediaType": kind, "digest": self.layer, "size": len(layer)},
            ],
        }
        data = json.dumps(manifest).encode()
        self.blobs = {digest(config): config, self.layer: layer, **{digest(b): b for b in below}}
        self.manifests = {digest(data): (MANIFEST, data)}
        self.top = digest(data)
        if repository in ("index", "nomatch"):
            platform = {
                "os": "linux",
                "architecture": "mips" if repository == "nomatch" else machine,
            }
            entry = {"mediaType": MANIFEST, "digest": self.top, "size": len(data)}
            listed = {"schemaVersion": 2, "mediaType": INDEX}
            listed["manifests"] = [{**entry, "platform": platform}]
            data = json.dumps(listed).encode()
            self.top = digest(data)
            self.manifests[self.top] = (INDEX, data)
        if repository == "schema1":
            data = b'{"schemaVersion": 1, "name": "x"}'
            self.top = digest(data)
            self.manifests[self.top] = (SCHEMA1, data)


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    directory = ""
    port = 0
    failed: ClassVar[set[str]] = set()

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        with open(f"{self.directory}/requests", "a") as log:
            seen = {"method": self.command, "path": self.path, "host": self.headers["Host"]}
            seen["auth"] = self.headers.get("Authorization", "")
            seen["range"] = self.headers.get("Range", "")
            log.write(json.dumps(seen) + "\n")
        if self.path.startswith("/token"):
            self.token()
        elif self.path == "/v2/":
            self.answer(200, b"{}")
        elif self.path.startswith("/elsewhere/"):
            self.answer(200, LAYER)
        elif self.path.startswith("/v1/search"):
            row = {"name": "found/it", "description": "d", "star_count": 7, "is_official": True}
            self.answer(200, json.dumps({"results": [row]}).encode())
        elif found := re.fullmatch(r"/v2/([^/]+)/(manifests|blobs)/(.+)", self.path):
            self.serve(*found.groups())
        else:
            self.answer(404, b'{"errors":[{"code":"NAME_UNKNOWN","message":"unknown"}]}')

    def serve(self, repository: str, kind: str, reference: str) -> None:
        if repository == "token" and not self.headers.get("Authorization", "").startswith("Bearer"):
            realm = f"http://localhost:{self.port}/token"
            challenge = f'Bearer realm="{realm}",service="fake",scope="repository:token:pull"'
            body = b'{"errors":[{"code":"UNAUTHORIZED","message":"authentication required"}]}'
            self.answer(401, body, {"WWW-Authenticate": challenge})
            return
        if repository == "denied":
            body = b'{"errors":[{"code":"DENIED","message":"requested access is denied"}]}'
            self.answer(403, body)
            return
        if repository == "limited":
            body = b'{"errors":[{"code":"TOOMANYREQUESTS","message":"pull rate limit"}]}'
            self.answer(429, body)
            return
        image = Image(repository)
        if kind == "manifests":
            media_type, data = image.manifests[image.top if reference == "v1" else reference]
            self.answer(
                200, data, {"Content-Type": media_type, "Docker-Content-Digest": digest(data)}
            )
        else:
            self.blob(repository, image, reference)

    def blob(self, repository: str, image: Image, reference: str) -> None:
        data = image.blobs[reference]
        if reference != image.layer:
            self.answer(200, data)
        elif repository == "wrong":
            self.answer(200, b"\1" * len(data))
        elif repository == "loop":
            self.answer(307, b"", {"Location": self.path})
        elif repository == "leak":
            self.answer(307, b"", {"Location": f"http://127.0.0.1:{self.port}/elsewhere/blob"})
        elif repository == "breaks" or (repository == "once" and "once" not in self.failed):
            self.failed.add("once")
            self.partial(data, len(data) // 2)
        else:
            offset = int((self.headers.get("Range") or "bytes=0-")[6:-1])
            span = f"bytes {offset}-{len(data) - 1}/{len(data)}"
            self.answer(206 if offset else 200, data[offset:], {"Content-Range": span})

    def partial(self, data: bytes, count: int) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data[:count])
        self.close_connection = True

    def token(self) -> None:
        expected = "Basic " + base64.b64encode(b"alice:secret").decode()
        if self.headers.get("Authorization") != expected:
            self.answer(401, b'{"details":"incorrect username or password"}')
            return
        self.answer(200, b'{"token":"t0ken","refresh_token":"r3fresh","expires_in":300}')

    def answer(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


if __name__ == "__main__":
    Handler.port, Handler.directory = int(sys.argv[1]), sys.argv[2]
    ThreadingHTTPServer(("127.0.0.1", Handler.port), Handler).serve_forever()
