"""`pier start`: containers that exist already, attached when asked for."""

import sys

from pier.cli import kinds, session
from pier.cli.command import Command
from pier.cli.config_file import detach_keys
from pier.cli.errors import Exit, Failure
from pier.cli.flags import Flag
from pier.cli.http import quote
from pier.cli.streams import Detached

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pier.cli.command import Context
    from pier.cli.flags import Options


def _start(context: "Context", options: "Options") -> None:
    if options.on("attach") or options.on("interactive"):
        if len(options.args) > 1:
            raise Failure("you cannot start and attach multiple containers at once")
        _start_attached(context, options)
        return
    failed = []
    for name in options.args:
        try:
            context.client.post(f"/containers/{quote(name)}/start").read()
        except Failure as error:
            sys.stderr.write(f"{error}\n")
            failed.append(name)
        else:
            print(name)
    if failed:
        raise Failure(f"Error: failed to start containers: {', '.join(failed)}")


def _start_attached(context: "Context", options: "Options") -> None:
    client = context.client
    container = client.get(f"/containers/{quote(options.args[0])}/json").json()
    path = f"/containers/{container['Id']}"
    tty = bool(container["Config"].get("Tty"))
    stdin = options.on("interactive") and bool(container["Config"].get("OpenStdin"))
    keys = detach_keys(options)
    if options.on("sig-proxy"):
        session.forward_signals(client, container["Id"])
    query = session.attach_query(stdin=stdin, stdout=True, stderr=True, keys=keys)
    connection = client.hijack(f"{path}/attach", query)
    removed = (container.get("HostConfig") or {}).get("AutoRemove")
    condition = "removed" if removed else "next-exit"
    waiting = client.post(f"{path}/wait", {"condition": condition})
    try:
        client.post(f"{path}/start").read()
        if tty:
            session.follow_window(client, path)
        session.pump(connection, tty=tty, stdin=stdin, keys=keys)
    except Detached:
        return
    finally:
        connection.close()
    raise Exit(session.exit_status(waiting))


START = Command(
    "start [OPTIONS] CONTAINER [CONTAINER...]",
    "Start one or more stopped containers",
    _start,
    arity=(1, None),
    options=(
        Flag("attach", kinds.BOOL, "Attach STDOUT/STDERR and forward signals", short="a"),
        Flag("detach-keys", kinds.STRING, "Override the key sequence for detaching a container"),
        Flag("interactive", kinds.BOOL, "Attach container's STDIN", short="i"),
        Flag(
            "sig-proxy",
            kinds.BOOL,
            "Proxy all received signals to the process",
            default=True,
            hidden=True,
        ),
    ),
    aliases="container start, start",
)
