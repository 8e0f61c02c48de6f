"""`pier-runtime` in the foreground, its errors, and the documents that it prints."""

import json
import os
import signal
import subprocess

import pytest
from bundles import PATIENCE_S
from oci_command import COMMAND, Runtime


def test_run(runtime: Runtime):
    runtime.script("cat; hostname; echo $$; touch /x; exit 7")
    done = runtime("run", "one", ok=False, input="typed\n")
    assert done.returncode == 7
    assert done.stdout == "typed\npier\n1\n"
    assert "Read-only file system" in done.stderr
    assert runtime.cgroup("one").pids() == []
    assert runtime("list", "-q").stdout == ""


def test_run_with_a_bundle_elsewhere(runtime: Runtime):
    runtime.script("echo there")
    done = runtime("run", "--bundle", runtime.bundle, "one", cwd="/")
    assert done.stdout == "there\n"


def test_signals_are_passed_on(runtime: Runtime):
    runtime.script("trap 'exit 5' TERM; echo up; while :; do sleep 0.05; done")
    process = subprocess.Popen(
        runtime.command("run", "two"), cwd=runtime.bundle, stdout=subprocess.PIPE
    )
    assert process.stdout.readline() == b"up\n"
    process.send_signal(signal.SIGTERM)
    assert process.wait(PATIENCE_S) == 5
    process.stdout.close()


def test_run_keeps_what_it_is_asked_to_keep(runtime: Runtime):
    runtime.script("exit 3")
    assert runtime("run", "--keep", "kept", ok=False).returncode == 3
    assert runtime.status("kept") == "stopped"
    runtime("delete", "kept")


def test_run_detached(runtime: Runtime):
    runtime.script("exec sleep 60")
    runtime("run", "-d", "--pid-file", f"{runtime.bundle}/pid", "one")
    with open(f"{runtime.bundle}/pid") as file:
        assert int(file.read()) == runtime.state("one")["pid"]
    assert runtime.status("one") == "running"


def test_a_closed_stdin_gives_the_container_nothing_of_ours(runtime: Runtime):
    runtime.script("readlink /proc/self/fd/0; ls /proc/self/fd")
    done = subprocess.run(
        ["sh", "-c", 'exec "$@" <&-', "sh", *runtime.command("run", "three")],
        cwd=runtime.bundle, capture_output=True, text=True, timeout=PATIENCE_S, check=True,
    )  # fmt: skip
    assert done.stdout.split() == ["/dev/null", "0", "1", "2", "3"]


def test_preserved_descriptors(runtime: Runtime):
    runtime.script("cat <&3; cat <&4; ls /proc/self/fd | tr '\\n' ' '")
    fds = [os.memfd_create(name) for name in ("a", "b")]
    try:
        for fd, text in zip(fds, (b"first ", b"second "), strict=True):
            os.write(fd, text)
            os.lseek(fd, 0, os.SEEK_SET)
        places = f"3</proc/self/fd/{fds[0]} 4</proc/self/fd/{fds[1]}"
        shell = ["sh", "-c", f'exec "$@" {places}', "sh"]
        done = subprocess.run(
            [*shell, *runtime.command("run", "--preserve-fds", "2", "one")],
            cwd=runtime.bundle, capture_output=True, text=True, timeout=PATIENCE_S,
            pass_fds=fds, check=True,
        )  # fmt: skip
        assert done.stdout == "first second 0 1 2 3 4 5 "
        # A socket-activated runtime passes its sockets on, sd_listen_fds(3).
        runtime.script("echo $LISTEN_FDS $LISTEN_PID; ls /proc/self/fd | wc -l")
        done = subprocess.run(
            [*shell, *runtime.command("run", "two")],
            cwd=runtime.bundle, capture_output=True, text=True, timeout=PATIENCE_S,
            pass_fds=fds, check=True, env={**os.environ, "LISTEN_FDS": "1"},
        )  # fmt: skip
        assert done.stdout.split() == ["1", "1", "5"]
    finally:
        for fd in fds:
            os.close(fd)
    done = runtime("run", "--preserve-fds", "200", "three", ok=False)
    assert "unable to stat preserved-fd" in done.stderr


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (("run",), '"run" requires exactly 1 argument'),
        (("run", "--detatch", "x"), "flag provided but not defined: --detatch"),
        (("run", "-b", "/not/there", "x"), "config.json not found"),
        (("run", "--console-socket", "/x", "x"), "cannot use console socket"),
        (("run", "a/b"), "invalid container ID format"),
        (("run", ".."), "invalid container ID format"),
        (("run", ""), "container id cannot be empty"),
        (("run", "--preserve-fds", "x", "x"), "must be a number"),
        (("--systemd-cgroup", "create", "x"), "--systemd-cgroup is not supported"),
        (("--log-format", "xml", "list"), "unknown log-format"),
        (("start", "x"), "container does not exist"),
        (("state", "x"), "container does not exist"),
        (("kill", "x"), "container does not exist"),
        (("delete", "x"), "container does not exist"),
        (("pause", "x"), "container does not exist"),
        (("update", "x"), "container does not exist"),
        (("ps", "x"), "container does not exist"),
        (("events", "x"), "container does not exist"),
        (("checkpoint", "x"), "checkpoint and restore are not supported"),
        (("restore", "x"), "checkpoint and restore are not supported"),
        (("list", "--format", "xml"), "invalid format option: xml"),
        (("spec", "-b", "."), "File config.json exists. Remove it first"),
        (("spec", "too", "many"), "takes no arguments"),
        (("nothing",), "no such command"),
    ],
)
def test_errors(runtime: Runtime, args, words):
    done = runtime(*args, ok=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert words in json.loads(done.stderr.partition(" msg=")[2]), done


def test_a_forced_delete_of_nothing_is_fine(runtime: Runtime):
    assert runtime("delete", "--force", "nothing").stderr == ""


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"process": {"args": ["nosuch"], "cwd": "/"}}, "executable file not found in $PATH"),
        ({"process": {"args": ["/etc"], "cwd": "/"}}, "is a directory"),
        ({"process": {"args": ["/bin/sh"], "cwd": "/etc/passwd"}}, "chdir to cwd"),
        ({"process": None}, "process property must not be empty"),
        ({"root": None}, "root property must not be empty"),
        ({"ociVersion": "2.0.0"}, "ociVersion"),
        ({"root": {"path": "nowhere"}}, "o such file or directory"),
        ({"linux": {"namespaces": [{"type": "mount"}], "cgroupsPath": "a.slice:b:c"}}, "systemd"),
    ],
)
def test_what_cannot_be_created(runtime: Runtime, change, words):
    runtime.change(lambda spec: spec.update(change))
    for command in ("create", "run"):
        done = runtime(command, "one", ok=False)
        assert done.returncode == 1
        assert words in done.stderr, done
    assert runtime("list", "-q").stdout == ""


def test_the_log_has_the_error(runtime: Runtime):
    log = f"{runtime.bundle}/log"
    done = runtime("--log", log, "--log-format", "json", "state", "x", ok=False)
    assert done.stderr == "container does not exist\n"
    runtime("--log", log, "--log-format=json", "state", "y", ok=False)
    with open(log) as file:
        lines = [json.loads(line) for line in file]
    assert [(line["level"], line["msg"]) for line in lines] == [
        ("error", "container does not exist")
    ] * 2
    runtime("--log", f"{log}.text", "state", "x", ok=False)
    with open(f"{log}.text") as file:
        assert 'level=error msg="container does not exist"' in file.read()


def test_debug(runtime: Runtime):
    runtime.script("true")
    done = runtime("--debug", "run", "one")
    assert done.stderr.count('level=debug msg="run one"') == 1
    log = f"{runtime.bundle}/log"
    done = runtime("--debug", "--log", log, "--log-format", "json", "list", "-q")
    assert done.stderr == ""
    with open(log) as file:
        assert json.loads(file.read())["level"] == "debug"


def test_version_and_usage(runtime: Runtime):
    name, spec = runtime("--version").stdout.splitlines()
    assert name.startswith("pier-runtime version ")
    assert spec.startswith("spec: 1.")
    assert "create ID" in runtime().stdout
    assert "create ID" in runtime("exec", "--help").stdout


def test_spec(runtime: Runtime):
    for options in ((), ("--rootless",)):
        os.unlink(f"{runtime.bundle}/config.json")
        runtime("spec", *options)
        with open(f"{runtime.bundle}/config.json") as file:
            spec = json.load(file)
        kinds = {entry["type"] for entry in spec["linux"]["namespaces"]}
        assert ("user" in kinds) == bool(options)
        assert spec["process"]["args"] == ["sh"]
        spec["process"].update(terminal=False, args=["true"], env=["PATH=/bin"])
        spec["root"]["path"] = runtime.spec["root"]["path"]
        runtime.spec = spec
        runtime.write()
        runtime("run", "one")


def test_features(runtime: Runtime):
    features = json.loads(runtime("features").stdout)
    assert features["ociVersionMin"] == "1.0.0"
    assert features["ociVersionMax"].startswith("1.")
    assert "createRuntime" in features["hooks"]
    assert {"ro", "rbind", "rprivate", "noexec"} <= set(features["mountOptions"])
    linux = features["linux"]
    assert {"pid", "user", "cgroup"} <= set(linux["namespaces"])
    assert "CAP_SYS_ADMIN" in linux["capabilities"]
    assert linux["cgroup"] == {
        "v1": True, "v2": True, "systemd": False, "systemdUser": False, "rdma": True,
    }  # fmt: skip
    assert "SCMP_ACT_ERRNO" in linux["seccomp"]["actions"]
    assert linux["selinux"] == {"enabled": False}


def test_the_interpreter_is_out_of_reach(runtime: Runtime):
    """An image that has itself executed as /proc/self/exe gets a file it cannot write (CVE-2019-5736)."""
    runtime.change(lambda spec: spec["process"].update(args=["/proc/self/exe", "-IS", "-c", "1"]))
    before = os.stat(os.path.realpath(COMMAND[0]))
    runtime("run", "one", ok=False)
    runtime.script("sleep 0.2")
    runtime("create", "two")
    pid = runtime.state("two")["pid"]
    assert os.access(COMMAND[0], os.W_OK)
    assert not os.access(f"/proc/{pid}/exe", os.W_OK)
    after = os.stat(os.path.realpath(COMMAND[0]))
    assert (before.st_mtime_ns, before.st_size) == (after.st_mtime_ns, after.st_size)
