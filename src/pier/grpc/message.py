"""Protocol Buffers' messages as typed structs (protobuf.dev/programming-guides/encoding).

A message is a subclass of `Message` whose fields say their numbers:

    class UsageRecord(Message):
        ID: Annotated[str, 1] = ""
        Size: Annotated[int, 4] = 0
        CreatedAt: Annotated[int, 6, TIME] = 0
        Parents: Annotated[list[str], 12] = []

Kinds are told by the types: bool, int (every varint: int32, int64, uint32, uint64, enums), str,
bytes, another message or None, lists of these, and dicts for maps. TIME is a
google.protobuf.Timestamp as nanoseconds since the epoch, 0 for none. Fields that have their default
are not sent, which is proto3; fields that are not known are skipped.
"""

import types
from collections.abc import Callable, Mapping
from typing import Annotated, Any, Self, Union, get_args, get_origin, get_type_hints

from msgspec import Struct

from pier.errors import InvalidParameter

TIME = "time"

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_SECOND = 1_000_000_000
_MAX_DEPTH = 100

Encode = Callable[[Any], bytes]
Decode = Callable[[Any, int], Any]


class BadMessage(InvalidParameter):
    """Bytes that are no message of the kind that was expected."""


class Message(Struct):
    """Base of messages. Lists and dicts as defaults are made anew for each, as msgspec does."""

    def encode(self) -> bytes:
        parts: list[bytes] = []
        for field in _fields(type(self)):
            value = getattr(self, field.name)
            if value or (value is not None and field.is_message and not field.is_list):
                field.put(parts, value)
        return b"".join(parts)

    @classmethod
    def decode(cls, data: bytes | memoryview, depth: int = 0) -> Self:
        """`depth` is how deep it is in another one. Raises BadMessage."""
        data = memoryview(data)
        if depth > _MAX_DEPTH:
            raise BadMessage("message nests too deeply")
        known = _by_number(cls)
        message = cls()
        at, end = 0, len(data)
        while at < end:
            tag, at = read_varint(data, at)
            wire = tag & 7
            value: Any
            if wire == _VARINT:
                value, at = read_varint(data, at)
            elif wire == _BYTES:
                size, at = read_varint(data, at)
                value = data[at : at + size]
                at += size
            elif wire in (_FIXED64, _FIXED32):
                at += 8 if wire == _FIXED64 else 4
                value = None
            else:
                raise BadMessage(f"wire type {wire} of field {tag >> 3} is not known")
            if at > end:
                raise BadMessage("message is cut off")
            if (field := known.get(tag >> 3)) is not None:
                field.take(message, wire, value, depth)
        return message


class _Field:
    """How one field travels."""

    def __init__(self, name: str, number: int, kind: Any, mark: str) -> None:
        self.name = name
        self.number = number
        kind = _without_none(kind)
        origin = get_origin(kind)
        self.is_list = origin is list
        self.is_map = origin in (dict, Mapping)
        if self.is_map:
            self._key, self._value = (_Field("", n, k, "") for n, k in enumerate(get_args(kind), 1))
        self.kind = get_args(kind)[0] if self.is_list else kind
        self.is_time = mark == TIME
        self.is_message = isinstance(self.kind, type) and issubclass(self.kind, Message)
        is_varint = self.kind in (int, bool) and not self.is_time
        self.wire = _VARINT if is_varint else _BYTES
        self._tag = varint(number << 3 | self.wire)

    def put(self, parts: list[bytes], value: Any) -> None:
        if self.is_map:
            for key, item in value.items():
                entry: list[bytes] = []
                self._key.put_one(entry, key)
                self._value.put_one(entry, item)
                data = b"".join(entry)
                parts += (self._tag, varint(len(data)), data)
        elif self.is_list:
            for item in value:
                self.put_one(parts, item)
        else:
            self.put_one(parts, value)

    def put_one(self, parts: list[bytes], value: Any) -> None:
        if self.wire == _VARINT:
            parts += (self._tag, varint(int(value)))
            return
        if self.is_message:
            data = value.encode()
        elif self.is_time:
            data = _timestamp(value)
        else:
            data = value.encode("utf-8", "surrogateescape") if self.kind is str else value
        parts += (self._tag, varint(len(data)), data)

    def take(self, message: Message, wire: int, value: Any, depth: int) -> None:
        if self.is_list and self.wire == _VARINT and wire == _BYTES:
            found = getattr(message, self.name)
            at = 0
            while at < len(value):  # packed
                number, at = read_varint(value, at)
                found.append(self._number(number))
            return
        if wire != self.wire:
            raise BadMessage(f"field {self.number} has wire type {wire}")
        if self.is_map:
            key, item = self._entry(value, depth)
            getattr(message, self.name)[key] = item
        elif self.is_list:
            getattr(message, self.name).append(self.one(value, depth))
        else:
            setattr(message, self.name, self.one(value, depth))

    def one(self, value: Any, depth: int) -> Any:
        if self.wire == _VARINT:
            return self._number(value)
        if self.is_message:
            return self.kind.decode(value, depth + 1)
        if self.is_time:
            found = _Timestamp.decode(value)
            return found.seconds * _SECOND + found.nanos
        if self.kind is bytes:
            return bytes(value)
        return str(value, "utf-8", "surrogateescape")

    def _number(self, value: int) -> int | bool:
        if self.kind is bool:
            return bool(value)
        return value - (1 << 64) if value >> 63 else value

    def _entry(self, data: memoryview, depth: int) -> tuple[Any, Any]:
        key, item = self._key.empty(), self._value.empty()
        at = 0
        while at < len(data):
            tag, at = read_varint(data, at)
            part: Any
            if tag & 7 == _VARINT:
                part, at = read_varint(data, at)
            elif tag & 7 == _BYTES:
                size, at = read_varint(data, at)
                part = data[at : at + size]
                at += size
            else:
                raise BadMessage("an entry of a map has another wire type")
            if at > len(data):
                raise BadMessage("message is cut off")
            field = self._key if tag >> 3 == 1 else self._value
            if tag >> 3 in (1, 2):
                if tag & 7 != field.wire:
                    raise BadMessage("an entry of a map has another wire type")
                if field is self._key:
                    key = field.one(part, depth)
                else:
                    item = field.one(part, depth)
        return key, item

    def empty(self) -> Any:
        return self.kind()


class _Timestamp(Message):
    seconds: Annotated[int, 1] = 0
    nanos: Annotated[int, 2] = 0


def _timestamp(ns: int) -> bytes:
    return _Timestamp(ns // _SECOND, ns % _SECOND).encode()


def _without_none(kind: Any) -> Any:
    if isinstance(kind, types.UnionType) or get_origin(kind) is Union:
        return next(arg for arg in get_args(kind) if arg is not type(None))
    return kind


def _read_fields(cls: type[Message]) -> list[_Field]:
    found = []
    for name, hint in get_type_hints(cls, include_extras=True).items():
        if get_origin(hint) is Annotated:
            kind, number, *marks = get_args(hint)
            found.append(_Field(name, number, kind, marks[0] if marks else ""))
    return sorted(found, key=lambda field: field.number)


def _fields(cls: type[Message]) -> list[_Field]:
    """The fields in order of their numbers; looked up once a class."""
    fields = _FIELDS.get(cls)
    if fields is None:
        fields = _FIELDS[cls] = _read_fields(cls)
    return fields


def _by_number(cls: type[Message]) -> dict[int, _Field]:
    known = _NUMBERS.get(cls)
    if known is None:
        known = _NUMBERS[cls] = {field.number: field for field in _fields(cls)}
    return known


# What the annotations say does not change: a cache, and not state.
_FIELDS: dict[type[Message], list[_Field]] = {}
_NUMBERS: dict[type[Message], dict[int, _Field]] = {}


_SMALL = [bytes((number,)) for number in range(0x80)]


def varint(number: int) -> bytes:
    """A number, negative ones as 64 bits in two's complement."""
    if 0 <= number < 0x80:
        return _SMALL[number]
    if number < 0:
        number += 1 << 64
    found = bytearray()
    while number >= 0x80:
        found.append(number & 0x7F | 0x80)
        number >>= 7
    found.append(number)
    return bytes(found)


def read_varint(data: memoryview | bytes, at: int) -> tuple[int, int]:
    """Return the number at `at`, unsigned, and where it ends. Raises BadMessage."""
    try:
        byte = data[at]
        if byte < 0x80:
            return byte, at + 1
        number, shift = byte & 0x7F, 7
        while True:
            at += 1
            byte = data[at]
            number |= (byte & 0x7F) << shift
            if byte < 0x80:
                break
            shift += 7
            if shift > 63:
                raise BadMessage("number is too long")
    except IndexError:
        raise BadMessage("message is cut off") from None
    return number & 0xFFFF_FFFF_FFFF_FFFF, at + 1
