"""kernel/process.py: clone3, descriptors, titles, keyrings, statuses."""

import fcntl
import os
import signal

import pytest
from inside import apart

from pier.kernel import namespaces as ns
from pier.kernel import process


def test_clone3_and_pidfd():
    pid, pidfd = process.clone3(0)
    if pid == 0:
        os._exit(7)
    try:
        assert not os.get_inheritable(pidfd)
        done = os.waitid(os.P_PIDFD, pidfd, os.WEXITED)
        assert done is not None
        assert (done.si_pid, done.si_status) == (pid, 7)
    finally:
        os.close(pidfd)


def test_clone3_into_namespaces():
    pid, pidfd = process.clone3(ns.CLONE_NEWPID | ns.CLONE_NEWUTS)
    if pid == 0:
        os._exit(0 if os.getpid() == 1 else 1)
    os.close(pidfd)
    assert process.status_code(os.waitpid(pid, 0)[1]) == 0


def test_clone3_refuses_nonsense():
    with pytest.raises(OSError, match=r"clone3\(.*: Invalid argument"):
        process.clone3(0x1)


def test_close_range():
    def work() -> None:
        low, high = (fcntl.fcntl(2, fcntl.F_DUPFD, number) for number in (200, 300))
        os.set_inheritable(high, True)
        process.close_range(250, cloexec=True)
        assert os.get_inheritable(low)
        assert not os.get_inheritable(high)
        process.close_range(300, 300)
        with pytest.raises(OSError, match="Bad file"):
            os.fstat(high)
        os.fstat(low)

    apart(work)


def test_names_and_titles():
    def work() -> None:
        process.set_name("a name that is too long")
        with open("/proc/self/comm") as file:
            assert file.read() == "a name that is \n"
        process.set_title("title")
        with open("/proc/self/cmdline", "rb") as cmdline:
            assert cmdline.read().rstrip(b"\0") == b"title"
        process.set_title("x" * 100_000)
        with open("/proc/self/cmdline", "rb") as cmdline:
            assert set(cmdline.read().rstrip(b"\0")) == {ord("x")}

    apart(work)


def test_prctl():
    def work() -> None:
        assert process.prctl(process.PR_SET_DUMPABLE, 0) == 0
        assert process.prctl(3) == 0  # PR_GET_DUMPABLE
        with pytest.raises(OSError, match="prctl"):
            process.prctl(99999)

    apart(work)


@pytest.mark.skipif(not os.path.exists("/proc/keys"), reason="a kernel without keyrings")
def test_join_session_keyring():
    def work() -> None:
        process.join_session_keyring("_ses.test")
        with open("/proc/keys") as file:
            assert "_ses.test" in file.read()

    apart(work)


@pytest.mark.parametrize(
    ("status", "code"),
    [(0, 0), (7 << 8, 7), (255 << 8, 255), (signal.SIGKILL, 137), (0x80 | 11, 139)],
)
def test_status_code(status, code):
    assert process.status_code(status) == code
