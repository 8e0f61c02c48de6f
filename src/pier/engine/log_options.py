"""`HostConfig.LogConfig`: what the keeper writes, and how it rotates. Messages as dockerd's."""

import re

from pier.engine.defaults import LOG_DRIVER
from pier.errors import InvalidParameter, Unsupported
from pier.model.container import LogConfig
from pier.runtime.spec import Log

JSON_FILE_OPTIONS = frozenset(
    (
        "max-size",
        "max-file",
        "compress",
        "labels",
        "labels-regex",
        "env",
        "env-regex",
        "tag",
    )
)
_NOT_YET = ("labels", "labels-regex", "env", "env-regex", "tag")
OTHER_DRIVERS = frozenset(
    ("local", "journald", "syslog", "gelf", "fluentd", "awslogs", "gcplogs", "splunk")
)
_FALSE = ("", "false", "0", "f", "F", "FALSE", "False")
_SIZE = re.compile(r"(\d+(?:\.\d+)?) ?([kmgtp])?(i?b)?", re.IGNORECASE | re.ASCII)
_POWERS = {"": 0, "k": 1, "m": 2, "g": 3, "t": 4, "p": 5}


def parse(config: LogConfig, path: str) -> Log:
    """Return what keeper.json says of the log. Raises InvalidParameter or Unsupported."""
    driver = config.Type or LOG_DRIVER
    if driver == "none":
        return {"driver": "none", "path": "", "max_size": 0, "max_file": 1}
    if driver in OTHER_DRIVERS:
        raise Unsupported(f"log driver '{driver}' is not supported: use 'json-file' or 'none'")
    if driver != "json-file":
        raise InvalidParameter(f"logger: no log driver named '{driver}' is registered")
    options = dict(config.Config)
    _check_mode(options)
    for name in options:
        if name not in JSON_FILE_OPTIONS:
            raise InvalidParameter(f"unknown log opt '{name}' for json-file log driver")
    for name in _NOT_YET:
        if options.get(name):
            raise Unsupported(f"log opt '{name}' of the json-file log driver is not supported yet")
    if options.get("compress", "") not in _FALSE:
        raise Unsupported("log opt 'compress' of the json-file log driver is not supported yet")
    max_size = parse_size(options.get("max-size", ""))
    max_file = _count(options.get("max-file", ""))
    return {"driver": "json-file", "path": path, "max_size": max_size, "max_file": max_file}


def parse_size(text: str) -> int:
    """Bytes of "10m" (decimal, as in dockerd's log options); "" and "-1" are 0: no rotation."""
    if text in ("", "-1"):
        return 0
    match = _SIZE.fullmatch(text)
    if not match:
        raise InvalidParameter(f"invalid size: '{text}'")
    size = int(float(match[1]) * 1000 ** _POWERS[(match[2] or "").lower()])
    if size <= 0:
        raise InvalidParameter("max-size must be a positive number")
    return size


def _count(text: str) -> int:
    if not text:
        return 1
    if not re.fullmatch(r"[+-]?\d+", text, re.ASCII):
        raise InvalidParameter(f'strconv.Atoi: parsing "{text}": invalid syntax')
    if int(text) < 1:
        raise InvalidParameter("max-file cannot be less than 1")
    return int(text)


def _check_mode(options: dict[str, str]) -> None:
    """Options of every driver; takes them out of `options`."""
    mode = options.pop("mode", "")
    buffer = options.pop("max-buffer-size", "")
    if mode == "non-blocking":
        raise Unsupported("log mode 'non-blocking' is not supported yet")
    if mode not in ("", "blocking"):
        raise InvalidParameter(f"logger: logging mode not supported: {mode}")
    if buffer:
        raise InvalidParameter(
            "logger: max-buffer-size option is only supported with 'mode=non-blocking'"
        )
