"""`pier build -o`: what becomes of the result, and files that the engine sends for it."""

import os
import sys
import threading

from pier.cli.errors import Failure

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from pier.cli.flags import Options
    from pier.cli.http import Client

_FILES = ("oci", "docker", "tar")


class Outputs:
    """`orders` is the API's `outputs`; `take` fetches one of them to where the user wants it."""

    def __init__(self, options: "Options") -> None:
        self.orders: list[dict[str, Any]] = []
        self._targets: list[str] = []
        self._threads: list[threading.Thread] = []
        self._failures: list[Exception] = []
        for text in options.list("output"):
            self._add(text)
        if options.on("push"):
            self._order("image", {"push": "true"}, "")
        if options.on("load") and not any(o["Type"] == "image" for o in self.orders):
            self._order("image", {}, "")
        self._mounts = options.text("cache-mounts-to")
        annotations = [text.partition("=")[::2] for text in options.list("annotation")]
        if annotations and not self.orders:
            self._order("image", {}, "")
        for key, value in annotations:
            level, colon, name = key.rpartition(":")
            attribute = f"annotation-{level}.{name}" if colon else f"annotation.{name}"
            for order in self.orders:
                order["Attrs"][attribute] = value

    def _add(self, text: str) -> None:
        import csv

        words = next(csv.reader([text]), [])
        if len(words) == 1 and "=" not in text:
            if text == "-":
                self._order("tar", {}, "-")
            else:
                self._order("local", {}, text)
            return
        attributes = {}
        for word in words:
            key, equals, value = word.partition("=")
            if not equals:
                raise Failure(f"invalid value {word}")
            attributes[key.strip().lower()] = value
        kind = attributes.pop("type", "")
        if not kind:
            raise Failure("type is required for output")
        target = attributes.pop("dest", "")
        if kind == "registry":
            kind, attributes["push"] = "image", "true"
        if kind == "local" and not target:
            raise Failure("dest is required for local exporter")
        if kind == "docker" and not target:
            kind = "image"  # loaded, which is what an image in the engine is
        if kind in _FILES and not target:
            target = "-"
        self._order(kind, attributes, target)

    def _order(self, kind: str, attributes: "dict[str, str]", target: str) -> None:
        if target == "-" and sys.stdout.isatty():
            raise Failure("dest file is required for this exporter: refusing to write to console")
        if target and target != "-" and kind in _FILES and os.path.isdir(target):
            raise Failure(f"destination {target} is a directory")
        self.orders.append({"Type": kind, "Attrs": attributes})
        self._targets.append(target)

    def take(self, client: "Client", told: "dict[str, Any]") -> None:
        """Begin to fetch what the engine has ready; it goes on beside the build's progress."""
        number = int(told["Number"])
        kind, target = "tar", self._mounts
        if number >= 0:
            kind, target = str(self.orders[number]["Type"]), self._targets[number]
        work = threading.Thread(target=self._fetch, args=(client, told["ID"], kind, target))
        self._threads.append(work)
        work.start()

    def wait(self) -> None:
        """Wait until all of it is written. Raises Failure."""
        for thread in self._threads:
            thread.join()
        for failure in self._failures:
            raise Failure(f"exporting: {failure}") from failure

    def _fetch(self, client: "Client", token: str, kind: str, target: str) -> None:
        try:
            response = client.get("/pier/build/export", {"id": token})
            if kind == "local":
                _unpack(response.chunks(), target)
            else:
                _write(response.chunks(), target)
        except (OSError, Failure) as error:
            self._failures.append(error)


def _write(pieces: "Any", target: str) -> None:
    if target == "-":
        for piece in pieces:
            sys.stdout.buffer.write(piece)
        sys.stdout.buffer.flush()
        return
    directory = os.path.dirname(target)
    if directory:
        os.makedirs(directory, exist_ok=True)
    partial = f"{target}.partial"
    with open(partial, "wb") as file:
        for piece in pieces:
            file.write(piece)
    os.replace(partial, target)


def _unpack(pieces: "Any", target: str) -> None:
    import tarfile

    os.makedirs(target, exist_ok=True)
    reader, writer = os.pipe()

    def feed() -> None:
        try:
            with open(writer, "wb") as pipe:
                pipe.writelines(pieces)
        except BrokenPipeError:
            return

    thread = threading.Thread(target=feed)
    thread.start()
    try:
        with (
            open(reader, "rb") as pipe,
            tarfile.open(fileobj=pipe, mode="r|") as tar,
        ):
            for member in tar:
                name = os.path.normpath(member.name)
                if name.startswith(("..", "/")):
                    raise Failure(f"the engine sent a path outside of the directory: {member.name}")
                # Owners and modes are the image's where this may set them.
                tar.extract(member, target, filter="fully_trusted" if os.geteuid() == 0 else "tar")
            while pipe.read(1 << 20):
                pass
    finally:
        thread.join()
