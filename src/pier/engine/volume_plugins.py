"""Volume drivers of others', by Docker's plugin protocol (docs.docker.com/engine/extend).

    POST /Plugin.Activate            {}                            {"Implements": ["VolumeDriver"]}
    POST /VolumeDriver.Create        {"Name": …, "Opts": {…}}      {"Err": ""}
                      .Remove        {"Name": …}                   {"Err": ""}
                      .Mount         {"Name": …, "ID": …}          {"Mountpoint": …, "Err": ""}
                      .Unmount       {"Name": …, "ID": …}          {"Err": ""}
                      .Path, .Get, .List, .Capabilities

A driver is found by its name when it is first asked for, in this order in each directory:
`NAME.sock` or `NAME/NAME.sock`, a unix socket; `NAME.spec`, an address in a line; `NAME.json`, with
"Addr" and perhaps "TLSConfig". It is activated anew by each pierd.
"""

import http.client
import json
import os
import socket
import ssl
import stat
from collections.abc import Iterator, Sequence
from typing import Any
from urllib.parse import urlsplit

from pier.errors import Internal, NotFound

TIMEOUT_S = 30.0
MAX_ANSWER_BYTES = 16 << 20
_KIND = "application/vnd.docker.plugins.v1.2+json"
_ENDINGS = (".sock", ".spec", ".json")


class DriverSilent(Internal):
    """It cannot be reached, or did not answer."""


class VolumePlugins:
    """The drivers in the directories. Every method that asks one blocks, and is for a thread."""

    def __init__(self, directories: Sequence[str]) -> None:
        self._directories = directories
        self._active: dict[str, VolumePlugin] = {}

    def names(self) -> list[str]:
        """The names of all that seem to be there, asked for or not. Does not block."""
        found = set()
        for directory in self._directories:
            for name in _listed(directory):
                stem, ending = os.path.splitext(name)
                if ending in _ENDINGS:
                    found.add(stem)
                elif os.path.exists(f"{directory}/{name}/{name}.sock"):
                    found.add(name)
        return sorted(found)

    def get(self, name: str) -> "VolumePlugin":
        """Return an active driver. Raises NotFound, Internal when it does not answer."""
        found = self._active.get(name)
        if found is None:
            found = VolumePlugin(name, *self._find(name))
            if "VolumeDriver" not in found.call("Plugin.Activate").get("Implements", ()):
                raise NotFound(f'plugin "{name}" does not implement "VolumeDriver" interface')
            self._active[name] = found
        return found

    def all(self) -> Iterator["VolumePlugin"]:
        """Yield those that answer as volume drivers."""
        for name in self.names():
            try:
                yield self.get(name)
            except (NotFound, Internal):
                continue

    def _find(self, name: str) -> tuple[str, dict[str, Any]]:
        """Return a driver's address, "unix:///path" or a URL, and its TLS settings."""
        if "/" not in name and not name.startswith("."):
            for directory in self._directories:
                for path in (f"{directory}/{name}.sock", f"{directory}/{name}/{name}.sock"):
                    if _is_socket(path):
                        return f"unix://{path}", {}
                for ending in (".spec", ".json"):
                    path = f"{directory}/{name}{ending}"
                    if os.path.exists(path):
                        return _read(path, name)
        raise NotFound(f'plugin "{name}" not found')


class VolumePlugin:
    def __init__(self, name: str, address: str, tls: dict[str, Any]) -> None:
        self.name = name
        self._address = address
        self._tls = tls
        self._scope = ""

    @property
    def scope(self) -> str:
        """What it says of itself, "local" or "global"; an old one knows no such question."""
        if not self._scope:
            try:
                answer = self.call("VolumeDriver.Capabilities")
                scope = str(answer.get("Capabilities", {}).get("Scope", "")).lower()
            except Internal:
                scope = ""
            self._scope = scope if scope in ("local", "global") else "local"
        return self._scope

    def create(self, name: str, options: dict[str, str]) -> None:
        self.call("VolumeDriver.Create", Name=name, Opts=options)

    def remove(self, name: str) -> None:
        self.call("VolumeDriver.Remove", Name=name)

    def mount(self, name: str, holder: str) -> str:
        """Return where it is mounted. It is, until `unmount` was called for each holder."""
        return str(self.call("VolumeDriver.Mount", Name=name, ID=holder).get("Mountpoint", ""))

    def unmount(self, name: str, holder: str) -> None:
        self.call("VolumeDriver.Unmount", Name=name, ID=holder)

    def path(self, name: str) -> str:
        """Return where it is mounted, "" while it is not."""
        return str(self.call("VolumeDriver.Path", Name=name).get("Mountpoint") or "")

    def get(self, name: str) -> dict[str, Any]:
        """Return its "Name", "Mountpoint", "CreatedAt" and "Status", as far as it tells."""
        found = self.call("VolumeDriver.Get", Name=name).get("Volume")
        if not isinstance(found, dict):
            raise NotFound(f"get {name}: no such volume")
        return found

    def list(self) -> list[dict[str, Any]]:
        found = self.call("VolumeDriver.List").get("Volumes") or []
        return [entry for entry in found if isinstance(entry, dict) and entry.get("Name")]

    def call(self, method: str, **arguments: Any) -> dict[str, Any]:
        """Ask it. Raises Internal with its own words, or with why it did not answer."""
        body = json.dumps(arguments).encode() if arguments else b"{}"
        try:
            connection = self._connect()
            try:
                headers = {"Accept": _KIND, "Content-Type": _KIND}
                connection.request("POST", f"/{method}", body, headers)
                response = connection.getresponse()
                text = response.read(MAX_ANSWER_BYTES)
            finally:
                connection.close()
        except (OSError, http.client.HTTPException) as exc:
            raise DriverSilent(f'Post "{self._address}/{method}": {exc}') from exc
        try:
            # The first of several values, as Go's decoder takes it.
            answer, _ = json.JSONDecoder().raw_decode(text.decode().lstrip())
        except ValueError:
            answer = {"Err": text.decode(errors="replace").strip()}
        if answer is None:
            answer = {}  # what Go's encoders make of nothing, which theirs and dockerd's decoders take
        if not isinstance(answer, dict):
            raise Internal(f"{method}: not an object: {text[:100]!r}")
        if response.status != http.client.OK:
            raise Internal(f"{method}: {answer.get('Err') or response.reason}")
        if answer.get("Err"):
            raise Internal(str(answer["Err"]))
        return answer

    def _connect(self) -> http.client.HTTPConnection:
        parts = urlsplit(self._address)
        if parts.scheme == "unix":
            return _UnixConnection(parts.path)
        host, port = parts.hostname or "", parts.port
        if not self._tls and parts.scheme != "https":
            return http.client.HTTPConnection(host, port, timeout=TIMEOUT_S)
        return http.client.HTTPSConnection(
            host, port, timeout=TIMEOUT_S, context=_tls_context(self._tls)
        )


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: str) -> None:
        super().__init__("plugin", timeout=TIMEOUT_S)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


def _tls_context(settings: dict[str, Any]) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=settings.get("CAFile") or None)
    if settings.get("InsecureSkipVerify"):
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    if settings.get("CertFile"):
        context.load_cert_chain(settings["CertFile"], settings.get("KeyFile") or None)
    return context


def _read(path: str, name: str) -> tuple[str, dict[str, Any]]:
    try:
        with open(path, encoding="utf-8") as file:
            text = file.read().strip()
        if path.endswith(".spec"):
            return _address(text, name), {}
        found = json.loads(text)
        return _address(str(found["Addr"]), name), found.get("TLSConfig") or {}
    except (OSError, ValueError, KeyError, TypeError) as exc:
        raise Internal(f'plugin "{name}": {path}: {exc}') from exc


def _address(text: str, name: str) -> str:
    if "://" not in text:
        raise Internal(f'plugin "{name}": invalid address "{text}"')
    return text


def _listed(directory: str) -> list[str]:
    try:
        return os.listdir(directory)
    except OSError:
        return []


def _is_socket(path: str) -> bool:
    try:
        return stat.S_ISSOCK(os.stat(path).st_mode)
    except OSError:
        return False
