"""Protocol Buffers by hand: what the public format says, and what hostile bytes may do."""

from typing import Annotated

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pier.buildkit.messages import control, gateway, ops
from pier.grpc.message import TIME, BadMessage, Message, read_varint, varint

INT64 = st.integers(-(1 << 63), (1 << 63) - 1)


class Inner(Message):
    name: Annotated[str, 1] = ""


class Sample(Message):
    text: Annotated[str, 1] = ""
    number: Annotated[int, 2] = 0
    flag: Annotated[bool, 3] = False
    data: Annotated[bytes, 4] = b""
    inner: Annotated[Inner | None, 5] = None
    texts: Annotated[list[str], 6] = []  # noqa: RUF012
    inners: Annotated[list[Inner], 7] = []  # noqa: RUF012
    numbers: Annotated[list[int], 8] = []  # noqa: RUF012
    names: Annotated[dict[str, str], 9] = {}  # noqa: RUF012
    by_number: Annotated[dict[int, Inner], 10] = {}  # noqa: RUF012
    time: Annotated[int, 16, TIME] = 0


SAMPLES = st.builds(
    Sample,
    text=st.text(),
    number=INT64,
    flag=st.booleans(),
    data=st.binary(),
    inner=st.none() | st.builds(Inner, st.text()),
    texts=st.lists(st.text()),
    inners=st.lists(st.builds(Inner, st.text())),
    numbers=st.lists(INT64),
    names=st.dictionaries(st.text(), st.text()),
    by_number=st.dictionaries(INT64, st.builds(Inner, st.text())),
    time=st.integers(-(1 << 62), 1 << 62),
)


@given(SAMPLES)
def test_round_trip(message: Sample) -> None:
    assert Sample.decode(message.encode()) == message


@pytest.mark.parametrize(
    ("message", "wire"),
    [
        (Sample(), ""),
        (Sample(text="testing"), "0a0774657374696e67"),
        (Sample(number=150), "109601"),
        (Sample(number=-1), "10ffffffffffffffffff01"),
        (Sample(flag=True), "1801"),
        (Sample(inner=Inner()), "2a00"),
        (Sample(texts=["", "a"]), "32003201" + "61"),
        (Sample(names={"a": "b"}), "4a060a0161120162"),
        (Sample(time=1_500_000_000), "82010808" + "0110" + "80cab5ee01"),
    ],
)
def test_wire(message: Sample, wire: str) -> None:
    assert message.encode().hex() == wire
    assert Sample.decode(bytes.fromhex(wire)) == message


def test_packed_numbers_are_read() -> None:
    assert Sample.decode(bytes.fromhex("420301ac02")).numbers == [1, 300]


def test_fields_that_are_not_known_are_skipped() -> None:
    unknown = "a206" + "0161" + "a806" + "05" + "b106" + "00" * 8 + "bd06" + "00" * 4
    assert Sample.decode(bytes.fromhex(unknown + "0a0161")) == Sample(text="a")


def test_an_entry_of_a_map_may_lack_its_value() -> None:
    assert Sample.decode(bytes.fromhex("52020805")).by_number == {5: Inner()}


def test_defaults_are_not_shared() -> None:
    one = Sample.decode(bytes.fromhex("320161"))
    assert one.texts == ["a"]
    assert Sample().texts == []


@pytest.mark.parametrize("wire", ["0a05", "0a", "ff" * 11, "0b", "0801", "1201", "8a"])
def test_broken(wire: str) -> None:
    with pytest.raises(BadMessage):
        Sample.decode(bytes.fromhex(wire))


def test_nesting_is_bounded() -> None:
    class Deep(Message):
        source: Annotated[ops.Definition | None, 1] = None

    data = b""
    for _ in range(200):
        data = b"\x1a" + varint(len(data)) + data  # Definition.source
    assert Deep.decode(b"") == Deep()
    ops.Definition.decode(b"\x1a\x00")


@pytest.mark.parametrize(
    "kind",
    [Sample, control.SolveRequest, control.StatusResponse, gateway.ReturnRequest, ops.Definition],
)
@given(st.binary(max_size=200))
def test_any_bytes_are_a_message_or_told_to_be_none(kind: type[Message], data: bytes) -> None:
    try:
        message = kind.decode(data)
    except BadMessage:
        return
    assert kind.decode(message.encode()) == message


@given(st.integers(0, (1 << 64) - 1))
def test_varints(number: int) -> None:
    data = varint(number)
    assert read_varint(data, 0) == (number, len(data))
