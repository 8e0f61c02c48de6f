"""The instructions of a Dockerfile as typed data: nothing is expanded yet, every word as written.

Names are those of the reference (docs.docker.com/reference/dockerfile). `line` is where an
instruction stands; `original` its text for the history and for errors.
"""

from msgspec import Struct

from pier.build.dockerfile.lines import Heredoc


class Instruction(Struct, kw_only=True):
    """What all have: the lines it takes, counted from 1, and its text joined over continuations.

    `comments` are those right above it, without their `#`.
    """

    first: int = 0
    last: int = 0
    original: str = ""
    comments: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        return type(self).__name__.upper()


class Command(Struct):
    """A command line: words of the exec form, or one word that a shell reads.

    `heredocs` are those of a RUN, read by the shell or written to files.
    """

    words: list[str]
    is_shell: bool
    heredocs: tuple[Heredoc, ...] = ()


class From(Instruction):
    image: str
    alias: str = ""
    platform: str = ""


class Arg(Instruction):
    """`values` are (name, default), None without one."""

    values: list[tuple[str, str | None]]


class Env(Instruction):
    values: list[tuple[str, str]]
    is_legacy: bool = False


class Label(Instruction):
    values: list[tuple[str, str]]
    is_legacy: bool = False


class Run(Instruction):
    """`mounts` are the values of --mount as written; parsed after expansion."""

    command: Command
    mounts: list[str] = []
    network: str = ""
    security: str = ""
    devices: list[str] = []


class Files(Instruction):
    """What COPY and ADD share. `sources` are words, heredocs by their place in `heredocs`."""

    sources: list[str]
    target: str
    heredocs: tuple[Heredoc, ...] = ()
    chown: str = ""
    chmod: str = ""
    link: bool = False
    exclude: list[str] = []


class Copy(Files):
    stage: str = ""
    parents: bool = False


class Add(Files):
    checksum: str = ""
    keep_git_dir: bool = False
    unpack: bool | None = None


class Cmd(Instruction):
    command: Command


class Entrypoint(Instruction):
    command: Command


class Shell(Instruction):
    words: list[str]


class Expose(Instruction):
    ports: list[str]


class Volume(Instruction):
    paths: list[str]


class User(Instruction):
    user: str


class Workdir(Instruction):
    path: str


class Stopsignal(Instruction):
    signal: str


class Maintainer(Instruction):
    author: str


class Healthcheck(Instruction):
    """`test` as in the image's config: ["NONE"], ["CMD", …] or ["CMD-SHELL", …]. Durations in ns."""

    test: list[str]
    interval: int = 0
    timeout: int = 0
    start_period: int = 0
    start_interval: int = 0
    retries: int = 0


class Onbuild(Instruction):
    """`trigger` is the instruction's text, kept for the image that is built on this one."""

    trigger: str


class Stage(Struct):
    """A FROM and what follows it. `index` counts from 0."""

    index: int
    base: From
    instructions: list[Instruction] = []

    @property
    def alias(self) -> str:
        return self.base.alias.lower()


class Dockerfile(Struct):
    """`globals` are the ARGs before the first FROM; `empty_continuations` are lines' numbers."""

    globals: list[Arg]
    stages: list[Stage]
    directives: dict[str, str]
    text: str
    escape: str
    empty_continuations: list[int] = []
