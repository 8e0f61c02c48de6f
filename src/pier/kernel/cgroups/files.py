"""Control files of a cgroup: reading, writing, and applying a list of settings.

A setting says which file gets which value, as alternatives: the first file that exists is written,
since kernels and I/O schedulers name the same knob differently. The alternative `OPTIONAL` at the
end allows for none of them to exist.
"""

import errno
import os

Setting = tuple[tuple[str, str], ...]

OPTIONAL = ("", "")

# What v1 shows as "no limit": the largest multiple of the page size, whatever the page size is.
_UNLIMITED_V1 = 0x7FFFFFFFFFFF0000


def write(path: str, value: str) -> None:
    """Write one control file. Raises OSError with the file, the value and the kernel's errno."""
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.write(fd, value.encode())
        finally:
            os.close(fd)
    except OSError as exc:
        raise failed_write(path, value, exc) from exc


def failed_write(path: str, value: str, exc: OSError) -> OSError:
    """Return the error of a failed write, of the same class, that names the file and the value."""
    return OSError(exc.errno, f"write {value!r} to {path}: {exc.strerror}")


def read(path: str) -> str:
    """Read a whole control file; the kernel hands out long ones a page at a time."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        data = os.read(fd, 1 << 16)
        while chunk := os.read(fd, 1 << 16) if data else b"":
            data += chunk
    finally:
        os.close(fd)
    return data.decode()


def read_int(path: str, default: int | None = None) -> int:
    """Read a file of one number; "max" and v1's largest number are -1, unlimited.

    A file that does not exist gives `default`, or FileNotFoundError without one.
    """
    try:
        text = read(path).strip()
    except FileNotFoundError:
        if default is None:
            raise
        return default
    if text == "max":
        return -1
    value = int(text)
    return -1 if value >= _UNLIMITED_V1 else value


def read_pairs(path: str) -> dict[str, int]:
    """Read a flat keyed file, lines of "key number" (Documentation/admin-guide/cgroup-v2.rst)."""
    pairs = {}
    for line in read(path).splitlines():
        key, _, value = line.partition(" ")
        if value.isdigit():
            pairs[key] = int(value)
    return pairs


def apply(directory: str, settings: list[Setting]) -> None:
    """Write all settings of one controller.

    Files constrain each other (memory <= memory+swap, burst <= quota, a quota within its parent's
    share of the period), and the right order depends on whether a limit goes up or down. So a
    value refused with EINVAL is tried once more after all the others are written.

    Raises OSError: EOPNOTSUPP when no alternative of a setting exists, FileNotFoundError when the
    cgroup itself does not, the kernel's errno when it refuses a value.
    """
    refused = []
    for setting in settings:
        try:
            _write_first(directory, setting)
        except OSError as exc:
            if exc.errno != errno.EINVAL or len(settings) == 1:
                raise
            refused.append(setting)
    for setting in refused:
        _write_first(directory, setting)


def _write_first(directory: str, setting: Setting) -> None:
    for name, value in setting:
        if not name:
            return
        try:
            write(f"{directory}/{name}", value)
        except FileNotFoundError:
            continue
        return
    if not os.path.isdir(directory):
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), directory)
    names = " or ".join(name for name, _ in setting)
    raise OSError(errno.EOPNOTSUPP, f"this kernel offers no {names} in {directory}")


def unsupported(what: str) -> OSError:
    """Return the error for a controller, or a knob of one, that this host does not have."""
    return OSError(errno.EOPNOTSUPP, f"{what} is not available on this host")
