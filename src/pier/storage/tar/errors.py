"""What is wrong with an archive. Always the sender's fault: the API answers 400."""

from pier.errors import InvalidParameter


class TarError(InvalidParameter):
    """The archive is malformed, hostile, or beyond a limit."""


class TruncatedError(TarError):
    """The archive ends in the middle of something."""

    def __init__(self) -> None:
        super().__init__("unexpected EOF")
