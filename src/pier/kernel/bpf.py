"""bpf(2): load a program, attach it to a cgroup, see what is attached; and encode instructions.

Only what the device controller of cgroup v2 needs. Not for writing programs: that is
`pier.kernel.cgroups.devices`. Numbers and layouts are those of linux/bpf.h; the encoding is
Documentation/bpf/standardization/instruction-set.rst of the kernel.
"""

import ctypes
import errno
import os
import struct

from pier.kernel.syscalls import syscall

BPF_PROG_LOAD = 5
BPF_PROG_ATTACH = 8
BPF_PROG_DETACH = 9
BPF_PROG_GET_FD_BY_ID = 13
BPF_PROG_QUERY = 16

BPF_PROG_TYPE_CGROUP_DEVICE = 15
BPF_CGROUP_DEVICE = 6

BPF_F_ALLOW_MULTI = 2
BPF_F_REPLACE = 4

# struct bpf_cgroup_dev_ctx: access_type is (BPF_DEVCG_ACC_* << 16) | BPF_DEVCG_DEV_*.
DEV_CTX_ACCESS_TYPE = 0
DEV_CTX_MAJOR = 4
DEV_CTX_MINOR = 8
BPF_DEVCG_DEV_BLOCK = 1
BPF_DEVCG_DEV_CHAR = 2
BPF_DEVCG_ACC_MKNOD = 1
BPF_DEVCG_ACC_READ = 2
BPF_DEVCG_ACC_WRITE = 4

# Opcodes. The 32-bit forms compare and mask as unsigned 32-bit numbers, which is what the context
# holds: a 64-bit compare would sign-extend its immediate.
LDX_W = 0x61  # dst = *(u32 *)(src + off)
AND32_K = 0x54  # dst &= imm
RSH32_K = 0x74  # dst >>= imm
MOV32_K = 0xB4  # dst = imm
JEQ32_K = 0x16  # if dst == imm goto off
JNE32_K = 0x56  # if dst != imm goto off
JSET32_K = 0x46  # if dst & imm goto off
EXIT = 0x95  # return r0

_INSTRUCTION = struct.Struct("=BBhi")
_LICENSE = b"Apache-2.0"
_LOG_SIZE = 1 << 16
_MAX_ATTACHED = 64  # BPF_CGROUP_MAX_PROGS

# bpf(2) is older than the common numbering: its number is the architecture's own.
_SYS_bpf = 321 if os.uname().machine == "x86_64" else 280


def instruction(code: int, dst: int = 0, src: int = 0, off: int = 0, imm: int = 0) -> bytes:
    """Encode one instruction, 8 bytes; `imm` may be given as unsigned.

    Raises ValueError when `off` is too far for its 16 bits.
    """
    if not -0x8000 <= off <= 0x7FFF:
        raise ValueError(f"bpf jump of {off} instructions is too far")
    signed = (imm + 0x80000000) % 0x100000000 - 0x80000000
    return _INSTRUCTION.pack(code, src << 4 | dst, off, signed)


def _bpf(name: str, command: int, attr: "ctypes.Array[ctypes.c_char]") -> int:
    return syscall(f"bpf {name}", _SYS_bpf, command, attr, ctypes.sizeof(attr))


def _attr(layout: str, *values: object) -> "ctypes.Array[ctypes.c_char]":
    packed = struct.pack(layout, *values)
    return ctypes.create_string_buffer(packed, len(packed))


def prog_load(program: bytes, kind: int, name: str) -> int:
    """Load `program` (encoded instructions) and return its descriptor, the caller's to close.

    `kind` is BPF_PROG_TYPE_*, `name` at most 15 of [A-Za-z0-9_.]. Raises OSError: EPERM without
    CAP_BPF, EINVAL, EACCES or E2BIG when the verifier refuses, with the verifier's last words.
    """
    instructions = ctypes.create_string_buffer(program, len(program))
    license_ = ctypes.create_string_buffer(_LICENSE)

    def load(log: "ctypes.Array[ctypes.c_char] | None") -> int:
        attr = _attr(
            "=IIQQIIQII16s",
            kind,
            len(program) // 8,
            ctypes.addressof(instructions),
            ctypes.addressof(license_),
            0 if log is None else 1,
            0 if log is None else _LOG_SIZE,
            0 if log is None else ctypes.addressof(log),
            0,
            0,
            name.encode(),
        )
        return _bpf("BPF_PROG_LOAD", BPF_PROG_LOAD, attr)

    try:
        return load(None)
    except OSError as exc:
        if exc.errno not in {errno.EINVAL, errno.EACCES, errno.E2BIG}:
            raise
        refusal = exc
    # Asking for the log costs memory and time, so only a refused program is loaded again for it.
    log = ctypes.create_string_buffer(_LOG_SIZE)
    try:
        return load(log)
    except OSError as exc:
        words = log.value.decode(errors="replace").strip().splitlines()[-3:]
        raise OSError(refusal.errno, f"{refusal.strerror} ({'; '.join(words)})") from exc


def prog_attach(
    cgroup_fd: int, program_fd: int, kind: int, *, flags: int = 0, replace_fd: int = 0
) -> None:
    """Attach a program to the cgroup v2 directory `cgroup_fd` at BPF_CGROUP_* `kind`.

    The attachment holds a reference: the program lives on when its descriptor is closed. With
    BPF_F_REPLACE it takes the place of `replace_fd` in one step (Linux 5.6).
    """
    attr = _attr("=IIIII", cgroup_fd, program_fd, kind, flags, replace_fd)
    _bpf("BPF_PROG_ATTACH", BPF_PROG_ATTACH, attr)


def prog_detach(cgroup_fd: int, program_fd: int, kind: int) -> None:
    """Detach one program from a cgroup."""
    _bpf("BPF_PROG_DETACH", BPF_PROG_DETACH, _attr("=IIII", cgroup_fd, program_fd, kind, 0))


def prog_query(cgroup_fd: int, kind: int) -> list[int]:
    """Return the ids of the programs attached to this cgroup itself (not to its ancestors)."""
    ids = (ctypes.c_uint32 * _MAX_ATTACHED)()
    attr = _attr("=IIIIQII", cgroup_fd, kind, 0, 0, ctypes.addressof(ids), _MAX_ATTACHED, 0)
    _bpf("BPF_PROG_QUERY", BPF_PROG_QUERY, attr)
    count = struct.unpack_from("=I", attr, 24)[0]
    return list(ids[:count])


def prog_fd(program_id: int) -> int:
    """Open a loaded program by its id; the descriptor is the caller's to close."""
    attr = _attr("=III", program_id, 0, 0)
    return _bpf("BPF_PROG_GET_FD_BY_ID", BPF_PROG_GET_FD_BY_ID, attr)
