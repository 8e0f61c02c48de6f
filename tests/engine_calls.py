"""The engine's API without a client in between, for what fixtures ask after every test.

The docker command takes a thirtieth of a second of processor time to say that there is nothing to
remove; this takes a thousandth.
"""

import http.client
import json
import socket
from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import quote, urlencode

DANGLING = '{"dangling": {"true": true}}'


class _Connection(http.client.HTTPConnection):
    """HTTP over a unix socket."""

    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=60)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


class Calls:
    """Calls of the API on the socket of an engine, each on a connection of its own."""

    def __init__(self, path: str) -> None:
        self._path = path

    def __call__(
        self, method: str, path: str, query: Mapping[str, str] | None = None
    ) -> tuple[int, Any]:
        """Return an answer's status and its JSON, None for an empty one. Raises OSError."""
        connection = _Connection(self._path)
        try:
            connection.request(method, f"/v1.44{path}?{urlencode(query or {})}")
            answer = connection.getresponse()
            body = answer.read()
            return answer.status, json.loads(body) if body else None
        finally:
            connection.close()

    def answers(self) -> bool:
        """Return whether an engine answers on the socket."""
        try:
            return self("GET", "/version")[0] == 200
        except (OSError, http.client.HTTPException):
            return False

    def containers(self) -> list[str]:
        """Return the IDs of all containers."""
        return [found["Id"] for found in self._known("/containers/json", {"all": "1"})]

    def remove_container(self, identity: str) -> bool:
        """Remove a container, whatever it does, and its anonymous volumes.

        Return False when somebody else is about to do so.
        """
        status, said = self("DELETE", f"/containers/{identity}", {"force": "1", "v": "1"})
        assert status in (204, 404, 409), f"removing container {identity}: {status} {said}"
        return bool(status != 409)

    def images(self, **query: str) -> list[dict[str, Any]]:
        return self._known("/images/json", query)

    def image_ids(self) -> set[str]:
        """Return the IDs of all images, those that only others are made from among them."""
        return {image["Id"] for image in self.images(all="1")}

    def has_image(self, name: str) -> bool:
        return self("GET", f"/images/{quote(name)}/json")[0] == 200

    def names_of(self, image: str) -> list[str]:
        """Return an image's tags and digests."""
        said = self("GET", f"/images/{quote(image)}/json")[1]
        return [*(said["RepoTags"] or []), *(said["RepoDigests"] or [])]

    def remove_image(self, name: str) -> None:
        """Remove a name, or an image by its ID with all its names."""
        status, said = self("DELETE", f"/images/{quote(name)}", {"force": "1"})
        assert status in (200, 404), f"removing image {name}: {status} {said}"

    def remove_named(self, part: str) -> None:
        """Remove the images in whose names `part` is."""
        for image in self.images():
            for name in image["RepoTags"] or ():
                if part in name:
                    self.remove_image(name)

    def remove_built(self, part: str) -> None:
        """Remove the images in whose names `part` is, the build cache, and what dangles."""
        self.remove_named(part)
        self.prune_builds()
        self._remove_images(image["Id"] for image in self.images(all="1", filters=DANGLING))

    def remove_images_but(self, kept: set[str]) -> None:
        """Remove the build cache, and the images whose IDs are not in `kept`."""
        self.prune_builds()
        self._remove_images(self.image_ids() - kept)

    def prune_builds(self) -> None:
        status, said = self("POST", "/build/prune", {"all": "1"})
        assert status == 200, f"pruning the build cache: {status} {said}"

    def remove_networks(self) -> None:
        """Remove all networks that somebody made; those that others are made from after these."""
        custom = {"filters": '{"type": {"custom": true}}'}
        while left := self._known("/networks", custom):
            done = [self("DELETE", f"/networks/{network['Id']}") for network in left]
            assert any(status == 204 for status, _ in done), f"removing networks: {done}"

    def _remove_images(self, identities: Iterable[str]) -> None:
        for identity in identities:  # some are refused: others are made from them
            self("DELETE", f"/images/{quote(identity)}", {"force": "1"})

    def _known(self, path: str, query: Mapping[str, str]) -> list[dict[str, Any]]:
        status, found = self("GET", path, query)
        assert status == 200, f"GET {path}: {status} {found}"
        return list(found or ())
