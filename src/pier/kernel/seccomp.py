"""seccomp filters: compiled with libseccomp(3) once, loaded with seccomp(2) many times.

`compile` turns the `linux.seccomp` object of the OCI runtime specification (config-linux.md) into
a classic BPF program. It is the only part that needs libseccomp, which is opened when it is called
and never at import: the zygote imports this room. `load` is what a container's process does on its
way to execve: one system call. No policy: profiles are resolved in `pier.engine`.
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct

from pier.kernel.process import prctl
from pier.kernel.syscalls import syscall

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from typing import Any

LIBRARY = "libseccomp.so.2"

SECCOMP_SET_MODE_FILTER = 1
SECCOMP_MODE_FILTER = 2
SECCOMP_FILTER_FLAG_TSYNC = 1
SECCOMP_FILTER_FLAG_LOG = 2
# Keeps the mitigation of Speculative Store Bypass out of containers, as runc does by default: it
# costs much, and since Linux 5.16 no filter asks for it any more.
SECCOMP_FILTER_FLAG_SPEC_ALLOW = 4
SECCOMP_FILTER_FLAG_NEW_LISTENER = 8
SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV = 32
PR_SET_SECCOMP = 22
# Made by number: glibc has no wrapper, and the call is older than the common numbering.
SYS_SECCOMP = {"x86_64": 317, "aarch64": 277}

FLAGS = {
    "SECCOMP_FILTER_FLAG_TSYNC": SECCOMP_FILTER_FLAG_TSYNC,
    "SECCOMP_FILTER_FLAG_LOG": SECCOMP_FILTER_FLAG_LOG,
    "SECCOMP_FILTER_FLAG_SPEC_ALLOW": SECCOMP_FILTER_FLAG_SPEC_ALLOW,
    "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV": SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV,
}
ACTIONS = {
    "SCMP_ACT_KILL": 0x00000000,
    "SCMP_ACT_KILL_THREAD": 0x00000000,
    "SCMP_ACT_KILL_PROCESS": 0x80000000,
    "SCMP_ACT_TRAP": 0x00030000,
    "SCMP_ACT_ERRNO": 0x00050000,
    "SCMP_ACT_NOTIFY": 0x7FC00000,
    "SCMP_ACT_TRACE": 0x7FF00000,
    "SCMP_ACT_LOG": 0x7FFC0000,
    "SCMP_ACT_ALLOW": 0x7FFF0000,
}
_NOTIFY = "SCMP_ACT_NOTIFY"
_WITH_ERRNO = frozenset(("SCMP_ACT_ERRNO", "SCMP_ACT_TRACE"))
_PERMISSIVE = frozenset(("SCMP_ACT_ALLOW", "SCMP_ACT_LOG", "SCMP_ACT_TRACE"))
OPERATORS = {
    "SCMP_CMP_NE": 1,
    "SCMP_CMP_LT": 2,
    "SCMP_CMP_LE": 3,
    "SCMP_CMP_EQ": 4,
    "SCMP_CMP_GE": 5,
    "SCMP_CMP_GT": 6,
    "SCMP_CMP_MASKED_EQ": 7,
}

_SCMP_FLTATR_CTL_OPTIMIZE = 8
_BINARY_TREE = 2
_NR_SCMP_ERROR = -1
_X32 = "SCMP_ARCH_X32"
_X86_64 = "SCMP_ARCH_X86_64"
_X32_SYSCALL_BIT = 0x40000000

# Classic BPF, linux/filter.h: struct sock_filter is {u16 code, u8 jt, u8 jf, u32 k}.
_SOCK_FILTER = struct.Struct("=HBBI")
_BPF_LD_W_ABS = 0x20
_BPF_JA = 0x05
_BPF_JEQ = 0x15
_BPF_JGT = 0x25
_BPF_JSET = 0x45
_BPF_RET = 0x06
_OFFSET_NR = 0
_OFFSET_ARCH = 4


class SeccompError(OSError):
    """libseccomp is missing or refused the profile; the text is for the user."""


class _ArgCmp(ctypes.Structure):
    """struct scmp_arg_cmp."""

    _fields_ = (
        ("arg", ctypes.c_uint),
        ("op", ctypes.c_int),
        ("datum_a", ctypes.c_uint64),
        ("datum_b", ctypes.c_uint64),
    )


class _Version(ctypes.Structure):
    """struct scmp_version."""

    _fields_ = (("major", ctypes.c_uint), ("minor", ctypes.c_uint), ("micro", ctypes.c_uint))


class _FProg(ctypes.Structure):
    """struct sock_fprog."""

    _fields_ = (("len", ctypes.c_ushort), ("filter", ctypes.c_char_p))


class Library:
    """libseccomp, opened. Raises SeccompError(ENOENT) when the host does not have it."""

    def __init__(self) -> None:
        try:
            lib = ctypes.CDLL(LIBRARY)
        except OSError as exc:
            raise SeccompError(
                errno.ENOENT,
                f"cannot open {LIBRARY}: install libseccomp2, or run without a filter"
                " (--security-opt seccomp=unconfined)",
            ) from exc
        pointer, number, text = ctypes.c_void_p, ctypes.c_int, ctypes.c_char_p
        unsigned = ctypes.c_uint32
        for name, result, arguments in (
            ("seccomp_init", pointer, (unsigned,)),
            ("seccomp_release", None, (pointer,)),
            ("seccomp_attr_set", number, (pointer, number, unsigned)),
            ("seccomp_arch_resolve_name", unsigned, (text,)),
            ("seccomp_arch_add", number, (pointer, unsigned)),
            ("seccomp_arch_native", unsigned, ()),
            ("seccomp_syscall_resolve_name", number, (text,)),
            ("seccomp_syscall_resolve_name_arch", number, (unsigned, text)),
            (
                "seccomp_rule_add_array",
                number,
                (pointer, unsigned, number, ctypes.c_uint, pointer),
            ),
            ("seccomp_export_bpf", number, (pointer, number)),
            ("seccomp_version", ctypes.POINTER(_Version), ()),
        ):
            call = getattr(lib, name)
            call.restype, call.argtypes = result, arguments
        self.call = lib

    def version(self) -> tuple[int, int, int]:
        found = self.call.seccomp_version().contents
        return found.major, found.minor, found.micro

    def arch(self, name: str) -> int:
        """Token of an architecture such as "SCMP_ARCH_X86_64"; SeccompError if unknown."""
        short = name.removeprefix("SCMP_ARCH_").lower()
        token: int = self.call.seccomp_arch_resolve_name(short.encode())
        if not token:
            raise SeccompError(errno.EINVAL, f"seccomp: unknown architecture {name!r}")
        return token


def compile(  # noqa: A001  # as re.compile
    profile: Mapping[str, Any], *, listener: bool = False
) -> bytes:
    """Compile an OCI `linux.seccomp` object into a program: an array of struct sock_filter.

    SCMP_ACT_NOTIFY is for those who say that they `load` with a `listener`.
    System calls that libseccomp does not know are left out, as runc does. As with runc, calls that
    are newer than all that the profile names fail with ENOSYS instead of the default action, so
    that programs fall back to older ones. `flags` are not part of a program: see `load_flags`.
    Raises SeccompError: no library, or a value that it does not take.
    """
    library = Library()
    _check_notify(profile, listener=listener)
    default = _action(profile["defaultAction"], profile.get("defaultErrnoRet"))
    context = library.call.seccomp_init(default)
    if not context:
        raise SeccompError(errno.EINVAL, "seccomp_init failed")
    architectures = list(profile.get("architectures") or ())
    rules = profile.get("syscalls") or ()
    try:
        for name in architectures:
            _check(
                library.call.seccomp_arch_add(context, library.arch(name)),
                f"seccomp: add architecture {name}",
                tolerated=-errno.EEXIST,
            )
        # Without the tree (libseccomp < 2.5) the program is a list: slower, and as right.
        library.call.seccomp_attr_set(context, _SCMP_FLTATR_CTL_OPTIMIZE, _BINARY_TREE)
        for rule in rules:
            _add(library, context, rule, default)
        program = _export(library, context)
    finally:
        library.call.seccomp_release(context)
    if profile["defaultAction"] in _PERMISSIVE:
        return program
    named = [name for rule in rules for name in rule.get("names", ())]
    return _refuse_newer(library, architectures, named) + program


def load_flags(profile: Mapping[str, Any]) -> int:
    """SECCOMP_FILTER_FLAG_* that `load` needs for this profile.

    Raises SeccompError for a flag that is unknown, or needs a listener.
    """
    flags = profile.get("flags")
    if not flags:
        return SECCOMP_FILTER_FLAG_SPEC_ALLOW
    bits = 0
    for flag in flags:
        if flag not in FLAGS:
            raise SeccompError(errno.EINVAL, f"seccomp: flag {flag!r} is not supported")
        bits |= FLAGS[flag]
    return bits


def load(
    program: bytes, flags: int = SECCOMP_FILTER_FLAG_SPEC_ALLOW, *, listener: bool = False
) -> int:
    """Put this thread and its children under the filter, for ever. See seccomp(2).

    Returns 0, or with `listener` the descriptor at which its notifications are answered. Needs no
    libseccomp. Raises OSError: EACCES without CAP_SYS_ADMIN and no_new_privs, EINVAL for a program
    that is none, EBUSY when there is a listener already.
    """
    prog = _FProg(len(program) // _SOCK_FILTER.size, program)
    number = SYS_SECCOMP.get(os.uname().machine)
    if number is None:
        if listener:
            raise OSError(errno.ENOSYS, "seccomp: no listeners on this architecture")
        prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, ctypes.addressof(prog))
        return 0
    if listener:
        # It has one thread only, and the kernel takes one of the two.
        flags = flags & ~SECCOMP_FILTER_FLAG_TSYNC | SECCOMP_FILTER_FLAG_NEW_LISTENER
    return syscall("seccomp", number, SECCOMP_SET_MODE_FILTER, flags, ctypes.byref(prog))


def _check_notify(profile: Mapping[str, Any], *, listener: bool) -> None:
    """Refuse what nobody could answer: whoever waits for an answer has to say first that it waits."""
    rules = [r for r in profile.get("syscalls") or () if r.get("action") == _NOTIFY]
    default = profile["defaultAction"] == _NOTIFY
    if (rules or default) and not listener:
        raise SeccompError(errno.ENOTSUP, "seccomp: SCMP_ACT_NOTIFY is not supported")
    if default:
        raise SeccompError(errno.EINVAL, "SCMP_ACT_NOTIFY cannot be used as default action")
    if any("write" in rule.get("names", ()) for rule in rules):
        raise SeccompError(errno.EINVAL, "SCMP_ACT_NOTIFY cannot be used for the write syscall")


def _action(name: str, errno_ret: int | None) -> int:
    if name not in ACTIONS:
        raise SeccompError(errno.EINVAL, f"seccomp: unknown action {name!r}")
    if name in _WITH_ERRNO:
        number = errno.EPERM if errno_ret is None else errno_ret
        return ACTIONS[name] | number & 0xFFFF
    if errno_ret is not None:
        raise SeccompError(errno.EINVAL, f"seccomp: an errno makes no sense with {name}")
    return ACTIONS[name]


def _add(library: Library, context: int, rule: Mapping[str, Any], default: int) -> None:
    action = _action(rule["action"], rule.get("errnoRet"))
    if action == default:
        return  # libseccomp refuses a rule that says what happens anyway
    conditions = [_condition(arg) for arg in rule.get("args") or ()]
    indexes = [condition.arg for condition in conditions]
    # As in runc: conditions on one argument twice are alternatives, otherwise all must hold.
    alternatives: Sequence[Sequence[_ArgCmp]] = [conditions]
    if len(set(indexes)) < len(indexes):
        alternatives = [[condition] for condition in conditions]
    for name in rule.get("names", ()):
        number = library.call.seccomp_syscall_resolve_name(name.encode())
        if number == _NR_SCMP_ERROR:
            continue
        for group in alternatives:
            array = (_ArgCmp * len(group))(*group)
            _check(
                library.call.seccomp_rule_add_array(context, action, number, len(group), array),
                f"seccomp: rule for {name}",
            )


def _condition(arg: Mapping[str, Any]) -> _ArgCmp:
    operator = OPERATORS.get(arg.get("op", ""))
    if operator is None:
        raise SeccompError(errno.EINVAL, f"seccomp: unknown operator {arg.get('op')!r}")
    return _ArgCmp(arg.get("index", 0), operator, arg.get("value", 0), arg.get("valueTwo", 0))


def _export(library: Library, context: int) -> bytes:
    fd = os.memfd_create("seccomp", os.MFD_CLOEXEC)
    try:
        _check(library.call.seccomp_export_bpf(context, fd), "seccomp: export")
        return os.pread(fd, os.fstat(fd).st_size, 0)
    finally:
        os.close(fd)


def _check(result: int, what: str, *, tolerated: int = 0) -> None:
    if result not in (0, tolerated):
        raise SeccompError(-result, f"{what}: {os.strerror(-result)}")


def _refuse_newer(library: Library, architectures: list[str], named: Iterable[str]) -> bytes:
    """A head for the program: ENOSYS for calls with a higher number than any in the profile.

    One block an architecture: "is it this one? is the number above its highest? refuse", else on
    to the program, which loads what it needs again.
    """
    native: int = library.call.seccomp_arch_native()
    tokens = {library.arch(name) for name in architectures} | {native}
    x86_64, x32 = (library.call.seccomp_arch_resolve_name(n) for n in (b"x86_64", b"x32"))
    encoded = [name.encode() for name in set(named)]
    highest = {
        token: max(
            (library.call.seccomp_syscall_resolve_name_arch(token, name) for name in encoded),
            default=_NR_SCMP_ERROR,
        )
        for token in tokens
    }
    refuse = (_BPF_RET, 0, 0, ACTIONS["SCMP_ACT_ERRNO"] | errno.ENOSYS)
    head = [(_BPF_LD_W_ABS, 0, 0, _OFFSET_ARCH)]
    blocks = []
    for token, last in highest.items():
        if last < 0 or token == x32:  # the kernel reports x32 as x86_64
            continue
        # (instruction, jump if true, jump if false): "on" and "refuse" are the block's last two.
        body = [(_BPF_LD_W_ABS, 0, 0, _OFFSET_NR)]
        if token == x86_64:
            # Numbers of x32 have a bit of their own; an x32 that was not asked for is left to the
            # program, which kills.
            x32_last = highest.get(x32, _NR_SCMP_ERROR)
            if x32_last > 0:
                body += [
                    (_BPF_JSET, 1, 0, _X32_SYSCALL_BIT),
                    (_BPF_JGT, 1, 2, last),
                    (_BPF_JGT, 0, 1, x32_last),
                ]
            else:
                body += [(_BPF_JSET, 2, 0, _X32_SYSCALL_BIT), (_BPF_JGT, 0, 1, last)]
        else:
            body += [(_BPF_JGT, 0, 1, last)]
        blocks.append([(_BPF_JEQ, 0, len(body) + 2, token), *body, refuse])
    total = sum(len(block) + 1 for block in blocks)
    position = 0
    for block in blocks:
        position += len(block) + 1
        head += [*block, (_BPF_JA, 0, 0, total - position)]
    return b"".join(_SOCK_FILTER.pack(*instruction) for instruction in head) if blocks else b""
