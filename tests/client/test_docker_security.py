"""The walls around a container: those of Docker, no fewer and no more."""

import os

import pytest

from engine_process import Client, wait_until

DEFAULT_CAPABILITIES = "00000000a80425fb"
NAMESPACES = ("ipc", "mnt", "net", "pid", "uts")


def status(docker: Client, image: str, field: str, *flags: str) -> str:
    """Return a field of /proc/self/status as the container's first process has it."""
    shown = docker("run", "--rm", *flags, image, "grep", f"^{field}:", "/proc/self/status").stdout
    return shown.split(":", 1)[1].strip()


def hosts_bounding_set() -> int:
    with open("/proc/self/status") as file:
        return int(next(line.split()[1] for line in file if line.startswith("CapBnd")), 16)


@pytest.mark.parametrize("field", ["CapEff", "CapPrm", "CapBnd"])
def test_default_capabilities(docker: Client, image: str, field: str) -> None:
    assert status(docker, image, field) == DEFAULT_CAPABILITIES


@pytest.mark.parametrize(
    ("flags", "field", "expected"),
    [
        (["--cap-add", "NET_ADMIN"], "CapEff", "00000000a80435fb"),
        (["--cap-add", "CAP_NET_ADMIN"], "CapEff", "00000000a80435fb"),
        (["--cap-drop", "CHOWN"], "CapEff", "00000000a80425fa"),
        (["--cap-drop", "ALL"], "CapEff", "0000000000000000"),
        (["--cap-drop", "ALL"], "CapBnd", "0000000000000000"),
        (["--cap-drop", "ALL", "--cap-add", "CHOWN"], "CapEff", "0000000000000001"),
        (["-u", "alice"], "CapEff", "0000000000000000"),
        (["-u", "alice"], "CapBnd", DEFAULT_CAPABILITIES),
        ([], "CapInh", "0000000000000000"),
        ([], "CapAmb", "0000000000000000"),
        ([], "NoNewPrivs", "0"),
        (["--security-opt", "no-new-privileges"], "NoNewPrivs", "1"),
        ([], "Seccomp", "2"),
        (["--security-opt", "seccomp=unconfined"], "Seccomp", "0"),
        (["--privileged"], "Seccomp", "0"),
    ],
)
def test_status(docker: Client, image: str, flags: list[str], field: str, expected: str) -> None:
    assert status(docker, image, field, *flags) == expected


def test_privileged_has_all_the_host_has(docker: Client, image: str) -> None:
    assert int(status(docker, image, "CapEff", "--privileged"), 16) == hosts_bounding_set()


@pytest.mark.parametrize("name", NAMESPACES)
def test_namespace_is_its_own(docker: Client, image: str, name: str) -> None:
    inside = docker("run", "--rm", image, "readlink", f"/proc/self/ns/{name}").stdout.strip()
    assert inside != os.readlink(f"/proc/self/ns/{name}")


def test_cgroup_namespace_is_its_own_on_ask(docker: Client, image: str) -> None:
    flags = ["--cgroupns", "private"]
    inside = docker("run", "--rm", *flags, image, "readlink", "/proc/self/ns/cgroup").stdout
    assert inside.strip() != os.readlink("/proc/self/ns/cgroup")


@pytest.mark.parametrize(
    ("flag", "name"),
    [("--pid", "pid"), ("--ipc", "ipc"), ("--uts", "uts"), ("--cgroupns", "cgroup")],
)
def test_namespace_is_the_hosts_on_ask(docker: Client, image: str, flag: str, name: str) -> None:
    inside = docker("run", "--rm", flag, "host", image, "readlink", f"/proc/self/ns/{name}").stdout
    assert inside.strip() == os.readlink(f"/proc/self/ns/{name}")


@pytest.mark.parametrize(("flag", "name"), [("--pid", "pid"), ("--network", "net")])
def test_namespace_of_another_container(docker: Client, image: str, flag: str, name: str) -> None:
    docker("run", "-d", "--name", "first", image, "sleep", "60")
    link = f"/proc/self/ns/{name}"
    expected = docker("exec", "first", "readlink", link).stdout
    assert (
        docker("run", "--rm", flag, "container:first", image, "readlink", link).stdout == expected
    )


@pytest.mark.parametrize(
    ("flags", "script"),
    [
        ([], "mount -t tmpfs none /tmp"),
        ([], "mknod /dev/sda b 8 0 && head -c 1 /dev/sda"),
        ([], "echo 1 >/proc/sys/kernel/panic"),
        ([], "echo b >/proc/sysrq-trigger"),
        ([], "echo x >/sys/kernel/uevent_helper"),
        ([], "d=/sys/fs/cgroup; test -d $d/memory && d=$d/memory; mkdir $d/x"),
        ([], "hostname other"),
        ([], "unshare -m true"),
        (["--read-only"], "touch /x"),
        (["--read-only"], "mkdir /etc/x"),
        (["-u", "alice"], "touch /etc/x"),
        (["--cap-drop", "CHOWN"], "chown alice /tmp"),
        (["--network", "none"], "ping -c 1 -W 1 192.0.2.1"),
    ],
)
def test_forbidden(docker: Client, image: str, flags: list[str], script: str) -> None:
    done = docker("run", "--rm", *flags, image, "sh", "-c", script, check=False)
    assert done.returncode not in (0, 125, 126, 127), done.stderr


@pytest.mark.parametrize(
    ("flags", "script"),
    [
        (["--privileged"], "mount -t tmpfs none /tmp"),
        (["--privileged"], "hostname other"),
        (["--privileged"], "cat /proc/sys/kernel/panic >/proc/sys/kernel/panic"),
        (["--cap-add", "SYS_ADMIN"], "mount -t tmpfs none /tmp"),
        (["--read-only"], "touch /dev/shm/x"),
        (["--read-only", "--tmpfs", "/t"], "touch /t/x"),
        ([], "chown alice /tmp"),
        ([], "mknod /dev/x c 1 3 && echo x >/dev/x"),
    ],
)
def test_allowed(docker: Client, image: str, flags: list[str], script: str) -> None:
    docker("run", "--rm", *flags, image, "sh", "-c", script)


@pytest.mark.parametrize("path", ["/proc/kcore", "/proc/keys", "/proc/timer_list"])
def test_masked_file_is_empty(docker: Client, image: str, path: str) -> None:
    if not os.path.exists(path):
        pytest.skip(f"this kernel has no {path}")
    assert docker("run", "--rm", image, "sh", "-c", f"wc -c <{path}").stdout.strip() == "0"


@pytest.mark.parametrize("path", ["/proc/acpi", "/proc/scsi", "/sys/firmware"])
def test_masked_directory_is_empty(docker: Client, image: str, path: str) -> None:
    if not os.path.exists(path):
        pytest.skip(f"this kernel has no {path}")
    assert docker("run", "--rm", image, "ls", "-A", path).stdout == ""


def test_masked_paths_come_back_on_ask(docker: Client, image: str) -> None:
    options = ["--security-opt", "systempaths=unconfined"]
    done = docker(
        "run",
        "--rm",
        *options,
        image,
        "sh",
        "-c",
        'test -n "$(head -c 9 /proc/timer_list)" && echo seen',
    )
    assert done.stdout == "seen\n"


def test_devices(docker: Client, image: str) -> None:
    shown = set(docker("run", "--rm", image, "ls", "/dev").stdout.split())
    expected = {"null", "zero", "full", "random", "urandom", "tty", "ptmx", "pts", "shm", "mqueue"}
    assert expected | {"fd", "stdin", "stdout", "stderr", "core"} == shown | {"core"}


def test_no_descriptor_leaks_in(docker: Client, image: str) -> None:
    for flags in ([], ["-i"], ["--init"]):
        script = "ls /proc/$$/fd; true"
        shown = docker("run", "--rm", *flags, image, "sh", "-c", script).stdout.split()
        assert set(shown) <= {"0", "1", "2"}, flags


def test_no_descriptor_leaks_into_exec(docker: Client, image: str) -> None:
    docker("run", "-d", "--name", "it", image, "sleep", "60")
    shown = docker("exec", "it", "sh", "-c", "ls /proc/$$/fd; true").stdout.split()
    assert set(shown) <= {"0", "1", "2"}


def test_environment_is_not_the_hosts(docker: Client, image: str) -> None:
    names = {line.split("=")[0] for line in docker("run", "--rm", image, "env").stdout.splitlines()}
    assert names <= {"PATH", "HOSTNAME", "HOME", "SHLVL", "PWD"}


def test_mounts_of_the_host_are_out_of_sight(docker: Client, image: str) -> None:
    shown = docker("run", "--rm", image, "cat", "/proc/self/mountinfo").stdout
    points = [line.split()[4] for line in shown.splitlines()]
    assert not [p for p in points if not p.startswith(("/proc", "/sys", "/dev", "/etc/"))][1:]


def test_nothing_of_it_in_the_hosts_mount_table(docker: Client, image: str) -> None:
    docker("run", "-d", "--name", "it", image, "sleep", "60")
    identity = docker("inspect", "-f", "{{.Id}}", "it").stdout.strip()
    with open("/proc/self/mountinfo") as file:
        assert identity not in file.read()


def test_process_one_is_killed_with_its_whole_group(docker: Client, image: str) -> None:
    docker("run", "-d", "--name", "it", image, "sh", "-c", "setsid sleep 64 & sleep 65")
    wait_until(lambda: "sleep 64" in docker("top", "it").stdout, "both run")
    pids = [row.split()[1] for row in docker("top", "it").stdout.splitlines()[1:]]
    docker("kill", "it")
    docker("wait", "it")
    wait_until(lambda: not any(os.path.exists(f"/proc/{p}") for p in pids), "all are gone")
