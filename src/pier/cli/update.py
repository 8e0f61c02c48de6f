"""`pier update`: other limits and another restart policy for containers."""

from pier.cli import kinds
from pier.cli.command import Command, each
from pier.cli.errors import Failure
from pier.cli.flags import Flag
from pier.cli.http import quote
from pier.cli.mounts import MOUNT
from pier.cli.own_flags import EGRESS_FLAG, RATE_FLAGS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from pier.cli.command import Context
    from pier.cli.flags import Options

# Flag -> field of the request.
_NUMBERS = {
    "blkio-weight": "BlkioWeight",
    "cpu-period": "CpuPeriod",
    "cpu-quota": "CpuQuota",
    "cpu-rt-period": "CpuRealtimePeriod",
    "cpu-rt-runtime": "CpuRealtimeRuntime",
    "cpu-shares": "CpuShares",
    "cpus": "NanoCpus",
    "memory": "Memory",
    "memory-reservation": "MemoryReservation",
    "memory-swap": "MemorySwap",
}


def _update(context: "Context", options: "Options") -> None:
    if not options.changed:
        raise Failure("you must provide one or more flags when using this command")
    body = _body(options)
    warnings: list[str] = []

    def update(name: str) -> None:
        answer = context.client.post(f"/containers/{quote(name)}/update", body=body).json()
        print(name)
        warnings.extend(answer.get("Warnings") or ())

    try:
        each(options.args, update)
    finally:
        if warnings:
            print("\n".join(warnings))


def _body(options: "Options") -> "dict[str, Any]":
    from pier.cli.create_body import restart_policy

    policy: dict[str, str | int] = {"Name": "", "MaximumRetryCount": 0}
    if "restart" in options.changed:
        try:
            policy = restart_policy(options.text("restart"))
        except ValueError as error:
            raise Failure(str(error)) from None
    body: dict[str, Any] = {field: options.number(flag) for flag, field in _NUMBERS.items()}
    own = {
        f"pier.{flag.name}": options.text(flag.name)
        for flag in (EGRESS_FLAG, *RATE_FLAGS)
        if flag.name in options.changed
    }
    pids = options.number("pids-limit") if "pids-limit" in options.changed else None
    return {
        **body,
        "CpusetCpus": options.text("cpuset-cpus"),
        "CpusetMems": options.text("cpuset-mems"),
        **({} if pids is None else {"PidsLimit": pids}),
        "RestartPolicy": policy,
        **({"Annotations": own} if own else {}),
        **_ports(options),
        **({"MountAdd": options.list("mount-add")} if "mount-add" in options.changed else {}),
    }


def _ports(options: "Options") -> "dict[str, Any]":
    """What is to be published, and no more, in the words of --publish."""
    from pier.cli.networks import published_ports

    fields = {"publish-add": "PublishAdd", "publish-rm": "PublishRemove"}
    try:
        return {
            field: published_ports(options.list(flag))
            for flag, field in fields.items()
            if options.list(flag)
        }
    except ValueError as error:
        raise Failure(str(error)) from None


UPDATE = Command(
    "update [OPTIONS] CONTAINER [CONTAINER...]",
    "Update configuration of one or more containers",
    _update,
    arity=(1, None),
    options=(
        Flag(
            "blkio-weight",
            kinds.UINT16,
            "Block IO (relative weight), between 10 and 1000, or 0 to disable",
            shown="0",
        ),
        Flag("cpu-period", kinds.INT, "Limit CPU CFS (Completely Fair Scheduler) period"),
        Flag("cpu-quota", kinds.INT, "Limit CPU CFS (Completely Fair Scheduler) quota"),
        Flag("cpu-rt-period", kinds.INT, "Limit the CPU real-time period in microseconds"),
        Flag("cpu-rt-runtime", kinds.INT, "Limit the CPU real-time runtime in microseconds"),
        Flag("cpu-shares", kinds.INT, "CPU shares (relative weight)", short="c"),
        Flag("cpus", kinds.DECIMAL, "Number of CPUs"),
        Flag("cpuset-cpus", kinds.STRING, "CPUs in which to allow execution (0-3, 0,1)"),
        Flag("cpuset-mems", kinds.STRING, "MEMs in which to allow execution (0-3, 0,1)"),
        EGRESS_FLAG,
        Flag("memory", kinds.BYTES, "Memory limit", short="m"),
        Flag("memory-reservation", kinds.BYTES, "Memory soft limit"),
        Flag("mount-add", MOUNT, "Mount a directory, file or volume in the container as well"),
        *RATE_FLAGS,
        Flag("publish-add", kinds.LIST, "Publish a port of a running container as well"),
        Flag("publish-rm", kinds.LIST, "Publish a port no more ([[IP:]HOST-PORT:]PORT[/PROTOCOL])"),
        Flag(
            "memory-swap",
            kinds.SWAP,
            "Swap limit equal to memory plus swap: -1 to enable unlimited swap",
        ),
        Flag("pids-limit", kinds.INT, "Tune container pids limit (set -1 for unlimited)"),
        Flag("restart", kinds.STRING, "Restart policy to apply when a container exits"),
    ),
    aliases="container update, update",
)
