"""`pier run`: create, attach, wait, start, and end with the container's own exit status.

The order matters. Attached before it starts, the client sees the first byte of output; waited for
before it starts, it cannot miss the exit of a container that is gone at once (and with --rm leaves
nothing to ask).
"""

from pier.cli import kinds, session, terminal
from pier.cli.command import Command
from pier.cli.config_file import detach_keys
from pier.cli.create import container_body, create_container, usage_failure
from pier.cli.create_flags import CREATE_FLAGS
from pier.cli.errors import ApiError, Exit, Failure
from pier.cli.flags import Flag
from pier.cli.streams import Detached

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from pier.cli.command import Context
    from pier.cli.flags import Options
    from pier.cli.http import Client, Connection, Response

_RUN_FLAGS = (
    *CREATE_FLAGS,
    Flag("detach", kinds.BOOL, "Run container in background and print container ID", short="d"),
    Flag("detach-keys", kinds.STRING, "Override the key sequence for detaching a container"),
    Flag(
        "sig-proxy",
        kinds.BOOL,
        "Proxy received signals to the process",
        default=True,
        shown="true",
    ),
    Flag("trace", kinds.STRING, "Write where the time of the start went to a file (Perfetto)"),
)


def _run(context: "Context", options: "Options") -> None:
    detached = options.on("detach")
    if detached and options.list("attach"):
        raise Failure("conflicting options: cannot specify both --attach and --detach")
    body = container_body("run", options, detached=detached)
    if not detached:
        session.check_tty(stdin=body["AttachStdin"], tty=body["Tty"])
    body["HostConfig"]["ConsoleSize"] = list(terminal.size())
    trace = None
    if options.text("trace"):
        from pier.cli.run_trace import RunTrace

        trace = RunTrace(options.text("trace"))
        body["HostConfig"].setdefault("Annotations", {})["pier.trace"] = "true"
        trace.mark("create")
    try:
        client = context.client
        identifier = create_container(client, options, body)
    except Failure as error:
        # Also the case for an engine that is not there: Docker ends with 125 then.
        raise usage_failure("run", str(error)) from None
    session_ = _Session(client, identifier, options, body)
    if trace is not None:
        session_.mark = trace.mark
    try:
        session_.run()
    finally:
        if trace is not None:
            trace.write(client, identifier, ended=not detached)


class _Session:
    def __init__(
        self, client: "Client", identifier: str, options: "Options", body: "dict[str, Any]"
    ) -> None:
        self._client = client
        self._id = identifier
        self._path = f"/containers/{identifier}"
        self._options = options
        self._body = body
        self._tty = bool(body["Tty"])
        self.mark: Callable[[str], None] = _unmarked
        self._attached = bool(body["AttachStdin"] or body["AttachStdout"] or body["AttachStderr"])

    def run(self) -> None:
        self.mark("attach")
        connection = self._attach() if self._attached else None
        self.mark("wait")
        waiting = self._wait()
        if self._options.on("sig-proxy") and self._attached:
            session.forward_signals(self._client, self._id)
        self.mark("start")
        self._start(waiting)
        self.mark("output")
        if connection is None:
            print(self._id)
            return
        if self._tty:
            session.follow_window(self._client, self._path)
        try:
            session.pump(
                connection,
                tty=self._tty,
                stdin=self._body["AttachStdin"],
                keys=detach_keys(self._options),
            )
        except Detached:
            return
        finally:
            connection.close()
        self.mark("waits for the end")
        raise Exit(session.exit_status(waiting))

    def _attach(self) -> "Connection":
        query = session.attach_query(
            stdin=self._body["AttachStdin"],
            stdout=self._body["AttachStdout"],
            stderr=self._body["AttachStderr"],
            keys=detach_keys(self._options),
        )
        try:
            return self._client.hijack(f"{self._path}/attach", query)
        except Failure as error:
            raise usage_failure("run", str(error)) from None

    def _wait(self) -> "Response":
        condition = "removed" if self._options.on("rm") else "next-exit"
        return self._client.post(f"{self._path}/wait", {"condition": condition})

    def _start(self, waiting: "Response") -> None:
        try:
            self._client.post(f"{self._path}/start").read()
        except ApiError as error:
            if self._options.on("rm"):
                waiting.read()  # the name is free again when the client ends
            failure = usage_failure("run", str(error))
            failure.status = start_status(error.reason)
            raise failure from None


def _unmarked(_phase: str) -> None:
    """In the place of a trace's mark."""


def start_status(reason: str) -> int:
    """The exit status that the engine's reason for not starting a process stands for.

    127 not found, 126 cannot be invoked, 125 anything else: derived from the text, as in Docker.
    """
    found = reason.lower()
    if "executable file not found" in found or "no such file or directory" in found:
        return 127
    if "permission denied" in found or "is a directory" in found:
        return 126
    return 125


RUN = Command(
    "run [OPTIONS] IMAGE [COMMAND] [ARG...]",
    "Create and run a new container from an image",
    _run,
    arity=(1, None),
    options=_RUN_FLAGS,
    aliases="container run, run",
    wraps_command=True,
)
