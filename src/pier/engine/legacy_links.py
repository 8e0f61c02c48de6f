"""`--link` on the default bridge: lines in /etc/hosts and variables, as Docker has always made them.

In the record a link is "/target:/container/alias", which is what inspect shows. Networks that users
make have names (`names_of_networks`), and links there are names as well.
"""

from collections.abc import Iterable, Iterator, Sequence

from pier.engine.container import Container
from pier.engine.joins import PREFIX
from pier.engine.store import ContainerStore
from pier.errors import Conflict, InvalidParameter, NotFound
from pier.model.container import ContainerRecord, HostConfig

_BRIDGE = "bridge"


def settle_links(host: HostConfig, name: str, containers: ContainerStore) -> None:
    """Write the links of a new container as they are kept. Raises InvalidParameter."""
    if not host.Links or host.NetworkMode != _BRIDGE:
        return
    settled = []
    for link in host.Links:
        target, _, alias = link.partition(":")
        target = target.removeprefix("/")
        try:
            found = _with_network(containers.get(target), containers)
        except NotFound as exc:
            raise InvalidParameter(f"could not get container for {target}: {exc.message}") from exc
        if found.record.HostConfig.NetworkMode == "host":
            raise InvalidParameter(
                "conflicting options: host type networking can't be used with links."
                " This would result in undefined behavior"
            )
        alias = alias.rpartition("/")[2] or target
        settled.append(f"/{found.name}:/{name}/{alias}")
    host.Links = settled


def _with_network(container: Container, containers: ContainerStore) -> Container:
    """The container whose network this one has: itself, or who it joins. Raises NotFound."""
    mode = container.record.HostConfig.NetworkMode
    if not mode.startswith(PREFIX):
        return container
    return _with_network(containers.get(mode.removeprefix(PREFIX)), containers)


def remove_link(containers: ContainerStore, ref: str) -> None:
    """Take a link away from "container/alias". Raises NotFound."""
    name, _, alias = ref.strip("/").partition("/")
    container = containers.get(name)
    host = container.record.HostConfig
    kept = [
        link for link in host.Links or () if link.partition(":")[2] != f"/{container.name}/{alias}"
    ]
    if len(kept) == len(host.Links or ()):
        raise NotFound(f"Could not get entity for /{container.name}/{alias}")
    host.Links = kept or None
    containers.save(container)


def rename_in_links(containers: ContainerStore, old: str, new: str) -> None:
    """A container has another name now: links from it and to it say so."""
    for container in containers:
        links = container.record.HostConfig.Links or ()
        changed = [
            link.replace(f"/{old}:", f"/{new}:", 1)
            if link.startswith(f"/{old}:")
            else link.replace(f":/{old}/", f":/{new}/", 1)
            if link.startswith("/")
            else link
            for link in links
        ]
        if changed != [*links]:
            container.record.HostConfig.Links = changed
            containers.save(container)


def link_names(containers: ContainerStore) -> dict[str, list[str]]:
    """The "/CONTAINER/ALIAS" that links of the default bridge call containers by, by their names."""
    found: dict[str, list[str]] = {}
    for container in containers:
        for link in container.record.HostConfig.Links or ():
            target, _, path = link.partition(":")
            if target.startswith("/"):
                found.setdefault(target[1:], []).append(path)
    return found


def legacy_links(links: Iterable[str] | None) -> Iterator[tuple[str, str]]:
    """The (container, alias) pairs of links as they are kept."""
    for link in links or ():
        target, _, alias = link.partition(":")
        yield target.removeprefix("/"), alias.rpartition("/")[2]


def hosts_lines(linked: Sequence[tuple[str, ContainerRecord]]) -> list[str]:
    """Lines for /etc/hosts: the alias, the short ID or hostname, and the name."""
    lines = []
    for alias, record in linked:
        place = record.networks.get(_BRIDGE)
        if place is None or not place.settings.IPAddress:
            continue
        own = record.Config.Hostname or record.Id[:12]
        names = dict.fromkeys((alias, own, record.Name))
        lines.append(f"{place.settings.IPAddress}\t{' '.join(names)}")
    return lines


def links_environment(
    record: ContainerRecord, linked: Sequence[tuple[str, ContainerRecord]]
) -> list[str]:
    """The variables that links give a container. Raises Conflict for one that does not run."""
    env: list[str] = []
    for alias, target in linked:
        place = target.networks.get(_BRIDGE)
        address = place.settings.IPAddress if place is not None else ""
        if not address:
            raise Conflict(
                f"Cannot link to a non running container: /{target.Name} AS /{record.Name}/{alias}"
            )
        prefix = alias.upper().replace("-", "_")
        ports = sorted(
            (int(number), protocol or "tcp")
            for number, _, protocol in (port.partition("/") for port in target.Config.ExposedPorts)
            if number.isdigit()
        )
        env.append(f"{prefix}_NAME=/{record.Name}/{alias}")
        if ports:
            number, protocol = ports[0]
            env.append(f"{prefix}_PORT={protocol}://{address}:{number}")
        for number, protocol in ports:
            key = f"{prefix}_PORT_{number}_{protocol.upper()}"
            env += [
                f"{key}={protocol}://{address}:{number}",
                f"{key}_ADDR={address}",
                f"{key}_PORT={number}",
                f"{key}_PROTO={protocol}",
            ]
        for entry in target.Config.Env or ():
            name, _, value = entry.partition("=")
            if name not in ("HOME", "PATH"):
                env.append(f"{prefix}_ENV_{name}={value}")
    return env
