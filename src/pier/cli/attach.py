"""`pier attach`: the client's streams joined to a container that runs already."""

from pier.cli import kinds, session, terminal
from pier.cli.command import Command
from pier.cli.config_file import detach_keys
from pier.cli.errors import Exit, Failure
from pier.cli.flags import Flag
from pier.cli.http import quote
from pier.cli.streams import Detached

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from pier.cli.command import Context
    from pier.cli.flags import Options


def _attach(context: "Context", options: "Options") -> None:
    client = context.client
    name = options.args[0]
    path = f"/containers/{quote(name)}"
    # Waited for before it is looked at: it may end between the two.
    waiting = client.post(f"{path}/wait")
    container = client.get(f"{path}/json").json()
    _check_state(container["State"])
    tty = bool(container["Config"].get("Tty"))
    stdin = bool(container["Config"].get("OpenStdin")) and not options.on("no-stdin")
    session.check_tty(stdin=stdin, tty=tty)
    keys = detach_keys(options)
    if options.on("sig-proxy") and not tty:
        session.forward_signals(client, container["Id"])
    query = session.attach_query(stdin=stdin, stdout=True, stderr=True, keys=keys)
    connection = client.hijack(f"{path}/attach", query)
    if tty and terminal.is_terminal(1):
        # A size that differs makes a full-screen program draw itself again.
        rows, columns = terminal.size()
        client.post(f"{path}/resize", {"h": rows + 1, "w": columns + 1}).read()
        session.follow_window(client, path)
    try:
        session.pump(connection, tty=tty, stdin=stdin, keys=keys)
    except Detached:
        raise Failure("read escape sequence") from None
    finally:
        connection.close()
    raise Exit(session.exit_status(waiting))


def _check_state(state: "dict[str, Any]") -> None:
    if not state.get("Running"):
        raise Failure("You cannot attach to a stopped container, start it first")
    if state.get("Paused"):
        raise Failure("You cannot attach to a paused container, unpause it first")
    if state.get("Restarting"):
        raise Failure("You cannot attach to a restarting container, wait until it is running")


ATTACH = Command(
    "attach [OPTIONS] CONTAINER",
    "Attach local standard input, output, and error streams to a running container",
    _attach,
    arity=(1, 1),
    options=(
        Flag("detach-keys", kinds.STRING, "Override the key sequence for detaching a container"),
        Flag("no-stdin", kinds.BOOL, "Do not attach STDIN"),
        Flag(
            "sig-proxy",
            kinds.BOOL,
            "Proxy all received signals to the process",
            default=True,
            shown="true",
        ),
    ),
    aliases="container attach, attach",
)
