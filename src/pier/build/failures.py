"""How a build fails, beside the failures that other rooms have words for."""

from pier.errors import Internal, InvalidParameter
from pier.model.platform import Platform, host_platform, rank


class StepFailed(Internal):
    """A RUN ended with another code than 0, which is `code`."""

    def __init__(self, command: str, code: int) -> None:
        super().__init__(f"The command '{command}' returned a non-zero code: {code}")
        self.code = code
        self.process = f'process "{command}" did not complete successfully: exit code: {code}'
        """The same in BuildKit's words."""


class BuildFailed(InvalidParameter):
    """A build cannot go on; the message says why, in Docker's words."""


class ForeignStep(Internal):
    """A RUN whose program is for a processor that this machine does not have."""


def foreign(error: Exception, command: str, platform: Platform) -> ForeignStep | None:
    """Say of a program that could not be executed that its platform is not the host's; None when
    that is not why.
    """
    host = host_platform()
    if "exec format error" not in str(error) or rank(platform, host) is not None:
        return None
    return ForeignStep(
        f"The command '{command}' could not be run: exec format error: the image is for {platform}, "
        f"this machine is {host}, and no emulator is registered with binfmt_misc "
        "(Debian's package qemu-user-static does that)"
    )
