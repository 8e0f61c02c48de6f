"""Bind mounts and tmpfs."""

import os
from pathlib import Path

import pytest

from engine_process import Client


def test_bind_shows_the_hosts_files(docker: Client, image: str, tmp_path: Path) -> None:
    (tmp_path / "here").write_text("from the host\n")
    shown = docker("run", "--rm", "-v", f"{tmp_path}:/m", image, "cat", "/m/here").stdout
    assert shown == "from the host\n"


def test_bind_is_written_through(docker: Client, image: str, tmp_path: Path) -> None:
    docker("run", "--rm", "-v", f"{tmp_path}:/m", image, "sh", "-c", "echo x >/m/made")
    assert (tmp_path / "made").read_text() == "x\n"


@pytest.mark.parametrize("kind", ["-v", "--mount"])
def test_read_only_bind(docker: Client, image: str, tmp_path: Path, kind: str) -> None:
    value = f"{tmp_path}:/m:ro" if kind == "-v" else f"type=bind,src={tmp_path},dst=/m,readonly"
    done = docker("run", "--rm", kind, value, image, "touch", "/m/x", check=False)
    assert "Read-only file system" in done.stderr
    assert not os.listdir(tmp_path)


def test_bind_of_a_file(docker: Client, image: str, tmp_path: Path) -> None:
    file = tmp_path / "one"
    file.write_text("1\n")
    done = docker("run", "--rm", "-v", f"{file}:/deep/in/there:ro", image, "cat", "/deep/in/there")
    assert done.stdout == "1\n"


def test_missing_source_is_made(docker: Client, image: str, tmp_path: Path) -> None:
    docker("run", "--rm", "-v", f"{tmp_path}/new/one:/m", image, "touch", "/m/x")
    assert (tmp_path / "new" / "one" / "x").exists()


def test_target_through_a_symlink_stays_inside(docker: Client, image: str, tmp_path: Path) -> None:
    marker = "/pier-escape-marker"
    done = docker(
        *("run", "--rm", "-v", f"{tmp_path}:{marker}/x", image),
        *("sh", "-c", f"test -d {marker}/x && echo inside"),
    )
    assert done.stdout == "inside\n"
    assert not os.path.exists(marker)


def test_bind_over_a_bind(docker: Client, image: str, tmp_path: Path) -> None:
    (tmp_path / "a" / "sub").mkdir(parents=True)
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "file").write_text("b\n")
    # The deeper mount comes second, whatever the order on the command line.
    flags = ["-v", f"{tmp_path}/b:/m/sub", "-v", f"{tmp_path}/a:/m"]
    assert docker("run", "--rm", *flags, image, "cat", "/m/sub/file").stdout == "b\n"


@pytest.mark.parametrize(
    ("flags", "script", "expected"),
    [
        (["--tmpfs", "/t"], "grep ' /t ' /proc/mounts | cut -d' ' -f3", "tmpfs"),
        (["--tmpfs", "/t"], "grep ' /t ' /proc/mounts | grep -c nosuid,nodev,noexec", "1"),
        (["--tmpfs", "/t:size=2m"], "df -k /t | tail -n 1 | awk '{print $2}'", "2048"),
        (["--tmpfs", "/t:mode=700"], "stat -c %a /t", "700"),
        (["--mount", "type=tmpfs,dst=/t,tmpfs-mode=1700"], "stat -c %a /t", "1700"),
        (["--mount", "type=tmpfs,dst=/t,tmpfs-size=1m"], "df -k /t | awk 'END {print $2}'", "1024"),
    ],
)
def test_tmpfs(docker: Client, image: str, flags: list[str], script: str, expected: str) -> None:
    assert docker("run", "--rm", *flags, image, "sh", "-c", script).stdout.strip() == expected


def test_resolv_conf_hosts_and_hostname_are_writable(docker: Client, image: str) -> None:
    script = "echo '1.2.3.4 x' >>/etc/hosts; echo n >/etc/hostname; tail -n 1 /etc/hosts"
    assert docker("run", "--rm", image, "sh", "-c", script).stdout == "1.2.3.4 x\n"


def test_exec_sees_the_binds(docker: Client, image: str, tmp_path: Path) -> None:
    docker("run", "-d", "--name", "it", "-v", f"{tmp_path}:/m", image, "sleep", "60")
    (tmp_path / "late").write_text("late\n")
    assert docker("exec", "it", "cat", "/m/late").stdout == "late\n"
