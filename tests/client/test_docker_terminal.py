"""`docker run -it` on a real pseudo-terminal: size, keys, signals, detach and attach again."""

import pexpect
import pytest

from engine_process import Client, wait_until


def test_interactive_shell(docker: Client, image: str) -> None:
    terminal = docker.terminal("run", "-it", "--rm", image, rows=31, columns=97)
    try:
        terminal.expect("/ # ")
        terminal.sendline("stty size; tty")
        terminal.expect("31 97\r\n/dev/pts/0")
        terminal.sendline("exit 3")
        terminal.expect(pexpect.EOF)
        terminal.wait()
        assert terminal.exitstatus == 3
    finally:
        terminal.close(force=True)


def test_resize_reaches_the_container(docker: Client, image: str) -> None:
    terminal = docker.terminal("run", "-it", "--rm", image)
    try:
        terminal.expect("/ # ")
        terminal.sendline(
            "while test \"$(stty size)\" != '44 123'; do sleep 0.05; done; echo re''sized"
        )
        # The docker CLI may print the prompt before it listens for SIGWINCH: change the size until
        # it has heard of it.
        for _ in range(40):
            terminal.setwinsize(40, 100)
            terminal.setwinsize(44, 123)
            if terminal.expect(["resized", pexpect.TIMEOUT], timeout=0.5) == 0:
                break
        else:
            pytest.fail(f"the size never arrived: {terminal.before}")
    finally:
        terminal.close(force=True)


def test_interrupt_key_reaches_the_foreground(docker: Client, image: str) -> None:
    terminal = docker.terminal("run", "-it", "--rm", image)
    try:
        terminal.expect("/ # ")
        terminal.sendline("sleep 60")
        terminal.expect("sleep 60\r\n")
        terminal.send("\x03")
        terminal.expect("/ # ")
        terminal.sendline("echo code=$?")
        terminal.expect("code=130")
    finally:
        terminal.close(force=True)


def test_detach_and_attach_again(docker: Client, image: str) -> None:
    terminal = docker.terminal("run", "-it", "--name", "it", image)
    try:
        terminal.expect("/ # ")
        terminal.sendline("kept=here")
        terminal.expect("/ # ")
        terminal.send("\x10\x11")
        terminal.expect(pexpect.EOF)
        terminal.wait()
        assert terminal.exitstatus == 0
    finally:
        terminal.close(force=True)
    assert docker("inspect", "-f", "{{.State.Running}}", "it").stdout == "true\n"

    again = docker.terminal("attach", "it")
    try:
        again.sendline("echo it is $kept")
        again.expect("it is here")
        again.sendline("exit 5")
        again.expect(pexpect.EOF)
        again.wait()
        assert again.exitstatus == 5
    finally:
        again.close(force=True)


def test_other_detach_keys(docker: Client, image: str) -> None:
    terminal = docker.terminal("run", "-it", "--detach-keys", "ctrl-a,z", "--name", "it", image)
    try:
        terminal.expect("/ # ")
        terminal.send("\x10\x11")
        terminal.sendline("echo still h''ere")
        terminal.expect("still here")
        terminal.send("\x01z")
        terminal.expect(pexpect.EOF)
    finally:
        terminal.close(force=True)
    assert docker("inspect", "-f", "{{.State.Running}}", "it").stdout == "true\n"


def test_log_of_a_terminal(docker: Client, image: str) -> None:
    docker("run", "-dt", "--name", "it", image, "echo", "on a terminal")
    docker("wait", "it")
    assert docker("logs", "it").stdout == "on a terminal\r\n"


def test_terminal_belongs_to_the_user(docker: Client, image: str) -> None:
    docker("run", "-dt", "--name", "it", "-u", "alice", image, "sh", "-c", "echo x >/dev/tty")
    assert docker("wait", "it").stdout == "0\n"
    assert docker("logs", "it").stdout == "x\r\n"


def test_attach_forwards_signals(docker: Client, image: str) -> None:
    script = "trap 'echo caught; exit 8' INT; echo ready; while :; do sleep 0.1; done"
    process = docker.popen("run", "--name", "it", image, "sh", "-c", script)
    try:
        assert process.stdout
        assert process.stdout.readline() == b"ready\n"
        process.send_signal(2)
        out, _ = process.communicate(timeout=30)
        assert (out, process.returncode) == (b"caught\n", 8)
    finally:
        process.kill()


def test_two_attached_see_the_same(docker: Client, image: str) -> None:
    script = "while ! test -e /go; do sleep 0.05; done; echo seen; exit 2"
    docker("run", "-d", "--name", "it", image, "sh", "-c", script)
    watchers = [docker.popen("attach", "--no-stdin", "it") for _ in range(2)]
    try:
        # The client says nothing when it is attached, and exec answers later than attach.
        wait_until(lambda: all(w.poll() is None for w in watchers), "both attach")
        for _ in range(5):
            docker("exec", "it", "true")
        docker("exec", "it", "touch", "/go")
        for watcher in watchers:
            out, _ = watcher.communicate(timeout=30)
            assert (out, watcher.returncode) == (b"seen\n", 2)
    finally:
        for watcher in watchers:
            watcher.kill()
