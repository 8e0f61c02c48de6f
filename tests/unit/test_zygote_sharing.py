"""What the zygote does so that its forks share more of its memory."""

import subprocess
import sys

import pytest

from pier.runtime import sharing

ROOT = __file__.rsplit("/tests/", 1)[0]
# In an interpreter of its own: what is done to functions stays.
STILL = """
import sys
sys.path.append("src")
from pier.runtime import sharing

def counted():
    return sum(n for n in range(20))

assert sharing.keep_code_still() > 100
for _ in range(20):
    assert counted() == 190
assert sharing._counter(counted.__code__).value == 0
inner = counted.__code__.co_consts[1]
assert inner.co_name == "<genexpr>" and sharing._counter(inner).value == 0
"""

TOGETHER = """
import gc, sys
sys.path.append("src")
from pier.runtime import sharing

gc.disable()
filler = sharing.fill_holes()
assert 0 < len(filler) < 100_000, len(filler)
for size in (64, 256, 512):
    blocks = [bytes(size - 33) for _ in range(8)]
    pools = {id(block) // (16 << 10) for block in blocks}
    assert len(pools) <= 3, (size, pools)
"""

NAMES = """
import sys
sys.path.append("src")
from pier.runtime import sharing
from pier.runtime.keeper import Keeper
import pier.runtime.keeper as module

names = sharing._own_names(Keeper)
assert {"run", "serve", "loop", "streams", "controls"} <= names, names
found = {(m.__name__, name) for m, name in sharing._module_names(Keeper._record)}
assert {("os", "open"), ("os", "rename"), ("os", "O_CREAT")} <= found, found
assert sharing.look_up_names() > 500
"""

pytestmark = pytest.mark.skipif(not sharing.is_known(), reason="is for CPython 3.11")


def test_code_is_left_as_it_was() -> None:
    subprocess.run([sys.executable, "-IS", "-c", STILL], check=True, cwd=ROOT)


def test_new_objects_lie_together() -> None:
    subprocess.run([sys.executable, "-IS", "-c", TOGETHER], check=True, cwd=ROOT)


def test_names_that_are_looked_up() -> None:
    subprocess.run([sys.executable, "-IS", "-c", NAMES], check=True, cwd=ROOT)
