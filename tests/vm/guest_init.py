"""The guest's process 1: mounts what is needed, runs pytest, writes the results, powers off.

Results go to the second serial port, a JSON object a line: {"session": …} when a session of pytest
ends, {"nodeid", "outcome", "duration", "detail"} for each test (see guest_report.py), {"end": true}
at the very end. The console has everything else.
"""

import ctypes
import os
import shlex
import subprocess
import sys
import time

PATH = "/usr/local/bin:/usr/bin:/usr/sbin:/bin:/sbin"
RESULTS = "/dev/ttyS1"


def main() -> None:
    root = sys.argv[1]
    try:
        prepare(root)
        run_sessions(root)
    finally:
        print(f"guest: powering off ({time.monotonic():.0f} s)", flush=True)
        os.sync()
        libc = ctypes.CDLL(None)
        libc.reboot(0x4321FEDC)  # LINUX_REBOOT_CMD_POWER_OFF


def prepare(root: str) -> None:
    os.environ.update(PATH=PATH, HOME="/root", LANG="C.UTF-8", PYTHONDONTWRITEBYTECODE="1")
    for kind, target, options in (
        ("sysfs", "/sys", ""),
        ("cgroup2", "/sys/fs/cgroup", "nsdelegate"),
        ("tmpfs", "/run", "mode=755"),
        ("tmpfs", "/tmp", "mode=1777"),
    ):
        mount("-t", kind, *(["-o", options] if options else []), kind, target)
    for kind, target in (("devpts", "/dev/pts"), ("tmpfs", "/dev/shm"), ("mqueue", "/dev/mqueue")):
        os.makedirs(target, exist_ok=True)
        mount("-t", kind, kind, target)
    for link, target in (("fd", "fd"), ("stdin", "fd/0"), ("stdout", "fd/1"), ("stderr", "fd/2")):
        if not os.path.lexists(f"/dev/{link}"):
            os.symlink(f"/proc/self/{target}", f"/dev/{link}")
    for name in ("src", "tests", "docs"):
        mount("--bind", f"/checkout/{name}", f"{root}/{name}")
    subprocess.run(["ifconfig", "lo", "127.0.0.1", "up"], check=True)
    subprocess.run(["hostname", "guest"], check=True)


def run_sessions(root: str) -> None:
    """Run what selection.txt lists, or what the kernel's command line asks for (guest.run)."""
    with open("/checkout/tests/vm/selection.txt") as file:
        sessions = [shlex.split(line) for line in file if line.strip() and not line.startswith("#")]
    only = os.environ.get("PIER_ONLY")  # the kernel hands unknown words of its command line on
    with open(RESULTS, "wb", buffering=0) as results:
        for session in sessions:
            if only and only != session[0]:
                continue
            print(f"guest: session {session[0]} ({time.monotonic():.0f} s)", flush=True)
            extra = os.environ.get("PIER_ARGS", "").split(",") if "PIER_ARGS" in os.environ else []
            done = subprocess.run(
                [
                    f"{root}/.venv/bin/python", "-m", "pytest", "-q", "--timeout", "240",
                    "-p", "no:cacheprovider", "-p", "guest_report", "-c", "/checkout/pyproject.toml",
                    "--rootdir", root, *(extra or session[1:]),
                ],
                cwd=root,
                env={
                    **os.environ,
                    "PYTHONPATH": f"{root}/tests/vm:{root}/tests",
                    # Without nf_tables, which has a dozen modules.
                    "PIER_TEST_PIERD_FLAGS": "--iptables=false",
                },
                check=False,
            )  # fmt: skip
            results.write(
                b'{"session": "%s", "code": %d}\n' % (session[0].encode(), done.returncode)
            )
        results.write(b'{"end": true}\n')


def mount(*words: str) -> None:
    subprocess.run(["/bin/busybox", "mount", *words], check=True)


main()
