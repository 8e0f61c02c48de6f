"""kernel/namespaces.py and kernel/syscalls.py."""

import errno
import os
import socket

import pytest
from inside import apart

from pier.kernel import namespaces as ns
from pier.kernel import syscalls


def test_unshare_and_names():
    before = {kind: os.readlink(f"/proc/self/ns/{name}") for kind, name in ns.PROC_NAMES.items()}

    def work() -> None:
        for kind in ("mount", "network", "ipc", "uts", "cgroup"):
            assert os.readlink(f"/proc/self/ns/{ns.PROC_NAMES[kind]}") != before[kind]
        assert os.readlink("/proc/self/ns/user") == before["user"]

    apart(work, ns.CLONE_NEWNS | ns.CLONE_NEWNET | ns.CLONE_NEWIPC | ns.CLONE_NEWUTS
          | ns.CLONE_NEWCGROUP)  # fmt: skip


def test_setns_by_file_and_by_pidfd():
    fd = os.open("/proc/self/ns/uts", os.O_RDONLY)
    pidfd = os.pidfd_open(os.getpid())
    before = os.readlink("/proc/self/ns/uts")

    def work() -> None:
        ns.setns(fd, ns.CLONE_NEWUTS)
        assert os.readlink("/proc/self/ns/uts") == before
        ns.unshare(ns.CLONE_NEWUTS)
        ns.setns(pidfd, ns.CLONE_NEWUTS)
        assert os.readlink("/proc/self/ns/uts") == before
        with pytest.raises(OSError, match="setns"):
            ns.setns(fd, ns.CLONE_NEWNET)

    try:
        apart(work, ns.CLONE_NEWUTS)
    finally:
        os.close(fd)
        os.close(pidfd)


def test_domain_name():
    def work() -> None:
        ns.setdomainname("a.domain")
        assert os.uname().nodename
        with open("/proc/sys/kernel/domainname") as file:
            assert file.read() == "a.domain\n"

    apart(work, ns.CLONE_NEWUTS)


def test_loopback():
    def work() -> None:
        with socket.socket() as sock, pytest.raises(OSError, match="unreachable"):
            sock.connect(("127.0.0.1", 1))
        ns.bring_loopback_up()
        with socket.socket() as server, socket.socket() as client:
            server.bind(("127.0.0.1", 0))
            server.listen()
            client.connect(server.getsockname())

    apart(work, ns.CLONE_NEWNET)


def test_a_failed_call_names_itself_and_its_arguments():
    with pytest.raises(OSError, match=r"^\[Errno 22\] unshare\(-1\): Invalid argument$"):
        ns.unshare(-1)
    with pytest.raises(OSError, match=r"nonesuch\(x, 7\): Function not implemented") as info:
        syscalls.syscall("nonesuch", 9999, b"x", 7)
    assert info.value.errno == errno.ENOSYS
    with pytest.raises(AttributeError):
        syscalls.function("no_such_function")
