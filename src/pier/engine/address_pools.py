"""Which addresses of each network are taken: leased for a start, reserved by what runs, given back.

Kept in memory alone: a pierd that starts fills the pools from the records of what still runs.
"""

import contextlib

from pier.engine.endpoint_settings import addresses, wanted_address
from pier.errors import Forbidden, Internal, InvalidParameter, Unavailable
from pier.model.container import Attachment, EndpointSettings
from pier.model.network import NetworkRecord, SubnetStatus
from pier.network.ipam import MAX_COUNT, Address, Leases
from pier.network.plan import leases_of


class AddressPools:
    def __init__(self) -> None:
        self._leases: dict[str, list[Leases]] = {}

    def open(self, network: NetworkRecord) -> None:
        """Begin to lease a network's addresses."""
        self._leases[network.Id] = [] if network.ConfigOnly else leases_of(network)

    def close(self, network: NetworkRecord) -> None:
        self._leases.pop(network.Id, None)

    def counts(self, network: NetworkRecord) -> dict[str, SubnetStatus]:
        """Count the addresses of a network by its subnets."""
        return {
            str(pool.subnet): SubnetStatus(
                IPsInUse=min(pool.used, MAX_COUNT), DynamicIPsAvailable=min(pool.free, MAX_COUNT)
            )
            for pool in self._leases.get(network.Id, ())
        }

    def lease(
        self, network: NetworkRecord, settings: EndpointSettings
    ) -> list[tuple[Leases, Address]]:
        """Take an address of each family that the network has: those that are wished for, or any.

        Nothing is taken when it raises: InvalidParameter, Forbidden, Internal.
        """
        taken: list[tuple[Leases, Address]] = []
        try:
            for version, enabled in ((4, network.EnableIPv4), (6, network.EnableIPv6)):
                taken += [self._lease(network, settings, version)] if enabled else []
        except BaseException:
            for leases, address in taken:
                leases.release(address)
            raise
        return taken

    def _lease(
        self, network: NetworkRecord, settings: EndpointSettings, version: int
    ) -> tuple[Leases, Address]:
        pools = [p for p in self._leases[network.Id] if p.subnet.version == version]
        wanted = wanted_address(settings, version)
        if wanted is not None:
            for leases in pools:
                if leases.covers(wanted):
                    leases.reserve(wanted)
                    return leases, wanted
            raise InvalidParameter(
                f"no configured subnet or ip-range contain the IP address {wanted}"
            )
        for leases in pools:
            with contextlib.suppress(Unavailable):
                return leases, leases.allocate()
        raise Internal(
            f"no available IPv{version} addresses on this network's address pools:"
            f" {network.Name} ({network.Id})"
        )

    def reserve(self, network: NetworkRecord, attachment: Attachment) -> None:
        """Take what an endpoint that runs has already."""
        for address in addresses(attachment.settings):
            for leases in self._leases.get(network.Id, ()):
                if leases.covers(address.ip):
                    with contextlib.suppress(Forbidden):
                        leases.reserve(address.ip)

    def free(self, attachment: Attachment) -> None:
        """Give an endpoint's addresses back, and forget what it had."""
        settings = attachment.settings
        for address in addresses(settings):
            for leases in self._leases.get(settings.NetworkID, ()):
                if leases.covers(address.ip):
                    leases.release(address.ip)
        settings.EndpointID = settings.Gateway = settings.IPAddress = ""
        settings.IPv6Gateway = settings.GlobalIPv6Address = ""
        settings.IPPrefixLen = settings.GlobalIPv6PrefixLen = 0
        settings.MacAddress = attachment.mac
        attachment.interface = ""
