"""`docker run` from the outside: what the command sees and what comes back."""

import re
from pathlib import Path

import pytest

from engine_process import Client, wait_until


def test_output_comes_back(docker: Client, image: str) -> None:
    assert docker("run", "--rm", image, "echo", "hello").stdout == "hello\n"


def test_streams_stay_apart(docker: Client, image: str) -> None:
    done = docker("run", "--rm", image, "sh", "-c", "echo out; echo err >&2")
    assert (done.stdout, done.stderr) == ("out\n", "err\n")


def test_removed_after_its_end(docker: Client, image: str) -> None:
    docker("run", "--rm", "--name", "brief", image, "true")
    assert "brief" not in docker("ps", "-a", "--format", "{{.Names}}").stdout.split()


@pytest.mark.parametrize(
    ("flags", "script", "expected"),
    [
        (["-e", "A=1", "-e", "B=x y"], 'echo "$A|$B"', "1|x y"),
        ([], "echo $PATH", "/bin:/sbin:/usr/bin:/usr/sbin"),
        ([], "echo $HOME", "/root"),
        (["-u", "alice"], "echo $HOME", "/home/alice"),
        (["-w", "/usr/bin"], "pwd", "/usr/bin"),
        (["-w", "/made/for/it"], "pwd", "/made/for/it"),
        (["--hostname", "harbour"], "hostname; cat /etc/hostname", "harbour\nharbour"),
        (["--hostname", "harbour"], "echo $HOSTNAME", "harbour"),
        (["--domainname", "example.org"], "cat /proc/sys/kernel/domainname", "example.org"),
        ([], "pwd", "/"),
        ([], "echo $$", "1"),
        (["--init"], 'test $$ != 1 && grep -c "" /proc/1/comm', "1"),
        (["--sysctl", "net.ipv4.ip_forward=1"], "cat /proc/sys/net/ipv4/ip_forward", "1"),
        (["--ulimit", "nofile=100:200"], "ulimit -Sn; ulimit -Hn", "100\n200"),
        (["--oom-score-adj", "500"], "cat /proc/self/oom_score_adj", "500"),
        (["--shm-size", "8m"], "df -k /dev/shm | tail -n 1 | awk '{print $2}'", "8192"),
        (["--add-host", "there:10.1.2.3"], "grep there /etc/hosts", "10.1.2.3\tthere"),
        (["--network", "none"], "ls /sys/class/net | grep -c lo", "1"),
        (["--dns", "9.9.9.9"], "grep ^nameserver /etc/resolv.conf", "nameserver 9.9.9.9"),
    ],
)
def test_inside(docker: Client, image: str, flags: list[str], script: str, expected: str) -> None:
    assert docker("run", "--rm", *flags, image, "sh", "-c", script).stdout.strip() == expected


@pytest.mark.parametrize(
    ("user", "flags", "expected"),
    [
        ("", [], "0:0 0"),
        ("alice", [], "1000:1000 1000 10 50"),
        ("1000", [], "1000:1000 1000 10 50"),
        ("1000:50", [], "1000:50 50"),
        ("alice:staff", [], "1000:50 50"),
        ("4242", [], "4242:0 0"),
        ("4242:4343", [], "4242:4343 4343"),
        ("daemon", ["--group-add", "wheel", "--group-add", "77"], "1:1 1 10 77"),
    ],
)
def test_user(docker: Client, image: str, user: str, flags: list[str], expected: str) -> None:
    script = "echo $(id -u):$(id -g) $(sed -n 's/^Groups://p' /proc/self/status)"
    shown = docker("run", "--rm", "--user", user, *flags, image, "sh", "-c", script).stdout
    ids, *groups = shown.split()
    expected_ids, *expected_groups = expected.split()
    assert (ids, set(groups)) == (expected_ids, set(expected_groups))


def test_entrypoint_takes_the_place_of_the_command(docker: Client, image: str) -> None:
    done = docker("run", "--rm", "--entrypoint", "/bin/echo", image, "-n", "x")
    assert done.stdout == "x"


def test_hosts_names_the_container_or_localhost(docker: Client, image: str) -> None:
    hosts = docker("run", "--rm", image, "cat", "/etc/hosts").stdout
    assert re.search(r"^127\.0\.0\.1\s+localhost$", hosts, re.MULTILINE)
    assert re.search(r"^::1\s+.*\blocalhost\b", hosts, re.MULTILINE)


def test_loopback_is_up(docker: Client, image: str) -> None:
    assert (
        "1 packets received" in docker("run", "--rm", image, "ping", "-c", "1", "127.0.0.1").stdout
    )


def test_network_host_is_the_hosts(docker: Client, image: str) -> None:
    inside = docker("run", "--rm", "--network", "host", image, "ls", "/sys/class/net").stdout
    alone = docker("run", "--rm", "--network", "none", image, "ls", "/sys/class/net").stdout
    assert "lo" in inside.split()
    assert "eth0" not in alone.split()


def test_detached_prints_the_id_and_goes_on(docker: Client, image: str) -> None:
    shown = docker("run", "-d", "--name", "behind", image, "sleep", "60").stdout.strip()
    assert re.fullmatch("[0-9a-f]{64}", shown)
    assert docker("inspect", "-f", "{{.State.Running}}", shown[:12]).stdout == "true\n"


def test_cidfile(docker: Client, image: str, tmp_path: Path) -> None:
    file = tmp_path / "cid"
    docker("run", "--cidfile", str(file), image, "true")
    assert docker("inspect", "-f", "{{.Id}}", file.read_text()).stdout.strip() == file.read_text()


def test_create_then_start_attached(docker: Client, image: str) -> None:
    docker("create", "--name", "later", image, "sh", "-c", "echo now; exit 5")
    assert docker("inspect", "-f", "{{.State.Status}}", "later").stdout == "created\n"
    done = docker("start", "--attach", "later", check=False)
    assert (done.returncode, done.stdout) == (5, "now\n")


def test_start_again_keeps_the_files(docker: Client, image: str) -> None:
    docker("run", "--name", "twice", image, "sh", "-c", "echo x >>/kept; wc -l </kept")
    assert docker("start", "-a", "twice").stdout.strip() == "2"


def test_each_container_has_its_own_files(docker: Client, image: str) -> None:
    docker("run", "--rm", image, "sh", "-c", "echo x >/left; rm /bin/vi")
    docker("run", "--rm", image, "sh", "-c", "test ! -e /left && test -e /bin/vi")


def test_labels(docker: Client, image: str) -> None:
    docker("create", "--name", "labelled", "-l", "a=b", "-l", "c", image)
    assert docker("inspect", "-f", "{{json .Config.Labels}}", "labelled").stdout == (
        '{"a":"b","c":""}\n'
    )


def test_random_name(docker: Client, image: str) -> None:
    identity = docker("create", image).stdout.strip()
    name = docker("inspect", "-f", "{{.Name}}", identity).stdout.strip()
    assert re.fullmatch("/[a-z]+_[a-z]+[0-9]*", name)


@pytest.mark.timeout(400)  # where it has to be made first
def test_debian(docker: Client, debian_image: str) -> None:
    done = docker("run", "--rm", debian_image, "bash", "-c", ". /etc/os-release; echo $ID; id -un")
    assert done.stdout.split()[1] == "root"


def test_init_reaps_orphans(docker: Client, image: str) -> None:
    orphans = "for i in 1 2 3; do (sleep 0.2 &); done; echo ready; exec sleep 60"
    docker("run", "-d", "--name", "it", "--init", image, "sh", "-c", orphans)

    def processes() -> list[str]:
        return docker("exec", "it", "sh", "-c", "cat /proc/[0-9]*/comm").stdout.split()

    wait_until(lambda: docker("logs", "it").stdout == "ready\n", "the orphans were made")
    # Left are the init, the command, and the sh and cat of this exec.
    wait_until(lambda: processes().count("sleep") == 1, "the orphans are reaped")
