"""GET /containers/json: which containers are wanted, and a row for each."""

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from msgspec import UNSET

from pier.engine.container import Container
from pier.engine.legacy_links import link_names
from pier.engine.mount_points import mount_points
from pier.engine.network_view import endpoints
from pier.engine.states import RUNNING
from pier.engine.status import status_text
from pier.engine.store import ContainerStore
from pier.errors import InvalidParameter, PierError
from pier.images.store import ImageStore
from pier.model.api_containers import (
    ContainerSummary,
    MountPoint,
    Port,
    SummaryHealth,
    SummaryHostConfig,
    SummaryNetworkSettings,
)
from pier.model.container import ZERO_TIME, ContainerRecord
from pier.model.filters import Filters
from pier.model.gotime import SECOND, now_ns

FILTERS = frozenset(
    {
        *("ancestor", "before", "exited", "expose", "health", "id", "is-task", "isolation"),
        *("label", "name", "network", "publish", "since", "status", "volume"),
    }
)
STATUSES = ("created", "running", "paused", "restarting", "removing", "exited", "dead")
HEALTHS = ("none", "starting", "healthy", "unhealthy")


@dataclass(frozen=True, slots=True)
class Selection:
    """A list's parameters, checked and resolved: what `before` and `since` name, which images."""

    filters: Filters
    all: bool
    before_ns: int | None
    since_ns: int | None
    exit_codes: frozenset[int]
    ancestors: frozenset[str] | None

    def wants(self, container: Container) -> bool:
        record = container.record
        state = record.State
        filters = self.filters
        created = container.created_ns
        # Most lists ask for all, or for what runs, and nothing else.
        if not (self.all or state.Status in RUNNING):
            return False
        return not filters or (
            (self.before_ns is None or created < self.before_ns)
            and (self.since_ns is None or created > self.since_ns)
            and _matches_name(filters, record.Name)
            and filters.prefix("id", record.Id)
            and filters.labels(record.Config.Labels)
            and filters.exact("status", state.Status)
            and (
                not self.exit_codes
                or (
                    state.Status not in RUNNING
                    and state.StartedAt != ZERO_TIME
                    and state.ExitCode in self.exit_codes
                )
            )
            and (self.ancestors is None or record.Image in self.ancestors)
            and filters.exact("health", _health(record))
            and not filters.flag("is-task", default=False)
            and _matches_network(filters, record)
            and _matches_volume(filters, mount_points(record.mounts))
            and _matches_ports(filters, "expose", _exposed(record))
            and _matches_ports(filters, "publish", _published(record))
        )


def select(filters: Filters, *, all_: bool, store: ContainerStore, images: ImageStore) -> Selection:
    """Check a list's filters. Raises InvalidParameter for a bad value, NotFound for `before`."""
    for status in filters.get("status"):
        if status not in STATUSES:
            raise _bad_value("status", status, "state", STATUSES)
    for health in filters.get("health"):
        if health not in HEALTHS:
            raise _bad_value("health", health, "health", HEALTHS)
    for key in ("expose", "publish"):
        for value in filters.get(key):
            _check_port(key, value)
    filters.flag("is-task", default=False)
    before = [_created(store.get(ref)) for ref in filters.get("before")]
    since = [_created(store.get(ref)) for ref in filters.get("since")]
    return Selection(
        filters=filters,
        # Of the filters, only a state asks for stopped ones too, as with dockerd.
        all=all_ or "status" in filters,
        before_ns=min(before) if before else None,
        since_ns=max(since) if since else None,
        exit_codes=frozenset(_exit_code(value) for value in filters.get("exited")),
        ancestors=_ancestors(filters.get("ancestor"), images) if "ancestor" in filters else None,
    )


def summarize(
    container: Container, image_names: Callable[[str, str], str], at_ns: int
) -> ContainerSummary:
    """Make a container's row. `image_names(wished name, ID)` says what the image is called."""
    record = container.record
    annotations = record.HostConfig.Annotations
    row = ContainerSummary(
        Id=record.Id,
        Names=[f"/{record.Name}"],
        Image=image_names(record.Config.Image, record.Image),
        ImageID=record.Image,
        Command=command_text(record),
        Created=container.created_ns // SECOND,
        Ports=_ports(record),
        Labels=record.Config.Labels,
        State=record.State.Status,
        Status=status_text(record.State, at_ns),
        HostConfig=SummaryHostConfig(NetworkMode=record.HostConfig.NetworkMode),
        NetworkSettings=SummaryNetworkSettings(Networks=endpoints(record)),
        Mounts=mount_points(record.mounts),
        Health=_summary_health(record),
    )
    if annotations:
        row.HostConfig.Annotations = annotations
    return row


def summarize_all(
    containers: list[Container], images: ImageStore, store: ContainerStore
) -> list[ContainerSummary]:
    """Make the rows of a list; each image is looked up once. Links are names of what they link to."""
    known: dict[tuple[str, str], str] = {}

    def image_name(wished: str, image_id: str) -> str:
        """The name the user gave as long as it means that image, else the ID."""
        key = (wished, image_id)
        if key not in known:
            try:
                known[key] = wished if images.get(wished).id == image_id else image_id
            except PierError:
                known[key] = image_id
        return known[key]

    at_ns = now_ns()
    rows = [summarize(container, image_name, at_ns) for container in containers]
    if links := link_names(store):
        for row, container in zip(rows, containers, strict=True):
            row.Names += links.get(container.name, ())
    return rows


def command_text(record: ContainerRecord) -> str:
    """Return the command as one line; arguments with a space in quotes."""
    arguments = [f"'{word}'" if " " in word else word for word in record.Args]
    return " ".join([record.Path, *arguments])


def _created(container: Container) -> int:
    return container.created_ns


def _bad_value(key: str, value: str, kind: str, known: Sequence[str]) -> InvalidParameter:
    return InvalidParameter(
        f"invalid filter '{key}={value}': invalid value for {kind} ({value}): "
        f"must be one of {', '.join(known)}"
    )


def _exit_code(value: str) -> int:
    try:
        return int(value)
    except ValueError:
        raise InvalidParameter(
            f"invalid filter 'exited={value}': strconv.Atoi: parsing \"{value}\": invalid syntax"
        ) from None


def _ancestors(refs: tuple[str, ...], images: ImageStore) -> frozenset[str]:
    """The images named and all that were made from them; names that mean no image match nothing.

    What an image was made from is what a build or commit recorded: sharing layers makes none.
    """
    named = []
    for ref in refs:
        with contextlib.suppress(PierError):
            named.append(images.get(ref).id)
    return images.descendants(named)


def _summary_health(record: ContainerRecord) -> SummaryHealth:
    health = record.State.Health
    if health is UNSET:
        return SummaryHealth(Status="none", FailingStreak=0)
    return SummaryHealth(Status=health.Status, FailingStreak=health.FailingStreak)


def _health(record: ContainerRecord) -> str:
    health = record.State.Health
    return "none" if health is UNSET else health.Status


def _matches_name(filters: Filters, name: str) -> bool:
    return filters.pattern("name", name) or filters.pattern("name", f"/{name}")


def _matches_network(filters: Filters, record: ContainerRecord) -> bool:
    wanted = filters.get("network")
    return not wanted or any(
        name in wanted or (settings.NetworkID and settings.NetworkID.startswith(wanted))
        for name, settings in endpoints(record).items()
    )


def _matches_volume(filters: Filters, points: list[MountPoint]) -> bool:
    """`volume` is a mount's destination, or the name of what is mounted."""
    wanted = set(filters.get("volume"))
    return not wanted or any(
        {point.Destination, point.Source, point.Name or ""} & wanted for point in points
    )


def _exposed(record: ContainerRecord) -> frozenset[str]:
    return frozenset(port if "/" in port else f"{port}/tcp" for port in record.Config.ExposedPorts)


def _matches_ports(filters: Filters, key: str, ports: frozenset[str]) -> bool:
    """`80`, `80/udp` and `8000-8010/tcp` are all accepted."""
    wanted = filters.get(key)
    return not wanted or any(not ports.isdisjoint(_check_port(key, value)) for value in wanted)


def _check_port(key: str, value: str) -> frozenset[str]:
    """Return the ports that a filter's value means. Raises InvalidParameter."""
    numbers, _, protocol = value.partition("/")
    first, _, last = numbers.partition("-")
    wrong = f"error while looking up for {key} {value}: "
    for number in (first, last or first):
        if not number.isdigit():
            raise InvalidParameter(f'{wrong}strconv.ParseUint: parsing "{number}": invalid syntax')
        if int(number) > 0xFFFF:
            raise InvalidParameter(
                f'{wrong}strconv.ParseUint: parsing "{number}": value out of range'
            )
    span = range(int(first), int(last or first) + 1)
    if not span:
        raise InvalidParameter(f"{wrong}Invalid range specified for the Port: {value}")
    return frozenset(f"{number}/{protocol or 'tcp'}" for number in span)


def _ports(record: ContainerRecord) -> list[Port]:
    """Exposed and published ports of a running container; a stopped one shows none."""
    if record.State.Status not in RUNNING or record.HostConfig.NetworkMode == "host":
        return []
    found = []
    for text in sorted(_exposed(record) | set(record.ports)):
        number, _, protocol = text.partition("/")
        if not number.isdigit():
            continue
        bindings = record.ports.get(text)
        if not bindings:
            found.append(Port(PrivatePort=int(number), Type=protocol))
        for binding in bindings or ():
            public = int(binding.HostPort)
            found.append(Port(int(number), protocol, PublicPort=public, IP=binding.HostIp))
    return found


def _published(record: ContainerRecord) -> frozenset[str]:
    """The host's ports that lead to a container."""
    return frozenset(
        f"{binding.HostPort}/{port.partition('/')[2]}"
        for port, bindings in record.ports.items()
        for binding in bindings or ()
    )
