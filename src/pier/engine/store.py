"""The containers that exist: in memory for speed, in the database for good.

Every change of a record that must outlive pierd goes through `save`; one small transaction each.
Lookup is Docker's: full ID, then name with or without its slash, then unique ID prefix.
"""

from collections import deque
from collections.abc import Iterator

import msgspec

from pier.engine.container import Container
from pier.engine.names import check_name, random_name
from pier.errors import Conflict, InvalidParameter, NotFound
from pier.model.container import ContainerRecord
from pier.storage.database import Database


class ContainerStore:
    def __init__(self, database: Database) -> None:
        self._database = database
        self._by_id: dict[str, Container] = {}
        self._id_by_name: dict[str, str] = {}
        # Names given out to containers that are still being made, and the last of those that are.
        self._made_up: deque[str] = deque(maxlen=256)
        self._encoder = msgspec.json.Encoder()

    def load(self) -> None:
        """Read all records of the database."""
        decoder = msgspec.json.Decoder(ContainerRecord)
        for _, _, data in self._database.all_containers():
            self._index(Container(decoder.decode(data)))

    def __iter__(self) -> Iterator[Container]:
        """All containers, oldest first; a copy, so that they may change meanwhile."""
        return iter(list(self._by_id.values()))

    def __len__(self) -> int:
        return len(self._by_id)

    def __contains__(self, container_id: str) -> bool:
        return container_id in self._by_id

    def get(self, ref: str) -> Container:
        """Find a container. Raises NotFound, InvalidParameter for an ambiguous prefix."""
        found = self._by_id.get(ref)
        if found is not None:
            return found
        found_id = self._id_by_name.get(ref.removeprefix("/"))
        if found_id is not None:
            return self._by_id[found_id]
        if not ref:
            raise InvalidParameter(f'invalid name or ID supplied: "{ref}"')
        if "/" in ref:
            return self._linked(ref)
        matching = [known for known in self._by_id if known.startswith(ref)]
        if len(matching) > 1:
            raise InvalidParameter(f"multiple IDs found with provided prefix: {ref}")
        if not matching:
            raise NotFound(f"No such container: {ref}")
        return self._by_id[matching[0]]

    def _linked(self, ref: str) -> Container:
        """What another container's link of `docker run --link` calls "CONTAINER/ALIAS"."""
        name, _, alias = ref.strip("/").partition("/")
        owner = self._by_id.get(self._id_by_name.get(name, ""))
        for link in (owner and owner.record.HostConfig.Links) or ():
            target, _, path = link.partition(":")
            if target.startswith("/") and path.rpartition("/")[2] == alias:
                return self.get(target)
        raise NotFound(f"No such container: {ref}")

    def reserve_name(self, name: str) -> str:
        """Check a wished name, or make one up for "". Raises InvalidParameter, Conflict."""
        if not name:
            made_up = random_name(self._id_by_name)
            while made_up in self._made_up:
                made_up = random_name(self._id_by_name)
            self._made_up.append(made_up)
            return made_up
        bare = check_name(name)
        owner = self._id_by_name.get(bare)
        if owner is not None:
            raise Conflict(
                f'Conflict. The container name "/{bare}" is already in use by container "{owner}". '
                "You have to remove (or rename) that container to be able to reuse that name."
            )
        return bare

    def add(self, record: ContainerRecord) -> Container:
        """Take in a new container, durably."""
        container = Container(record)
        self.save(container)
        self._index(container)
        return container

    def save(self, container: Container) -> None:
        """Write the record to the database, unless the container was removed meanwhile."""
        if not container.is_removed:
            record = container.record
            self._database.put_container(record.Id, record.Name, self._encoder.encode(record))

    def rename(self, container: Container, name: str) -> None:
        """Give a container a name that `reserve_name` has let through."""
        del self._id_by_name[container.name]
        container.record.Name = name
        self._id_by_name[name] = container.id
        self.save(container)

    def remove(self, container: Container) -> None:
        """Forget a container, durably."""
        self._database.delete_container(container.id)
        container.is_removed = True
        del self._by_id[container.id]
        self._id_by_name.pop(container.name, None)

    def _index(self, container: Container) -> None:
        self._by_id[container.id] = container
        self._id_by_name[container.name] = container.id
