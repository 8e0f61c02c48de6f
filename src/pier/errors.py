"""The one exception tree of Pier.

    PierError
    ├── InvalidParameter    the request is wrong               400
    ├── Unauthorized        credentials are missing or wrong   401
    ├── Forbidden           understood, and not allowed        403
    ├── NotFound            no such object                     404
    ├── Conflict            the object's state forbids it      409
    ├── NotModified         nothing to do                      304
    ├── Unsupported         Pier does not offer it             501
    ├── Unavailable         not now                            503
    ├── Internal            a failure of Pier or the host      500
    └── StartFailed         a container's process could not be started

A class says what went wrong, never how it travels: the HTTP status is mapped in one table in
`pier.api.errors`. Messages are lower case without a full stop, in Docker's words where clients
match on them.
"""


class PierError(Exception):
    """Base of every error that Pier raises on purpose."""

    @property
    def message(self) -> str:
        """The text meant for the user."""
        return str(self.args[0]) if self.args else type(self).__name__


class InvalidParameter(PierError):
    """The request is malformed or its values are not acceptable."""


class Unauthorized(PierError):
    """Credentials are missing or were refused."""


class Forbidden(PierError):
    """The request is understood and refused, whoever asks."""


class NotFound(PierError):
    """The named object does not exist."""


class Conflict(PierError):
    """The object exists and is in a state that forbids the operation."""


class NotModified(PierError):
    """The object is already in the state that was asked for."""


class Unsupported(PierError):
    """Pier, or this host, does not offer what was asked for."""


class Unavailable(PierError):
    """It cannot be done at this moment."""


class Internal(PierError):
    """Pier or the host failed; nothing is wrong with the request."""


class StartFailed(PierError):
    """A container's or exec's process could not be started.

    `step` names what was being done ("exec", "mount", "chdir", …), `errno` is the kernel's, 0 when
    the failure was not a system call's.
    """

    def __init__(self, message: str, *, step: str = "", errno: int = 0) -> None:
        super().__init__(message)
        self.step = step
        self.errno = errno
