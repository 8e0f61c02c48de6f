"""Every command by name: where it lives, and in which part of the help it is listed.

Kept apart from the commands so that `pier version` imports one module and not thirty.
"""

import sys

from pier.cli.errors import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pier.cli.command import Command, Context

# name -> (module of pier.cli, constant in it, summary)
_CONTAINER = {
    "apply": ("commit", "APPLY", "Write back what a container changed in copy-on-write binds"),
    "attach": ("attach", "ATTACH", "Attach local streams to a running container"),
    "cp": ("cp", "CP", "Copy files/folders between a container and the local filesystem"),
    "commit": ("commit", "COMMIT", "Create a new image from a container's changes"),
    "clone": ("snapshots", "CLONE", "Create a container with another one's settings and files"),
    "create": ("create", "CREATE", "Create a new container"),
    "diff": ("commit", "DIFF", "Inspect changes to files on a container's filesystem"),
    "export": ("archives", "EXPORT", "Export a container's filesystem as a tar archive"),
    "exec": ("execute", "EXEC", "Execute a command in a running container"),
    "explain": ("explain", "EXPLAIN", "Tell how a container is connected, and who reaches it"),
    "inspect": ("inspect", "CONTAINER_INSPECT", "Display detailed information on containers"),
    "kill": ("lifecycle", "KILL", "Kill one or more running containers"),
    "logs": ("logs", "LOGS", "Fetch the logs of a container"),
    "ls": ("ps", "PS", "List containers"),
    "pause": ("lifecycle", "PAUSE", "Pause all processes within one or more containers"),
    "port": ("port", "PORT", "List port mappings or a specific mapping for the container"),
    "prune": ("lifecycle", "PRUNE", "Remove all stopped containers"),
    "rename": ("lifecycle", "RENAME", "Rename a container"),
    "restart": ("lifecycle", "RESTART", "Restart one or more containers"),
    "rm": ("lifecycle", "RM", "Remove one or more containers"),
    "rollback": ("snapshots", "ROLLBACK", "Give a container back what it had at a snapshot"),
    "run": ("run", "RUN", "Create and run a new container from an image"),
    "snapshot": ("snapshots", "SNAPSHOT", "Name what a container has written until now"),
    "start": ("start", "START", "Start one or more stopped containers"),
    "stats": (
        "stats",
        "STATS",
        "Display a live stream of container(s) resource usage statistics",
    ),
    "stop": ("lifecycle", "STOP", "Stop one or more running containers"),
    "top": ("top", "TOP", "Display the running processes of a container"),
    "unpause": ("lifecycle", "UNPAUSE", "Unpause all processes within one or more containers"),
    "update": ("update", "UPDATE", "Update configuration of one or more containers"),
    "wait": ("lifecycle", "WAIT", "Block until containers stop, then print their exit codes"),
}
_IMAGE = {
    "bootstrap": ("bootstrap", "BOOTSTRAP", "Make a base image out of a distribution's packages"),
    "build": ("build", "BUILD", "Build an image from a Dockerfile"),
    "diff": ("image_diff", "DIFF", "Show which files differ between two images"),
    "history": ("images", "HISTORY", "Show the history of an image"),
    "import": ("load", "IMPORT", "Import a tarball's contents to create a filesystem image"),
    "inspect": ("inspect", "IMAGE_INSPECT", "Display detailed information on one or more images"),
    "load": ("load", "LOAD", "Load an image from a tar archive or STDIN"),
    "ls": ("images", "IMAGES", "List images"),
    "mount": ("image_mount", "MOUNT", "Mount an image's files read-only on a directory"),
    "prune": ("prune", "IMAGE_PRUNE", "Remove unused images"),
    "pull": ("pull", "PULL", "Download an image from a registry"),
    "push": ("push", "PUSH", "Upload an image to a registry, or to another engine over ssh"),
    "rm": ("images", "RMI", "Remove one or more images"),
    "save": ("archives", "SAVE", "Save one or more images to a tar archive"),
    "tag": ("images", "TAG", "Create a tag TARGET_IMAGE that refers to SOURCE_IMAGE"),
    "unmount": ("image_mount", "UNMOUNT", "Unmount an image from a directory"),
}
_BUILDER = {
    "build": ("build", "BUILD", "Build an image from a Dockerfile"),
    "du": ("builder", "DU", "Show the disk usage of the build cache"),
    "history": ("build_history", "HISTORY", "Show builds that are over"),
    "prune": ("builder", "PRUNE", "Remove build cache"),
}
_NETWORK = {
    "connect": ("network", "CONNECT", "Connect a container to a network"),
    "create": ("network", "CREATE", "Create a network"),
    "disconnect": ("network", "DISCONNECT", "Disconnect a container from a network"),
    "inspect": ("inspect", "NETWORK_INSPECT", "Display detailed information on networks"),
    "ls": ("network", "LS", "List networks"),
    "policy": ("network_policy", "POLICY", "Show, change and test what is reached outside"),
    "prune": ("network", "PRUNE", "Remove all unused networks"),
    "rm": ("network", "RM", "Remove one or more networks"),
}
_CONTEXT = {
    "create": ("contexts", "CREATE", "Create a context"),
    "export": ("contexts", "EXPORT", "Export a context to a tar archive FILE or STDOUT"),
    "import": ("contexts", "IMPORT", "Import a context from a tar file"),
    "inspect": ("contexts", "INSPECT", "Display detailed information on one or more contexts"),
    "ls": ("contexts", "LS", "List contexts"),
    "rm": ("contexts", "RM", "Remove one or more contexts"),
    "show": ("contexts", "SHOW", "Print the name of the current context"),
    "update": ("contexts", "UPDATE", "Update a context"),
    "use": ("contexts", "USE", "Set the current docker context"),
}
_SYSTEM = {
    "df": ("disk", "DF", "Show docker disk usage"),
    "dial-stdio": ("dial_stdio", "DIAL_STDIO", "Proxy the stdio stream to the daemon connection"),
    "events": ("events", "EVENTS", "Get real time events from the server"),
    "info": ("info", "INFO", "Display system-wide information"),
    "prune": ("prune", "SYSTEM_PRUNE", "Remove unused data"),
}
_VOLUME = {
    "backup": ("volume_keeping", "BACKUP", "Write a volume's data to a tar archive"),
    "clone": ("volume_keeping", "CLONE", "Make a volume with another one's data"),
    "create": ("volumes", "CREATE", "Create a volume"),
    "inspect": ("inspect", "VOLUME_INSPECT", "Display detailed information on one or more volumes"),
    "ls": ("volumes", "LS", "List volumes"),
    "prune": ("volumes", "PRUNE", "Remove unused local volumes"),
    "rename": ("volume_keeping", "RENAME", "Give a volume another name"),
    "restore": ("volume_keeping", "RESTORE", "Make a volume of a backup"),
    "rm": ("volumes", "RM", "Remove one or more volumes"),
}
_ALIASES = {
    "builder": {},
    "container": {"list": "ls", "ps": "ls", "remove": "rm"},
    "context": {"list": "ls", "remove": "rm"},
    "image": {"list": "ls", "remove": "rm", "umount": "unmount"},
    "network": {"list": "ls", "remove": "rm"},
    "system": {},
    "volume": {"list": "ls", "remove": "rm"},
}
_GROUPS = {
    "builder": _BUILDER,
    "container": _CONTAINER,
    "context": _CONTEXT,
    "image": _IMAGE,
    "network": _NETWORK,
    "system": _SYSTEM,
    "volume": _VOLUME,
}
_GROUP_TEXTS = {
    "builder": "Manage builds",
    "container": "Manage containers",
    "context": "Manage contexts",
    "image": "Manage images",
    "network": "Manage networks",
    "system": "Manage Pier",
    "volume": "Manage volumes",
}
_TOP = {
    **{name: entry for name, entry in _CONTAINER.items() if name not in ("inspect", "ls", "prune")},
    "ps": _CONTAINER["ls"],
    **{
        name: _IMAGE[name]
        for name in ("build", "history", "import", "load", "pull", "push", "save", "tag")
    },
    "images": _IMAGE["ls"],
    "rmi": ("images", "RMI", "Remove one or more images"),
    "inspect": ("inspect", "INSPECT", "Return low-level information on Docker objects"),
    "login": ("login", "LOGIN", "Authenticate to a registry"),
    "logout": ("login", "LOGOUT", "Log out from a registry"),
    "registry": ("registry", "REGISTRY", "Serve images to others, as a registry"),
    "search": ("search", "SEARCH", "Search Docker Hub for images"),
    **{name: entry for name, entry in _SYSTEM.items() if name in ("events", "info")},
    "version": ("version", "VERSION", "Show the Pier version information"),
}
_GLOBAL_OPTIONS = (
    "Global Options:\n"
    "      --config string      Location of client config files\n"
    "  -c, --context string     Name of the context to use to connect to the daemon\n"
    "  -D, --debug              Tell every request and its answer's status\n"
    "  -H, --host list          Daemon socket to connect to\n"
    '  -l, --log-level string   "debug" is --debug; "info", "warn", "error" and "fatal" say less\n'
    "      --tls                Use TLS; implied by --tlsverify\n"
    "      --tlscacert string   Trust certs signed only by this CA\n"
    "      --tlscert string     Path to TLS certificate file\n"
    "      --tlskey string      Path to TLS key file\n"
    "      --tlsverify          Use TLS and verify the remote\n"
    "  -v, --version            Print version information and quit"
)
_COMMON = ("run", "exec", "ps", "build", "images", "version", "info")


def run(context: "Context", argv: "list[str]") -> None:
    """Run the command line `argv` (without the program's name and the global options)."""
    name, rest = argv[0], argv[1:]
    if name == "help":
        run(context, [*rest, "--help"]) if rest else sys.stdout.write(top_help())
    elif name in _GROUPS:
        _run_in_group(context, name, rest)
    elif name in _TOP:
        _load(_TOP[name]).call(context, name, rest)
    else:
        raise UsageError(
            f"pier: unknown command: pier {name}\n\nRun 'pier --help' for more information"
        )


def _run_in_group(context: "Context", group: str, argv: "list[str]") -> None:
    if not argv or argv[0] in ("--help", "-h", "help"):
        sys.stdout.write(_group_help(group))
        return
    name = argv[0]
    entry = _GROUPS[group].get(_ALIASES[group].get(name, name))
    if entry is None:
        raise UsageError(
            f"pier: unknown command: pier {group} {name}\n\nUsage:  pier {group}\n\n"
            f"Run 'pier {group} --help' for more information"
        )
    _load(entry).call(context, f"{group} {name}", argv[1:])


def _load(entry: "tuple[str, str, str]") -> "Command":
    module, constant, _ = entry
    name = "pier.cli." + module
    __import__(name)
    command: Command = getattr(sys.modules[name], constant)
    return command


def top_help() -> str:
    """What `pier --help` prints."""
    others = {name: entry for name, entry in sorted(_TOP.items()) if name not in _COMMON}
    groups = [(name, _GROUP_TEXTS[name]) for name in sorted(_GROUPS)]
    sections = [
        "Usage:  pier [OPTIONS] COMMAND\n\nA container engine in Python",
        "Common Commands:\n" + _rows([(name, _TOP[name][2]) for name in _COMMON]),
        "Management Commands:\n" + _rows(groups),
        "Commands:\n" + _rows([(name, entry[2]) for name, entry in others.items()]),
        _GLOBAL_OPTIONS,
        "Run 'pier COMMAND --help' for more information on a command.",
    ]
    return "\n\n".join(sections) + "\n"


def _group_help(group: str) -> str:
    rows = _rows([(name, entry[2]) for name, entry in sorted(_GROUPS[group].items())])
    return (
        f"Usage:  pier {group} COMMAND\n\n{_GROUP_TEXTS[group]}\n\nCommands:\n{rows}\n\n"
        f"Run 'pier {group} COMMAND --help' for more information on a command.\n"
    )


def _rows(rows: "list[tuple[str, str]]") -> str:
    return "\n".join(f"  {name:<11} {text}" for name, text in rows)
