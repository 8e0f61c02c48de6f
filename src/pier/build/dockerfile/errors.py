"""What is wrong with a Dockerfile, and where."""

from pier.errors import InvalidParameter


class DockerfileError(InvalidParameter):
    """`line` and `last_line` are the instruction's, counted from 1; 0 when there is none.

    The arguments have the words without "dockerfile parse error on line N: ", which `message` has
    in front of them unless it is `bare`, as BuildKit's parser is about some faults.
    """

    def __init__(
        self, message: str, line: int = 0, last_line: int = 0, *, bare: bool = False
    ) -> None:
        super().__init__(message)
        self.line = line
        self.last_line = last_line or line
        self.bare = bare

    @property
    def message(self) -> str:
        text = str(self.args[0])
        if not self.line or self.bare:
            return text
        return f"dockerfile parse error on line {self.line}: {text}"
