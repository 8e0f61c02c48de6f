"""One run of the guest: QEMU in software emulation, no network; its results as the host reads them."""

import json
import os
import shutil
import subprocess
import tempfile
from dataclasses import dataclass, field

import guest_root

QEMU = "qemu-system-x86_64"
# An old one: what newer ones have more, glibc's string functions for wide registers above all, is
# slower in emulation than doing without.
CPU = "Nehalem"
# Many times what it takes on two idle cores, for some days they have a third of their speed: it ends
# a guest that hangs.
TIMEOUT_S = 1500


@dataclass
class Results:
    """What the guest said. `sessions`: name → exit code of pytest."""

    tests: list[dict[str, str]] = field(default_factory=list)
    sessions: dict[str, int] = field(default_factory=dict)
    ended: bool = False
    console: str = ""

    def counts(self) -> dict[str, int]:
        counts: dict[str, int] = {}
        for test in self.tests:
            counts[test["outcome"]] = counts.get(test["outcome"], 0) + 1
        return counts


def run(*, append: str = "") -> Results:
    """Boot the guest and return what it said. Raises guest_root.Unavailable.

    `append` goes to the kernel's command line: PIER_ONLY=SESSION, PIER_ARGS=WORD,WORD…
    """
    if not shutil.which(QEMU):
        raise guest_root.Unavailable(f"{QEMU} is not installed")
    boot = guest_root.boot_files()
    with tempfile.TemporaryDirectory(prefix="pier-vm-", dir="/var/tmp") as directory:
        checkout = os.path.join(directory, "checkout.ext4")
        guest_root.make_checkout(checkout)
        results_path, console_path = (os.path.join(directory, n) for n in ("results", "console"))
        command = [
            QEMU, "-machine", "q35", "-cpu", CPU, "-smp", "2", "-accel", "tcg,thread=multi",
            "-m", "1536", "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot",
            "-kernel", f"{boot}/vmlinuz", "-initrd", f"{boot}/initramfs",
            "-append", f"console=ttyS0 quiet panic=-1 mitigations=off swapaccount=1 {append}",
            "-drive", f"file={boot}/base.ext4,format=raw,if=virtio,snapshot=on",
            "-drive", f"file={checkout},format=raw,if=virtio,readonly=on",
            "-serial", f"file:{console_path}", "-serial", f"file:{results_path}",
        ]  # fmt: skip
        try:
            done = subprocess.run(
                command, stdin=subprocess.DEVNULL, capture_output=True, text=True,
                timeout=TIMEOUT_S, check=False, env={**os.environ, "TMPDIR": directory},
            )  # fmt: skip
            said = done.stderr
        except subprocess.TimeoutExpired:
            said = f"{QEMU} did not end within {TIMEOUT_S} s"
        return _read(results_path, console_path, said)


def _read(results_path: str, console_path: str, said: str) -> Results:
    results = Results()
    if os.path.exists(console_path):
        with open(console_path, errors="replace") as file:
            results.console = file.read()
    results.console += said
    if os.path.exists(results_path):
        with open(results_path, errors="replace") as file:
            for line in file:
                _take(results, line.strip())
    return results


def _take(results: Results, line: str) -> None:
    if not line:
        return
    record = json.loads(line)
    if "session" in record:
        results.sessions[record["session"]] = record["code"]
    elif "end" in record:
        results.ended = True
    else:
        results.tests.append(record)
