"""How a command ends other than well: what is printed on stderr, and the exit status.

Failure          printed as it is; status 1 unless said otherwise
├── ApiError     the engine answered 4xx or 5xx: "Error response from daemon: …"
├── NoEngine     nothing listens on the engine's socket
└── UsageError   a wrong flag or argument: usage follows the message, status 125 or 1
Exit             nothing to print: the status is a container's
"""


class Failure(Exception):
    """`str()` is the whole text for stderr; `status` is the exit status."""

    def __init__(self, message: str, status: int = 1) -> None:
        super().__init__(message)
        self.status = status


class ApiError(Failure):
    """The engine refused: `code` is the HTTP status, `reason` its own words."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(f"Error response from daemon: {reason}")
        self.code = code
        self.reason = reason


class NoEngine(Failure):
    """Nothing answers at the engine's address."""


class UsageError(Failure):
    """The command line is wrong; `str()` holds the usage lines as well."""


class Exit(Exception):
    """End now with `status`, printing nothing."""

    def __init__(self, status: int) -> None:
        super().__init__(status)
        self.status = status
