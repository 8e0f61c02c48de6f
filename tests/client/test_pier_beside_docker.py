"""The pier command against the docker command: the same words give the same answer."""

import re

import pexpect
import pytest

from engine_process import Client, EngineProcess, wait_until


@pytest.fixture
def pier(engine: EngineProcess) -> Client:
    """The pier command line."""
    return engine.pier


@pytest.fixture
def docker_28(docker: Client) -> Client:
    """A docker command whose words pier follows: they changed since Debian 12's."""
    version = docker("version", "--format", "{{.Client.Version}}").stdout
    if int(version.split(".")[0]) < 28:
        pytest.skip(f"compares with docker 28, this is {version.strip()}")
    return docker


SAME = [
    ["run", "--rm", "IMAGE", "echo", "hello"],
    ["run", "--rm", "IMAGE", "sh", "-c", "echo out; echo err >&2; exit 3"],
    ["run", "--rm", "-e", "A=b c", "-w", "/usr", "-u", "alice", "IMAGE", "sh", "-c", "env; pwd; id"],
    ["run", "--rm", "--hostname", "harbour", "IMAGE", "hostname"],
    ["run", "--rm", "--entrypoint", "echo", "IMAGE", "x"],
    ["run", "--rm", "--read-only", "--tmpfs", "/t", "IMAGE", "touch", "/t/x", "/y"],
    ["run", "--rm", "--cap-drop", "ALL", "--cap-add", "CHOWN", "IMAGE", "grep", "Cap", "/proc/self/status"],
    ["run", "--rm", "--privileged", "IMAGE", "grep", "CapEff", "/proc/self/status"],
    ["run", "--rm", "--security-opt", "no-new-privileges", "IMAGE", "grep", "NoNew", "/proc/self/status"],
    ["run", "--rm", "--pids-limit", "50", "--memory", "64m", "--cpus", "0.5", "IMAGE", "true"],
    ["run", "--rm", "--ulimit", "nofile=10:20", "IMAGE", "sh", "-c", "ulimit -n"],
    ["run", "--rm", "--sysctl", "net.ipv4.ip_forward=1", "IMAGE", "cat", "/proc/sys/net/ipv4/ip_forward"],
    ["run", "--rm", "--init", "IMAGE", "sh", "-c", "kill -9 $$"],
    ["run", "--rm", "--network", "none", "IMAGE", "ls", "/sys/class/net"],
    ["run", "--rm", "--network", "host", "IMAGE", "ls", "/sys/class/net"],
    ["run", "--rm", "IMAGE", "nothere"],
    ["run", "--rm", "IMAGE", "/etc/passwd"],
    ["run", "--rm", "--pull=never", "nothere"],
    ["run", "--rm", "--memory", "1m", "IMAGE", "true"],
    ["run", "--rm", "--cap-add", "NOPE", "IMAGE", "true"],
    ["exec", "target", "sh", "-c", "echo out; echo err >&2; exit 4"],
    ["exec", "-u", "alice", "-w", "/usr", "-e", "A=1", "target", "sh", "-c", "id -u; pwd; echo $A"],
    ["exec", "target", "nothere"],
    ["exec", "nobody9", "true"],
    ["logs", "target"],
    ["logs", "--tail", "1", "target"],
    ["logs", "-t", "target"],
    ["logs", "nobody9"],
    ["ps"],
    ["ps", "-a"],
    ["ps", "-aq"],
    ["ps", "-a", "--no-trunc"],
    ["ps", "-a", "--filter", "status=running", "--format", "{{.Names}} {{.Image}}"],
    ["ps", "--filter", "nope=1"],
    ["inspect", "target"],
    ["inspect", "-f", "{{.State.Status}} {{json .Config.Cmd}}", "target"],
    ["inspect", "nobody9"],
    ["top", "target", "-o", "pid,comm"],
    ["images"],
    ["images", "-q"],
    ["images", "--format", "{{.Repository}}:{{.Tag}}"],
    ["image", "inspect", "IMAGE"],
    ["history", "--no-trunc", "IMAGE"],
    ["wait", "ended"],
    ["start", "nobody9"],
    ["stop", "nobody9"],
    ["kill", "ended"],
    ["kill", "-s", "NOPE", "target"],
    ["pause", "ended"],
    ["unpause", "target"],
    ["rm", "target"],
    ["rmi", "nothere9"],
    ["rmi", "IMAGE"],
    ["tag", "nothere9", "x"],
    ["rename", "target", "ended"],
    ["attach", "ended"],
    ["diff", "changed"],
    ["diff", "nobody9"],
    ["commit", "nobody9"],
    ["commit", "-c", "NOPE x", "ended"],
    ["commit", "ended", "UPPER:x"],
    ["save", "nothere9"],
    ["save", "-o", "/nowhere9/x", "IMAGE"],
    ["export", "nobody9"],
    ["export", "-o", "/nowhere9/x", "ended"],
    ["image", "ls", "--digests"],
    ["image", "prune", "-f", "--filter", "label=nope9"],
    ["image", "prune", "-f", "--filter", "nope=1"],
    ["image", "prune"],
    ["image", "prune", "-a"],
    ["system", "df"],
    ["system", "df", "-v"],
    ["system", "df", "--format", "{{.Type}} {{.TotalCount}} {{.Reclaimable}}"],
    ["system", "prune"],
    ["system", "prune", "-a", "--volumes", "--filter", "label=a"],
    ["system", "prune", "-f", "--volumes", "--filter", "until=1h"],
]  # fmt: skip


@pytest.mark.parametrize("words", SAME, ids=" ".join)
def test_same_answer(docker_28: Client, pier: Client, sole_image: str, words: list[str]) -> None:
    docker, image = docker_28, sole_image
    docker("run", "-d", "--name", "target", image, "sh", "-c", "echo one; echo two; exec sleep 99")
    docker("run", "--name", "ended", image, "sh", "-c", "exit 7", check=False)
    if "changed" in words:
        docker("run", "--name", "changed", image, "sh", "-c", "echo x > /x; rm /etc/passwd")
    wait_until(lambda: "two" in docker("logs", "target").stdout, "it wrote")
    command = [image if word == "IMAGE" else word for word in words]
    theirs = docker(*command, check=False)
    ours = pier(*command, check=False)
    assert _comparable(ours.stdout) == _comparable(theirs.stdout)
    assert _comparable(ours.stderr) == _comparable(theirs.stderr)
    assert ours.returncode == theirs.returncode


def _comparable(text: str) -> str:
    """Leave out what differs from run to run, or names the program."""
    text = re.sub(r"\bpier\b(?!-)", "docker", text)
    text = re.sub(r"[0-9a-f]{12,64}", "<id>", text)
    text = re.sub(r"\d+ seconds?|Less than a second", "<age>", text)
    text = re.sub(r"[ \t]+", " ", text)
    return re.sub(r"\n\nRun 'docker .*", "", text, flags=re.DOTALL).strip()


@pytest.mark.parametrize("words", [[], ["-a"], ["second"], ["--no-trunc"], ["-q"], ["--digests"]])
def test_tree(docker_28: Client, pier: Client, image: str, words: list[str]) -> None:
    """Blank by blank; docker colours its titles even where there is no terminal."""
    pier("tag", image, "second/name/that-is-longer-than-the-column-has-room-for:one")
    pier("tag", image, "second:two")
    pier("run", "-d", "--name", "using", "--network", "none", image, "sleep", "60")
    theirs = docker_28("images", "--tree", *words, check=False)
    ours = pier("images", "--tree", *words, check=False)
    assert (ours.stdout, ours.stderr, ours.returncode) == (
        re.sub("\x1b\\[[0-9]*m", "", theirs.stdout),
        theirs.stderr,
        theirs.returncode,
    )
    if not words:
        assert "   U    \n" in ours.stdout


def test_version_and_info(pier: Client) -> None:
    assert pier("version").stdout
    assert pier("info").stdout


def test_detached_life(pier: Client, image: str) -> None:
    identity = pier("run", "-d", "--name", "it", "-l", "a=b", image, "sleep", "60").stdout.strip()
    assert re.fullmatch("[0-9a-f]{64}", identity)
    for verb in ("pause", "unpause", "restart", "stop", "start"):
        flags = ["-t", "0"] if verb in ("restart", "stop") else []
        assert pier(verb, *flags, "it").stdout == "it\n"
    pier("kill", "it")
    assert pier("wait", "it").stdout == "137\n"
    assert pier("rm", "it").stdout == "it\n"
    assert pier("ps", "-aq").stdout == ""


def test_piped_input(pier: Client, image: str) -> None:
    assert pier("run", "--rm", "-i", image, "cat", stdin="hi\n").stdout == "hi\n"
    sent = bytes(range(256)) * (1 << 14)
    assert pier.raw("run", "--rm", "-i", image, "cat", stdin=sent).stdout == sent


def test_terminal(pier: Client, image: str) -> None:
    terminal = pier.terminal("run", "-it", "--name", "it", image, rows=31, columns=97)
    try:
        terminal.expect("/ # ")
        terminal.sendline("stty size")
        terminal.expect("31 97")
        terminal.setwinsize(40, 100)
        terminal.sendline("until test \"$(stty size)\" = '40 100'; do :; done; echo re''sized")
        terminal.expect("resized")
        terminal.send("\x10\x11")
        terminal.expect(pexpect.EOF)
        terminal.wait()
        assert terminal.exitstatus == 0
    finally:
        terminal.close(force=True)
    again = pier.terminal("attach", "it")
    try:
        again.sendline("exit 6")
        again.expect(pexpect.EOF)
        again.wait()
        assert again.exitstatus == 6
    finally:
        again.close(force=True)


def test_exec_terminal(pier: Client, image: str) -> None:
    pier("run", "-d", "--name", "it", image, "sleep", "60")
    terminal = pier.terminal("exec", "-it", "it", "sh")
    try:
        terminal.expect("/ # ")
        terminal.sendline("exit 5")
        terminal.expect(pexpect.EOF)
        terminal.wait()
        assert terminal.exitstatus == 5
    finally:
        terminal.close(force=True)


def test_signals_are_passed_on(pier: Client, image: str) -> None:
    script = "trap 'echo caught; exit 8' TERM; echo ready; while :; do sleep 0.1; done"
    process = pier.popen("run", "--rm", image, "sh", "-c", script)
    try:
        assert process.stdout
        assert process.stdout.readline() == b"ready\n"
        process.terminate()
        out, _ = process.communicate(timeout=30)
        assert (out, process.returncode) == (b"caught\n", 8)
    finally:
        process.kill()


def test_follow(pier: Client, image: str) -> None:
    pier("run", "-d", "--name", "it", image, "seq", "1", "1000")
    assert pier("logs", "-f", "it").stdout.split()[-1] == "1000"
    shown = pier("events", "--since", "1m", "--until", "0s", "--filter", "container=it")
    assert "container start" in shown.stdout
