"""A real embedded registry of the tests' own, and a client that hides nothing of the protocol."""

import hashlib
import http.client
import json
import os
import shutil
import signal
import socket
import ssl
import subprocess
import sysconfig
import tempfile
from collections.abc import Mapping, Sequence
from typing import Any, Self
from urllib.parse import urlencode, urlsplit


class Answer:
    """What came back; `headers` are looked up without regard to case."""

    def __init__(self, response: http.client.HTTPResponse) -> None:
        self.status = response.status
        self.headers = response.headers
        self.body = response.read()

    def __repr__(self) -> str:
        return f"{self.status} {dict(self.headers)} {self.body[:400]!r}"

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def codes(self) -> list[str]:
        """The codes of an error's body."""
        return [error["code"] for error in self.json["errors"]]

    @property
    def location(self) -> str:
        parts = urlsplit(self.headers["Location"])
        return parts.path + (f"?{parts.query}" if parts.query else "")


class RegistryProcess:
    """`pier-registry serve` on a port of 127.0.0.1; use it in a `with`.

    `prefix` is an argv that goes before the command, to run it in another network namespace.
    """

    def __init__(
        self, *flags: str, prefix: Sequence[str] = (), directory: str = "", port: int = 0
    ) -> None:
        self._own = not directory
        self.directory = directory or tempfile.mkdtemp(prefix="pier-registry-", dir="/var/tmp")
        self.store = os.path.join(self.directory, "store")
        self.log = os.path.join(self.directory, "registry.log")
        command = os.path.join(sysconfig.get_path("scripts"), "pier-registry")
        self._command = [*prefix, command, "serve", "--store", self.store]
        self._command += ["--listen", f"127.0.0.1:{port}", *flags]
        self._process: subprocess.Popen[str] | None = None
        self.url = ""

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        if self._own:
            shutil.rmtree(self.directory)

    @property
    def address(self) -> str:
        """`127.0.0.1:PORT`."""
        return urlsplit(self.url).netloc

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def start(self) -> None:
        with open(self.log, "ab") as log:
            self._process = subprocess.Popen(
                self._command, stdout=subprocess.PIPE, stderr=log, text=True
            )
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert " listens on " in line, f"{line}{self.log_text()}"
        self.url = line.split()[-1]

    def stop(self) -> None:
        """End it as an administrator would."""
        self._end(signal.SIGTERM, 0)

    def kill(self) -> None:
        """End it in the middle of whatever it does."""
        self._end(signal.SIGKILL, -signal.SIGKILL)

    def log_text(self) -> str:
        with open(self.log) as file:
            return file.read()

    def blob_files(self) -> set[str]:
        """The digests whose bytes are in the store."""
        top = os.path.join(self.store, "blobs")
        return {
            f"{kind}:{name}" for kind in os.listdir(top) for name in os.listdir(f"{top}/{kind}")
        }

    def _end(self, number: signal.Signals, status: int) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        process.send_signal(number)
        ended = process.wait(60)
        assert process.stdout is not None
        process.stdout.close()
        assert ended == status, self.log_text()

    # The protocol

    def request(
        self,
        method: str,
        path: str,
        query: Mapping[str, Any] | None = None,
        *,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        context: ssl.SSLContext | None = None,
    ) -> Answer:
        """Send one request on a connection of its own."""
        if query:
            path += ("&" if "?" in path else "?") + urlencode(query, doseq=True)
        connection = self._connect(context)
        try:
            connection.request(method, path, body=body, headers=dict(headers or {}))
            return Answer(connection.getresponse())
        finally:
            connection.close()

    def _connect(self, context: ssl.SSLContext | None) -> http.client.HTTPConnection:
        parts = urlsplit(self.url)
        if parts.scheme == "unix":
            connection = http.client.HTTPConnection("localhost", timeout=60)
            connection.sock = socket.socket(socket.AF_UNIX)
            connection.sock.connect(parts.path)
            return connection
        assert parts.hostname
        if parts.scheme == "https":
            return http.client.HTTPSConnection(
                parts.hostname, parts.port, timeout=60, context=context
            )
        return http.client.HTTPConnection(parts.hostname, parts.port, timeout=60)

    def get(self, path: str, query: Mapping[str, Any] | None = None, **headers: str) -> Answer:
        return self.request("GET", path, query, headers=headers)

    def push_blob(self, name: str, data: bytes, algorithm: str = "sha256") -> str:
        """Push a blob with POST and PUT; return its digest."""
        digest = digest_of(data, algorithm)
        begun = self.request("POST", f"/v2/{name}/blobs/uploads/")
        assert begun.status == 202, begun
        done = self.request("PUT", begun.location, {"digest": digest}, body=data)
        assert done.status == 201, done
        return digest

    def push_manifest(
        self, name: str, reference: str, data: bytes, media_type: str = "", **query: Any
    ) -> Answer:
        media_type = media_type or json.loads(data).get("mediaType", OCI_MANIFEST)
        return self.request(
            "PUT",
            f"/v2/{name}/manifests/{reference}",
            query,
            body=data,
            headers={"Content-Type": media_type},
        )

    def push_image(self, name: str, reference: str, layer: bytes = b"a layer") -> str:
        """Push a small image of one layer; return its manifest's digest."""
        config = b'{"architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":[]}}'
        self.push_blob(name, config)
        self.push_blob(name, layer)
        data = manifest(config, [layer])
        done = self.push_manifest(name, reference, data)
        assert done.status == 201, done
        return digest_of(data)


class Served(RegistryProcess):
    """The protocol's client, of a registry that somebody else runs."""

    def __init__(self, url: str) -> None:
        self.url = url


OCI_INDEX = "application/vnd.oci.image.index.v1+json"
OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_CONFIG = "application/vnd.oci.image.config.v1+json"
OCI_LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"


def digest_of(data: bytes, algorithm: str = "sha256") -> str:
    return f"{algorithm}:{hashlib.new(algorithm, data).hexdigest()}"


def descriptor(
    data: bytes, media_type: str, algorithm: str = "sha256", **more: Any
) -> dict[str, Any]:
    digest = digest_of(data, algorithm)
    return {"mediaType": media_type, "digest": digest, "size": len(data), **more}


def manifest(
    config: bytes,
    layers: Sequence[bytes],
    *,
    config_type: str = OCI_CONFIG,
    layer_type: str = OCI_LAYER,
    algorithm: str = "sha256",
    **more: Any,
) -> bytes:
    """Return an image manifest's bytes; what is None in `more` is left out."""
    document = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": descriptor(config, config_type, algorithm),
        "layers": [descriptor(layer, layer_type, algorithm) for layer in layers],
        **more,
    }
    return json.dumps({k: v for k, v in document.items() if v is not None}).encode()


def index(manifests: Sequence[dict[str, Any]], **more: Any) -> bytes:
    document = {
        "schemaVersion": 2,
        "mediaType": OCI_INDEX,
        "manifests": list(manifests),
        **more,
    }
    return json.dumps(document).encode()
