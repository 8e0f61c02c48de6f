"""Flags of `run` and `create` that Docker has not: they travel as annotations (docs/options.md)."""

from pier.cli import kinds
from pier.cli.flags import Flag

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pier.cli.flags import Options

_ANNOTATED = (
    "egress",
    "health-http",
    "health-on-failure",
    "health-tcp",
    "health-unix",
    "idle-timeout",
    "net-burst",
    "net-delay",
    "net-loss",
    "net-rate-in",
    "net-rate-out",
    "restart-delay",
    "restart-delay-max",
    "timeout",
)

EGRESS_FLAG = Flag(
    "egress",
    kinds.STRING,
    'What it may reach outside ("deny", "allow", "allow=HOST[:PORT],CIDR,…")',
)
RATE_FLAGS = (
    Flag("net-burst", kinds.STRING, "Bytes that may pass at once with a limited rate (k|m)"),
    Flag("net-delay", kinds.STRING, "Delay what its interfaces send (TIME[,JITTER]; us|ms|s)"),
    Flag("net-loss", kinds.STRING, "Lose a share of what its interfaces send (percent)"),
    Flag("net-rate-in", kinds.STRING, "Limit what its interfaces receive (bits per second; k|m|g)"),
    Flag("net-rate-out", kinds.STRING, "Limit what its interfaces send (bits per second; k|m|g)"),
)
OWN_FLAGS = (
    Flag("cgroup-conf", kinds.LIST, "Set a file of the container's cgroup v2 (key=value)"),
    EGRESS_FLAG,
    Flag("health-http", kinds.STRING, "Check health by HTTP from outside ([ADDRESS]:PORT[/PATH])"),
    Flag(
        "health-on-failure",
        kinds.STRING,
        'What to do when it becomes unhealthy ("none", "kill", "restart", "stop")',
    ),
    Flag("health-tcp", kinds.STRING, "Check health by connecting from outside ([ADDRESS:]PORT)"),
    Flag("health-unix", kinds.STRING, "Check health by connecting to a unix socket inside"),
    Flag("idle-timeout", kinds.STRING, "Stop the container after so long without doing anything"),
    *RATE_FLAGS,
    Flag("restart-delay", kinds.STRING, "First delay of the restart policy (ms|s|m|h)"),
    Flag("restart-delay-max", kinds.STRING, "Longest delay of the restart policy (ms|s|m|h)"),
    Flag("timeout", kinds.STRING, "Stop the container after so long (ms|s|m|h)"),
)


def own_annotations(options: "Options") -> dict[str, str]:
    """The annotations that the flags ask for. Raises ValueError."""
    found = {f"pier.{name}": options.text(name) for name in _ANNOTATED if options.text(name)}
    for setting in options.list("cgroup-conf"):
        key, equals, value = setting.partition("=")
        if not key or not equals:
            raise ValueError(f"invalid --cgroup-conf {setting!r}: not key=value")
        found[f"pier.cgroup.{key}"] = value
    return found
