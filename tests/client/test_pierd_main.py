"""pierd as a program: flags, sockets, pidfile, signals."""

import contextlib
import os
import signal
import socket
import stat
import subprocess
import sysconfig

import pytest

from engine_process import EngineProcess

PIERD = os.path.join(sysconfig.get_path("scripts"), "pierd")


def pierd(*argv, **options):
    return subprocess.run(
        [PIERD, *argv], capture_output=True, text=True, timeout=30, check=False, **options
    )


@pytest.fixture
def engine_of_its_own():
    """A pierd that nobody else uses: it may be stopped and started."""
    running = EngineProcess()
    with contextlib.closing(running):
        yield running


def test_version_and_help():
    assert pierd("--version").stdout.startswith("Pier version ")
    assert "--data-root" in pierd("--help").stdout


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--nope"], "unknown flag: --nope"),
        (["-H", "tcp://127.0.0.1:2375"], "cannot listen on tcp://127.0.0.1:2375 without TLS"),
        (["-H", "tcp://127.0.0.1"], "invalid bind address (tcp://127.0.0.1)"),
        (["--default-ulimit", "nope=1"], "invalid ulimit type: nope"),
        (["--default-ipc-mode", "host"], 'IPC mode "host" is not supported as'),
        (["--log-driver", "awslogs"], "logger: no log driver named 'awslogs' is registered"),
        (["--log-opt", "x=1"], "unknown log opt 'x' for json-file log driver"),
        (["--config-file", "/nonexistent"], "open /nonexistent: no such file or directory"),
    ],
)
def test_wrong_flags(argv, message):
    done = pierd(*argv)
    assert done.returncode == 1
    assert message in done.stderr


def test_validate(tmp_path):
    path = tmp_path / "daemon.json"
    path.write_text('{"debug": true}')
    done = pierd("--validate", "--config-file", str(path))
    assert (done.returncode, done.stderr) == (0, "configuration OK\n")
    path.write_text('{"colour": 1}')
    done = pierd("--validate", "--config-file", str(path))
    assert done.returncode == 1
    assert "don't match any configuration option: colour" in done.stderr


def test_it_comes_goes_and_cleans_up(engine_of_its_own):
    engine = engine_of_its_own
    other = engine.socket + ".2"
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(engine.socket)
    notified = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    with notified, pytest.MonkeyPatch.context() as patch:
        notified.bind(engine.socket + ".notify")
        patch.setenv("NOTIFY_SOCKET", engine.socket + ".notify")
        engine.start("-H", f"unix://{other}", "--debug")
        assert notified.recv(100) == b"READY=1"
    for path in (engine.socket, other):
        assert stat.S_IMODE(os.stat(path).st_mode) == 0o660
        with socket.socket(socket.AF_UNIX) as sock:
            sock.connect(path)
    with open(engine.pidfile) as file:
        assert int(file.read()) == engine.pid
    os.kill(engine.pid, signal.SIGHUP)
    assert engine.docker("info", "--format", "{{.Debug}}").stdout == "true\n"
    assert engine.stop() == 0
    assert not os.path.exists(engine.pidfile)
    assert not os.path.exists(engine.socket)
    assert not os.path.exists(other)


def test_a_second_one_is_refused(engine_of_its_own, tmp_path):
    engine = engine_of_its_own
    engine.start()
    roots = ["--data-root", str(tmp_path / "data"), "--exec-root", str(tmp_path / "exec")]
    done = pierd("-H", f"unix://{tmp_path}/s", "--pidfile", engine.pidfile, *roots)
    assert done.returncode == 1
    assert f"process with PID {engine.pid} is still running" in done.stderr
    done = pierd("-H", engine.host, *roots)
    assert done.returncode == 1
    assert "another engine is listening on it" in done.stderr
    done = pierd(
        *("-H", f"unix://{tmp_path}/s", "--data-root", engine.data_root),
        *("--exec-root", str(tmp_path / "exec")),
    )
    assert done.returncode == 1
    assert "failed to start daemon" in done.stderr
    assert engine.docker("version", "--format", "{{.Server.Version}}").stdout == "29.7.2\n"


def test_an_activated_socket_is_served(engine_of_its_own, tmp_path):
    engine = engine_of_its_own
    path = str(tmp_path / "activated.sock")
    script = 'exec 3<&0 <&-; LISTEN_PID=$$ LISTEN_FDS=1 exec "$0" "$@"'
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen()
        process = subprocess.Popen(
            [
                *(
                    *engine.in_network,
                    "sh",
                    "-c",
                    script,
                    PIERD,
                    "-H",
                    "fd://",
                    "--data-root",
                    engine.data_root,
                ),
                *("--exec-root", engine.exec_root),
            ],
            stdin=listener,
            stderr=subprocess.DEVNULL,
        )
    try:
        # The connection waits in the backlog until pierd accepts it.
        done = engine.docker("-H", f"unix://{path}", "version", "--format", "{{.Server.Version}}")
        assert done.stdout == "29.7.2\n"
    finally:
        process.terminate()
        process.wait(30)
    # It is systemd's to remove.
    assert os.path.exists(path)
