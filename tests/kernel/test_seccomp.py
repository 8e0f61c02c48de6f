"""Filters loaded into real processes."""

import ctypes
import errno
import os
import signal
import subprocess
import sys

from pier.engine.defaults import CAPABILITIES
from pier.engine.seccomp_profile import SeccompFilters
from pier.kernel import seccomp
from pier.kernel.process import PR_SET_NO_NEW_PRIVS, prctl

libc = ctypes.CDLL(None, use_errno=True)


def in_child(action) -> int:
    """Run `action` in a forked child; its exit status, negative for a signal."""
    pid = os.fork()
    if pid == 0:
        try:
            os._exit(action() or 0)
        except BaseException:  # noqa: BLE001  # the child must not return into pytest
            os._exit(99)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def program(*rules, default="SCMP_ACT_ALLOW"):
    return seccomp.compile({"defaultAction": default, "syscalls": list(rules)})


def test_errno_of_a_rule():
    filter_ = program({"names": ["getpgid"], "action": "SCMP_ACT_ERRNO", "errnoRet": 77})

    def child():
        seccomp.load(filter_)
        try:
            os.getpgid(0)
        except OSError as exc:
            return exc.errno
        return 0

    assert in_child(child) == 77


def test_kill_process():
    filter_ = program({"names": ["getpgid"], "action": "SCMP_ACT_KILL_PROCESS"})

    def child():
        seccomp.load(filter_, 0)
        os.getpgid(0)

    assert in_child(child) == -signal.SIGSYS


def test_needs_a_right_or_no_new_privs():
    filter_ = program()

    def child():
        prctl(PR_SET_NO_NEW_PRIVS, 1)
        os.setresuid(65534, 65534, 65534)
        seccomp.load(filter_)

    def refused():
        os.setresuid(65534, 65534, 65534)
        try:
            seccomp.load(filter_)
        except PermissionError as exc:
            return exc.errno
        return 0

    assert in_child(child) == 0
    assert in_child(refused) == errno.EACCES


def test_nonsense_is_refused():
    def child():
        try:
            seccomp.load(b"\xff" * 8)
        except OSError as exc:
            return exc.errno
        return 0

    assert in_child(child) == errno.EINVAL


def test_default_profile(tmp_path):
    path = SeccompFilters(str(tmp_path)).path_for("", CAPABILITIES)
    assert path is not None
    with open(path, "rb") as file:
        filter_ = file.read()

    def child():
        seccomp.load(filter_)
        if libc.unshare(0x20000) != -1 or ctypes.get_errno() != errno.EPERM:  # CLONE_NEWNS
            return 1
        if libc.syscall(9999) != -1 or ctypes.get_errno() != errno.ENOSYS:
            return 2
        done = subprocess.run([sys.executable, "-c", "print(1)"], capture_output=True, check=False)
        return 0 if done.stdout == b"1\n" else 3

    assert in_child(child) == 0


def test_the_zygote_does_not_open_the_library():
    script = (
        "import pier.kernel.seccomp, sys\nsys.exit('libseccomp' in open('/proc/self/maps').read())"
    )
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0
