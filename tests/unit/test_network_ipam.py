"""Subnets and addresses: what is taken is never given twice, and what is free is found."""

from ipaddress import IPv4Address, ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pier.errors import Forbidden, InvalidParameter, Unavailable
from pier.model.network import IPAM, IPAMConfig, NetworkRecord
from pier.network.ipam import DEFAULT_POOLS, Leases, Pool, choose_subnet, unique_local_pool
from pier.network.plan import assign_subnets, subnets_of


def chosen(taken, pools=DEFAULT_POOLS, version=4):
    return str(choose_subnet(pools, [ip_network(net) for net in taken], version))


@pytest.mark.parametrize(
    ("taken", "expected"),
    [
        ([], "172.17.0.0/16"),
        (["172.17.0.0/16"], "172.18.0.0/16"),
        (["172.17.4.0/24", "172.18.0.0/15"], "172.20.0.0/16"),
        (["172.16.0.0/12"], "192.168.0.0/20"),
        (["172.16.0.0/12", "192.168.0.0/24"], "192.168.16.0/20"),
        (["10.0.0.0/8", "fd00::/8"], "172.17.0.0/16"),
    ],
)
def test_choice_of_a_subnet(taken, expected):
    assert chosen(taken) == expected


def test_no_subnet_is_left():
    with pytest.raises(InvalidParameter, match="all predefined address pools have been fully"):
        chosen(["172.16.0.0/12", "192.168.0.0/16"])
    with pytest.raises(InvalidParameter):
        chosen([], version=6)


def test_a_huge_pool_is_no_search():
    pool = Pool(ip_network("fd00::/8"), 64)
    assert chosen(["fd00::/9"], [pool], 6) == "fd80::/64"
    assert unique_local_pool(b"12345678").base.prefixlen == 48


@given(st.lists(st.integers(0, 255), max_size=40))
def test_chosen_subnets_never_overlap(numbers):
    taken = [ip_network(f"172.{number % 16 + 16}.{number}.0/24") for number in numbers]
    try:
        found = choose_subnet(DEFAULT_POOLS, taken, 4)
    except InvalidParameter:
        return
    assert not any(found.overlaps(net) for net in taken)


@given(st.lists(st.tuples(st.sampled_from(["take", "give", "ask"]), st.integers(0, 20))))
def test_no_address_is_given_twice(steps):
    """Whatever the order of taking and giving back, an address has one holder at a time."""
    leases = Leases(ip_network("10.0.0.0/28"))
    held = set()
    for step, number in steps:
        address = ip_address("10.0.0.0") + number % 16
        if step == "take":
            try:
                got = leases.allocate()
            except Unavailable:
                assert len(held | {ip_address("10.0.0.0"), ip_address("10.0.0.15")}) == 16
                continue
            assert got not in held
            assert got == min(set(leases.subnet.hosts()) - held)
            held.add(got)
        elif step == "ask":
            if address in leases:
                with pytest.raises(Forbidden, match="Address already in use"):
                    leases.reserve(address)
            else:
                leases.reserve(address)
                held.add(address)
        elif address in held:
            leases.release(address)
            held.discard(address)


def test_a_range_bounds_what_is_chosen():
    leases = Leases(ip_network("10.0.0.0/24"), ip_network("10.0.0.128/31"))
    assert [str(leases.allocate()) for _ in range(2)] == ["10.0.0.128", "10.0.0.129"]
    with pytest.raises(Unavailable):
        leases.allocate()
    leases.reserve(IPv4Address("10.0.0.7"))
    leases.release(IPv4Address("10.0.0.128"))
    assert str(leases.allocate()) == "10.0.0.128"


def test_a_subnet_of_a_version_that_is_not_enabled_is_kept_and_not_used():
    asked = IPAM("default", {}, [IPAMConfig(Subnet="2001:389::/64")])
    network = NetworkRecord("n", "1", "", "bridge", IPAM=asked)
    network.IPAM.Config = assign_subnets(network, [], [], DEFAULT_POOLS)
    assert network.IPAM.Config == [
        IPAMConfig(Subnet="172.17.0.0/16", Gateway="172.17.0.1"),
        IPAMConfig(Subnet="2001:389::/64"),
    ]
    assert subnets_of(network) == [ip_network("172.17.0.0/16")]
