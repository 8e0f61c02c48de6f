"""`pier build --on-error=shell`: the terminal joined to a shell in the step that failed."""

from pier.cli import session, terminal
from pier.cli.http import quote
from pier.cli.streams import Detached

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pier.cli.http import Client


def enter(client: "Client", container: str, *, tty: bool) -> None:
    """Attach to a container that the engine has made, start it, and wait for its end."""
    path = f"/containers/{quote(container)}"
    waiting = client.post(f"{path}/wait", {"condition": "next-exit"})
    query = session.attach_query(stdin=True, stdout=True, stderr=True, keys="")
    connection = client.hijack(f"{path}/attach", query)
    client.post(f"{path}/start").read()
    if tty:
        rows, columns = terminal.size()
        client.post(f"{path}/resize", {"h": rows, "w": columns}).read()
        session.follow_window(client, path)
    try:
        session.pump(connection, tty=tty, stdin=True, keys="")
    except Detached:
        client.post(f"{path}/stop", {"t": 0}).read()
    finally:
        connection.close()
    waiting.read()
