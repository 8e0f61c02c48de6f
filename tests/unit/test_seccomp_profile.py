"""Docker's seccomp profiles: resolved for a container, compiled, cached, and tried out.

The programs run in a small interpreter of classic BPF, so that no process has to be filtered.
"""

import ctypes
import errno
import json
import os
import struct

import pytest

from pier.engine.defaults import CAPABILITIES
from pier.engine.seccomp_profile import DEFAULT_PROFILE_PATH, SeccompFilters, parse, resolve
from pier.errors import InvalidParameter, Unsupported
from pier.kernel import seccomp

X86_64, I386 = 0xC000003E, 0x40000003
ALLOW, ENOSYS = 0x7FFF0000, 0x00050000 | errno.ENOSYS
EPERM = 0x00050000 | errno.EPERM

try:
    LIBRARY = seccomp.Library()
except seccomp.SeccompError:
    LIBRARY = None
needs_library = pytest.mark.skipif(LIBRARY is None, reason="libseccomp is not installed")
x86_64_only = pytest.mark.skipif(os.uname().machine != "x86_64", reason="numbers of x86_64")


def default_profile():
    with open(DEFAULT_PROFILE_PATH) as file:
        return parse(file.read())


def evaluate(program, arch, number, *args):
    """What the kernel would decide: seccomp(2), struct seccomp_data."""
    data = struct.pack("=iIQ6Q", ctypes.c_int(number).value, arch, 0, *args, *[0] * (6 - len(args)))
    instructions = list(struct.iter_unpack("=HBBI", program))
    accumulator = counter = 0
    while True:
        code, jump_true, jump_false, k = instructions[counter]
        counter += 1
        match code:
            case 0x20:
                accumulator = struct.unpack_from("=I", data, k)[0]
            case 0x06:
                return k
            case 0x05:
                counter += k
            case 0x15 | 0x25 | 0x35 | 0x45:
                holds = {
                    0x15: accumulator == k,
                    0x25: accumulator > k,
                    0x35: accumulator >= k,
                    0x45: bool(accumulator & k),
                }[code]
                counter += jump_true if holds else jump_false
            case 0x54:
                accumulator &= k
            case _:
                raise AssertionError(f"instruction {code:#x}")


@pytest.fixture(scope="module")
def default_program():
    if LIBRARY is None:
        pytest.skip("libseccomp is not installed")
    return seccomp.compile(resolve(default_profile(), CAPABILITIES, "x86_64", (6, 1)))


def names(resolved):
    return {name for rule in resolved["syscalls"] for name in rule["names"]}


def test_resolve_capabilities():
    profile = default_profile()
    plain = resolve(profile, CAPABILITIES, "x86_64", (6, 1))
    admin = resolve(profile, [*CAPABILITIES, "CAP_SYS_ADMIN"], "x86_64", (6, 1))
    assert "mount" not in names(plain)
    assert "mount" in names(admin)
    clone3 = [rule for rule in plain["syscalls"] if rule["names"] == ["clone3"]]
    assert clone3 == [
        {"names": ["clone3"], "action": "SCMP_ACT_ERRNO", "args": [], "errnoRet": errno.ENOSYS}
    ]


def test_resolve_architecture():
    profile = default_profile()
    assert resolve(profile, (), "x86_64", (6, 1))["architectures"] == [
        "SCMP_ARCH_X86_64",
        "SCMP_ARCH_X86",
        "SCMP_ARCH_X32",
    ]
    arm = resolve(profile, (), "aarch64", (6, 1))
    assert arm["architectures"] == ["SCMP_ARCH_AARCH64", "SCMP_ARCH_ARM"]
    assert "arch_prctl" not in names(arm)
    assert "arm_sync_file_range" in names(arm)


@pytest.mark.parametrize(("kernel", "allowed"), [((4, 7), False), ((4, 8), True), ((6, 18), True)])
def test_resolve_kernel(kernel, allowed):
    assert ("ptrace" in names(resolve(default_profile(), (), "x86_64", kernel))) is allowed


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "decoding seccomp profile failed"),
        ("[]", "decoding seccomp profile failed"),
        ("{}", "no defaultAction"),
        (
            '{"defaultAction": "SCMP_ACT_ALLOW", "architectures": ["a"], "archMap": [{}]}',
            "both 'architectures' and 'archMap'",
        ),
    ],
)
def test_bad_profiles(text, message):
    with pytest.raises(InvalidParameter, match=message):
        parse(text)


@x86_64_only
@pytest.mark.parametrize(
    ("arch", "number", "args", "action"),
    [
        (X86_64, 0, (), ALLOW),  # read
        (X86_64, 59, (), ALLOW),  # execve
        (X86_64, 165, (), EPERM),  # mount
        (X86_64, 435, (), ENOSYS),  # clone3, for want of CAP_SYS_ADMIN
        (X86_64, 56, (0x11,), ALLOW),  # clone(SIGCHLD)
        (X86_64, 56, (0x10000000,), EPERM),  # clone(CLONE_NEWUSER)
        (X86_64, 135, (8,), ALLOW),  # personality(PER_LINUX32)
        (X86_64, 135, (9,), EPERM),
        (X86_64, 41, (2,), ALLOW),  # socket(AF_INET)
        (X86_64, 41, (40,), EPERM),  # socket(AF_VSOCK)
        (X86_64, 9999, (), ENOSYS),
        (X86_64, 0x40000000, (), ALLOW),  # x32: read
        (X86_64, 0x40000000 + 9999, (), ENOSYS),
        (I386, 3, (), ALLOW),  # read
        (I386, 21, (), EPERM),  # mount
        (I386, 9999, (), ENOSYS),
        (0xDEAD, 0, (), 0),  # a foreign architecture: killed
    ],
)
def test_default_program(default_program, arch, number, args, action):
    assert evaluate(default_program, arch, number, *args) == action


@needs_library
@x86_64_only
def test_conditions_on_one_argument_are_alternatives():
    rule = {
        "names": ["personality"],
        "action": "SCMP_ACT_ERRNO",
        "errnoRet": 7,
        "args": [
            {"index": 0, "value": 1, "op": "SCMP_CMP_EQ"},
            {"index": 0, "value": 2, "op": "SCMP_CMP_EQ"},
        ],
    }
    program = seccomp.compile({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [rule]})
    answers = [evaluate(program, X86_64, 135, value) for value in (0, 1, 2)]
    assert answers == [ALLOW, 0x00050007, 0x00050007]
    assert evaluate(program, X86_64, 9999) == ALLOW


@needs_library
@pytest.mark.parametrize(
    "profile",
    [
        {"defaultAction": "SCMP_ACT_NONSENSE"},
        {"defaultAction": "SCMP_ACT_NOTIFY"},
        {"defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_PDP11"]},
        {
            "defaultAction": "SCMP_ACT_ALLOW",
            "syscalls": [
                {
                    "names": ["read"],
                    "action": "SCMP_ACT_KILL",
                    "args": [{"index": 0, "op": "SCMP_CMP_WHAT", "value": 0}],
                }
            ],
        },
    ],
)
def test_what_the_compiler_refuses(profile):
    with pytest.raises(seccomp.SeccompError):
        seccomp.compile(profile)


@needs_library
def test_filters_are_compiled_once(tmp_path):
    directory = str(tmp_path / "seccomp")
    filters = SeccompFilters(directory)
    path = filters.path_for("", CAPABILITIES)
    assert path is not None
    assert os.listdir(directory) == [os.path.basename(path)]
    before = os.stat(path).st_ino
    assert filters.path_for("builtin", CAPABILITIES) == path
    assert SeccompFilters(directory).path_for("", CAPABILITIES) == path
    assert os.stat(path).st_ino == before
    assert filters.path_for("", ()) != path
    assert os.path.getsize(path) % 8 == 0


@needs_library
def test_own_profiles(tmp_path):
    filters = SeccompFilters(str(tmp_path))
    own = json.dumps({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": None})
    assert filters.path_for(own, ()) is not None
    with pytest.raises(InvalidParameter, match="decoding seccomp profile failed"):
        filters.path_for("nonsense", ())
    with pytest.raises(InvalidParameter, match="decoding seccomp profile failed"):
        filters.path_for('{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{}]}', ())
    notify = '{"defaultAction": "SCMP_ACT_NOTIFY"}'
    with pytest.raises(Unsupported, match="SCMP_ACT_NOTIFY"):
        filters.path_for(notify, ())
    flag = '{"defaultAction": "SCMP_ACT_ALLOW", "flags": ["SECCOMP_FILTER_FLAG_NEW_LISTENER"]}'
    with pytest.raises(Unsupported, match="NEW_LISTENER"):
        filters.path_for(flag, ())


def test_unconfined(tmp_path):
    assert SeccompFilters(str(tmp_path)).path_for("unconfined", CAPABILITIES) is None
    assert os.listdir(tmp_path) == []


def test_a_missing_library_is_said(monkeypatch, tmp_path):
    monkeypatch.setattr(seccomp, "LIBRARY", "libseccomp-is-not-here.so.0")
    with pytest.raises(Unsupported, match="install libseccomp2"):
        SeccompFilters(str(tmp_path)).path_for("", ())
