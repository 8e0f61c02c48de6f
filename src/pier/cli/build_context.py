"""The context of `pier build`: a directory's files as a tar, without what .dockerignore names."""

import os
import sys

from pier.cli.errors import Failure

TYPE_CHECKING = False
if TYPE_CHECKING:
    import io
    from collections.abc import Iterator
    from typing import IO

    from pier.cli.ignore import Ignore

_IGNORE_FILE = ".dockerignore"
_REMOTE = ("git@", "git://", "ssh://", "http://", "https://", "github.com/")


def is_remote(source: str) -> bool:
    """Tell whether the engine fetches it: a repository or a URL."""
    return source.startswith(_REMOTE)


def body_of(source: str, file: str) -> "tuple[IO[bytes], str, str]":
    """Return what to send, its content type, and the Dockerfile's name in it."""
    if source == "-":
        stdin: io.BufferedReader = sys.stdin.buffer  # type: ignore[assignment]
        head = stdin.peek(512)
        packed = head.startswith((b"\x1f\x8b", b"BZh", b"\xfd7zXZ", b"\x28\xb5\x2f\xfd"))
        if not packed and b"\0" not in head:
            return stdin, "text/plain", ""
        return sys.stdin.buffer, "application/x-tar", file
    if not os.path.isdir(source):
        raise Failure(
            f"unable to prepare context: path {source!r} not found"
            if not os.path.exists(source)
            else f"unable to prepare context: context must be a directory: {source}"
        )
    outside = b""
    if file == "-":
        outside, name = sys.stdin.buffer.read(), ".dockerfile.stdin"
    elif file and os.path.relpath(file, source).startswith(".."):
        name = f".dockerfile.{os.getpid()}"
        outside = _read(file)
    else:
        name = os.path.relpath(file, source) if file else "Dockerfile"
        if not file and not os.path.exists(os.path.join(source, name)):
            name = "dockerfile" if os.path.exists(os.path.join(source, "dockerfile")) else name
        if not os.path.exists(os.path.join(source, name)):
            raise Failure(
                "unable to prepare context: unable to evaluate symlinks in Dockerfile path: "
                f"lstat {os.path.join(os.path.abspath(source), name)}: no such file or directory"
            )
    return _archive(source, name, outside), "application/x-tar", name


def _read(path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError as error:
        raise Failure(
            f"unable to prepare context: open {path}: {(error.strerror or '').lower()}"
        ) from None


def _archive(directory: str, dockerfile: str, outside: bytes) -> "IO[bytes]":
    """Return a pipe from which the context's tar is read while a thread walks the directory."""
    import threading

    from pier.cli.ignore import Ignore

    ignore = Ignore("")
    for name in (dockerfile + _IGNORE_FILE, _IGNORE_FILE):
        path = os.path.join(directory, name)
        if os.path.isfile(path):
            ignore = Ignore(_read(path).decode("utf-8", "replace"))
            break
    reader, writer = os.pipe()
    work = threading.Thread(
        target=_write, args=(writer, directory, ignore, dockerfile, outside), daemon=True
    )
    work.start()
    return open(reader, "rb")


def _write(fd: int, directory: str, ignore: "Ignore", dockerfile: str, outside: bytes) -> None:
    import io
    import tarfile

    own = {dockerfile: outside} if outside else {}
    if outside:
        # It is not one of the user's files: a COPY of the whole context leaves it out.
        path = os.path.join(directory, _IGNORE_FILE)
        present = _read(path) if os.path.isfile(path) else b""
        own[_IGNORE_FILE] = present + b"\n" + dockerfile.encode() + b"\n"
    kept = {dockerfile, _IGNORE_FILE, dockerfile + _IGNORE_FILE}
    try:
        with (
            open(fd, "wb") as pipe,
            tarfile.open(fileobj=pipe, mode="w|", format=tarfile.PAX_FORMAT) as tar,
        ):
            for name, content in own.items():
                member = tarfile.TarInfo(name)
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))
            for path in paths(directory, ignore, kept):
                if path not in own:
                    tar.add(os.path.join(directory, path), path, recursive=False)
    except BrokenPipeError:
        return  # the engine has refused, and says why
    except OSError as error:
        # The archive has no end: the engine refuses it.
        sys.stderr.write(f"error while reading the build context: {error}\n")


def paths(directory: str, ignore: "Ignore", kept: "set[str]") -> "Iterator[str]":
    """Yield what is sent of a directory, relative to it, a directory before what is in it."""
    for top, directories, files in os.walk(directory):
        place = os.path.relpath(top, directory)
        prefix = "" if place == "." else place + "/"
        for name in sorted(directories):
            path = prefix + name
            if not ignore.ignores(path):
                yield path
            elif not ignore.may_take_back_below(path):
                directories.remove(name)
        for name in sorted(files):
            path = prefix + name
            if path in kept or not ignore.ignores(path):
                yield path
