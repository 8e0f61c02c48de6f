"""Keeps forks of the zygote from writing into the pages that they share with it.

A fork shares its parent's memory until somebody writes to it, a page at a time, and each page costs
it a fault and a copy. Most of what a keeper writes there is bookkeeping of the interpreter's, beside
the objects that it is about. Reference counts cannot be helped; what can are

    holes                       what is free between objects that stay gets a keeper's new ones, which
                                then lie on as many pages as there are of them
    the cache of attributes     the first look-up of a name on a type writes it into a table, and a
                                reference to the name; so names are looked up before there are forks
    the warm-up of functions    CPython 3.11 counts the calls of each in its code, and rewrites that
                                after eight (PEP 659), which never pays in a keeper's life

Together a quarter of a megabyte of each keeper, and 170 page faults of a start. It all rests on how
CPython 3.11 is made inside, so another one is left as it is.
"""

from __future__ import annotations

import ctypes
import gc
import select
import sys
import types

from pier.kernel.lean import socket

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

# PyCodeObject (Include/cpython/code.h): a PyVarObject, three pointers, an int, then the counter.
_COUNTER_OFFSET = 52
_COUNTER_BEGIN = -8
# Lib/opcode.py: what `self.name` and `module.name` are in code.
_CACHE, _STORE_ATTR, _LOAD_ATTR, _LOAD_GLOBAL, _LOAD_FAST, _EXTENDED_ARG, _LOAD_METHOD = (
    *(0, 95, 106, 116, 124, 144, 160),
)
_OTHERS: tuple[type, ...] = (
    *(str, bytes, list, dict, set, frozenset, socket.socket, select.epoll),
)
# Objects/obmalloc.c: small blocks of one size lie in a pool, behind its header; larger ones are
# malloc's. A bytes object is a block of its length and this.
_POOL_BYTES, _POOL_HEADER_BYTES = 16 << 10, 48
_STEP, _LARGEST_SMALL, _LARGEST_HOLE = 16, 512, 8192
_BYTES_HEADER = 33
_SMALLEST = 48
_IN_A_ROW = 3
# More than any hole, and less than malloc would map.
_PROBE_BYTES = 100_000
# A way out, should the allocator be another after all.
_MOST_BLOCKS = 100_000


def is_known() -> bool:
    """Tell whether this interpreter is the one whose insides are known here."""
    return (
        sys.implementation.name == "cpython"
        and sys.version_info[:2] == (3, 11)
        and ctypes.sizeof(ctypes.c_void_p) == 8
    )


def keep_code_still() -> int:
    """Have no function's calls counted any more; return how many code objects there were.

    0 when the counter is not where it should be, and then nothing has been changed.
    """

    def sample() -> None: ...

    counter = _counter(sample.__code__)
    begin = counter.value
    sample()
    if (begin, counter.value) != (_COUNTER_BEGIN, _COUNTER_BEGIN + 1):
        return 0
    seen: set[int] = set()
    for found in gc.get_objects():
        if isinstance(found, types.FunctionType):
            _still(found.__code__, seen)
    return len(seen)


def _still(code: types.CodeType, seen: set[int]) -> None:
    if id(code) in seen:
        return
    seen.add(id(code))
    # At 0 it is not counted on, and the code stays the one that was compiled.
    _counter(code).value = 0
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            _still(constant, seen)


def _counter(code: types.CodeType) -> ctypes.c_short:
    return ctypes.c_short.from_address(id(code) + _COUNTER_OFFSET)


def look_up_names() -> int:
    """Look up the names that the code of our rooms asks of modules, its own objects and others'.

    Returns how many. Nothing is called, but for what a property gets, which are left out. Our own
    objects come last: of two names in one place of the table the later one stays.
    """
    ours = [found for found in gc.get_objects() if _is_ours(found)]
    functions = [found for found in ours if isinstance(found, types.FunctionType)]
    methods: set[str] = set()
    count = 0
    for function in functions:
        methods |= _method_names(function.__code__)
        for module, name in _module_names(function):
            getattr(module, name, None)
            count += 1
    for kind in _OTHERS:
        for name in methods & kind.__dict__.keys():
            getattr(kind, name)
            count += 1
    for kind in ours:
        if type(kind) is type and getattr(kind, "__new__", None) is object.__new__:
            names = _own_names(kind)
            blank = object.__new__(kind)
            for name in names:
                getattr(blank, name, None)
            count += len(names)
    return count


def _is_ours(found: object) -> bool:
    if not isinstance(found, types.FunctionType | type):
        return False
    return str(found.__module__).startswith("pier.")


def _own_names(kind: type) -> set[str]:
    """Return a class's methods, and the names that they ask of `self`."""
    names: set[str] = set()
    for name, value in kind.__dict__.items():
        if isinstance(value, types.FunctionType):
            names.add(name)
            names |= _names_of_self(value.__code__)
    return {name for name in names if not isinstance(getattr(kind, name, None), property)}


def _names_of_self(code: types.CodeType) -> set[str]:
    names = set()
    before = (0, -1)
    for operation, argument in _operations(code):
        if before == (_LOAD_FAST, 0) and operation in (_LOAD_ATTR, _LOAD_METHOD, _STORE_ATTR):
            names.add(code.co_names[argument])
        before = (operation, argument)
    return names


def _method_names(code: types.CodeType) -> set[str]:
    return {code.co_names[arg] for operation, arg in _operations(code) if operation == _LOAD_METHOD}


def _module_names(function: types.FunctionType) -> set[tuple[types.ModuleType, str]]:
    found = set()
    code = function.__code__
    module: object = None
    for operation, argument in _operations(code):
        if operation in (_LOAD_ATTR, _LOAD_METHOD) and isinstance(module, types.ModuleType):
            found.add((module, code.co_names[argument]))
        module = None
        if operation == _LOAD_GLOBAL:
            module = function.__globals__.get(code.co_names[argument >> 1])
    return found


def _operations(code: types.CodeType) -> Iterator[tuple[int, int]]:
    """Yield operations with their arguments."""
    raw = code.co_code
    high = 0
    for index in range(0, len(raw), 2):
        operation, argument = raw[index], raw[index + 1] | high
        if operation == _CACHE:
            continue
        high = argument << 8 if operation == _EXTENDED_ARG else 0
        if operation != _EXTENDED_ARG:
            yield operation, argument


def fill_holes() -> list[bytes]:
    """Fill what is free between objects; new ones lie together for as long as the answer is kept."""
    filler: list[bytes] = []
    for size in range(_LARGEST_SMALL, _SMALLEST - _STEP, -_STEP):
        filler += _until_fresh_pool(size)
    border = id(bytes(_PROBE_BYTES))
    for size in range(_LARGEST_HOLE, _LARGEST_SMALL, -_STEP):
        for _ in range(_MOST_BLOCKS):
            block = bytes(size - _BYTES_HEADER)
            if id(block) >= border:
                # From behind everything: there is no hole left of this size.
                break
            filler.append(block)
    return filler


def _until_fresh_pool(size: int) -> list[bytes]:
    """Take blocks until a pool is begun, which shows by its first blocks coming one after another."""
    blocks: list[bytes] = []
    in_a_row = previous = 0
    while in_a_row < _IN_A_ROW and len(blocks) < _MOST_BLOCKS:
        block = bytes(size - _BYTES_HEADER)
        blocks.append(block)
        address = id(block)
        if in_a_row and address == previous + size:
            in_a_row += 1
        else:
            in_a_row = int(address % _POOL_BYTES == _POOL_HEADER_BYTES)
        previous = address
    return blocks[: -_IN_A_ROW or None]
