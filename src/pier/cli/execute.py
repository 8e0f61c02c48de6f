"""`pier exec`: a further process in a running container."""

from pier.cli import kinds, session, terminal
from pier.cli.command import Command
from pier.cli.config_file import detach_keys
from pier.cli.create_body import environment
from pier.cli.errors import Exit, Failure
from pier.cli.flags import Flag
from pier.cli.http import quote
from pier.cli.streams import Detached

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from pier.cli.command import Context
    from pier.cli.flags import Options


def _exec(context: "Context", options: "Options") -> None:
    body = _body(options)
    client = context.client
    container, detach, tty = options.args[0], options.on("detach"), options.on("tty")
    # Who the container is comes first: a wrong name is the better message.
    client.get(f"/containers/{quote(container)}/json").read()
    if not detach:
        session.check_tty(stdin=body["AttachStdin"], tty=tty)
    answer = client.post(f"/containers/{quote(container)}/exec", body=body).json()
    path = f"/exec/{answer['Id']}"
    start: dict[str, Any] = {"Detach": detach, "Tty": tty}
    if detach:
        client.post(f"{path}/start", body=start).read()
        return
    if "ConsoleSize" in body:
        start["ConsoleSize"] = body["ConsoleSize"]
    connection = client.hijack(f"{path}/start", body=start)
    if tty:
        session.follow_window(client, path)
    try:
        session.pump(connection, tty=tty, stdin=body["AttachStdin"], keys=detach_keys(options))
    except Detached:
        raise Failure("read escape sequence") from None
    finally:
        connection.close()
    raise Exit(int(client.get(f"{path}/json").json().get("ExitCode") or 0))


def _body(options: "Options") -> "dict[str, Any]":
    detach, tty = options.on("detach"), options.on("tty")
    try:
        env = environment(options)
    except ValueError as error:
        raise Failure(str(error)) from None
    body: dict[str, Any] = {
        "User": options.text("user"),
        "Privileged": options.on("privileged"),
        "Tty": tty,
        "AttachStdin": options.on("interactive") and not detach,
        "AttachStdout": not detach,
        "AttachStderr": not detach,
        "Detach": detach,
        "DetachKeys": detach_keys(options),
        "Env": env or None,
        "WorkingDir": options.text("workdir"),
        "Cmd": options.args[1:],
    }
    size = terminal.size()
    if tty and all(size):
        body["ConsoleSize"] = list(size)
    return body


EXEC = Command(
    "exec [OPTIONS] CONTAINER COMMAND [ARG...]",
    "Execute a command in a running container",
    _exec,
    arity=(2, None),
    options=(
        Flag("detach", kinds.BOOL, "Detached mode: run command in the background", short="d"),
        Flag("detach-keys", kinds.STRING, "Override the key sequence for detaching a container"),
        Flag("env", kinds.ENV, "Set environment variables", short="e"),
        Flag("env-file", kinds.LIST, "Read in a file of environment variables"),
        Flag("interactive", kinds.BOOL, "Keep STDIN open even if not attached", short="i"),
        Flag("privileged", kinds.BOOL, "Give extended privileges to the command"),
        Flag("tty", kinds.BOOL, "Allocate a pseudo-TTY", short="t"),
        Flag(
            "user",
            kinds.STRING,
            'Username or UID (format: "<name|uid>[:<group|gid>]")',
            short="u",
        ),
        Flag("workdir", kinds.STRING, "Working directory inside the container", short="w"),
    ),
    aliases="container exec, exec",
    wraps_command=True,
)
