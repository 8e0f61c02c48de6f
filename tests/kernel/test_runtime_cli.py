"""`pier-runtime`: a bundle of the OCI runtime specification, without an engine."""

import io
import json
import os
import signal
import subprocess
import sys
import tarfile

import pytest
from bundles import PATIENCE_S

import busybox_image
from pier.kernel.cgroups import Cgroup, detect

COMMAND = [sys.executable, "-c", "from pier.runtime.cli import main; main()"]


def runtime(*args: str, **options) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*COMMAND, *args], capture_output=True, text=True, timeout=PATIENCE_S,
                          check=False, **options)  # fmt: skip


@pytest.fixture(scope="module")
def rootfs(tmp_path_factory):
    directory = tmp_path_factory.mktemp("rootfs")
    with tarfile.open(fileobj=io.BytesIO(busybox_image.root_tar())) as tar:
        tar.extractall(directory, filter="fully_trusted")
    return directory


@pytest.fixture
def bundle(rootfs, tmp_path):
    """A bundle as `spec` writes it, whose rootfs is the shared one."""
    assert runtime("spec", "--bundle", str(tmp_path)).returncode == 0
    change(tmp_path, lambda spec: spec["root"].update(path=str(rootfs)))
    yield tmp_path
    parent = Cgroup(detect(), "/pier-runtime")
    if not parent.pids():
        parent.remove()


def change(bundle, how) -> None:
    spec = json.loads((bundle / "config.json").read_text())
    how(spec)
    (bundle / "config.json").write_text(json.dumps(spec))


def script(bundle, text: str) -> None:
    path = "PATH=/bin"
    change(bundle, lambda spec: spec["process"].update(args=["sh", "-c", text], env=[path]))


def test_run(bundle):
    script(bundle, "cat; hostname; echo $$; touch /x; exit 7")
    done = runtime("run", "-b", str(bundle), "one", input="typed\n")
    assert done.returncode == 7
    assert done.stdout == "typed\npier\n1\n"
    assert "Read-only file system" in done.stderr
    assert Cgroup(detect(), "/pier-runtime/one").pids() == []


def test_signals_are_passed_on(bundle):
    script(bundle, "trap 'exit 5' TERM; echo up; while :; do sleep 0.05; done")
    process = subprocess.Popen([*COMMAND, "run", "two"], cwd=bundle, stdout=subprocess.PIPE)
    assert process.stdout.readline() == b"up\n"
    process.send_signal(signal.SIGTERM)
    assert process.wait(PATIENCE_S) == 5
    process.stdout.close()


def test_a_closed_stdin_gives_the_container_nothing_of_ours(bundle):
    script(bundle, "readlink /proc/self/fd/0; ls /proc/self/fd")
    done = subprocess.run(
        ["sh", "-c", 'exec "$@" <&-', "sh", *COMMAND, "run", "three"],
        cwd=bundle, capture_output=True, text=True, timeout=PATIENCE_S, check=True,
    )  # fmt: skip
    assert done.stdout.split() == ["/dev/null", "0", "1", "2", "3"]


def test_failures(bundle):
    change(bundle, lambda spec: spec["process"].update(args=["nosuch"]))
    done = runtime("run", "-b", str(bundle), "four")
    assert (done.returncode, done.stdout) == (1, "")
    assert "executable file not found in $PATH" in done.stderr
    for change_to, words in (
        ({"hooks": {}}, "hooks are not offered"),
        ({"linux": {"namespaces": [{"type": "pid"}]}}, "mount namespace of its own"),
    ):
        change(bundle, lambda spec, to=change_to: spec.update(to))
        done = runtime("run", "-b", str(bundle), "five")
        assert done.returncode == 1
        assert words in done.stderr
        change(bundle, lambda spec: spec.pop("hooks", None))
    for args, words in (
        (("kill", "x"), "not offered by this version"),
        (("run", "--detach", "x"), "unknown option '--detach'"),
        (("spec", "-b", str(bundle)), "File exists"),
        (("run", "-b", "/not/there", "x"), "No such file"),
    ):
        done = runtime(*args)
        assert done.returncode == 1
        assert words in done.stderr, done


def test_version_and_usage():
    assert "spec: 1.2.0" in runtime("--version").stdout
    assert "run [-b" in runtime().stdout
    assert runtime("spec", "too", "many").returncode == 1


def test_a_terminal_is_refused(bundle):
    change(bundle, lambda spec: spec["process"].update(terminal=True))
    assert "a terminal is not offered" in runtime("run", "-b", str(bundle), "six").stderr
    assert os.path.isdir(bundle)
