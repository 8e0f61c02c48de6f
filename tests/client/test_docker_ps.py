"""`docker ps`: what is listed, in which order, how it is shown."""

import json
import re

import pytest

from busybox_image import docker_archive, layer_tar, root_tar
from engine_process import Client


@pytest.fixture
def three(docker: Client, image: str) -> None:
    docker("run", "--name", "ended", "-l", "kind=a", image, "sh", "-c", "exit 3", check=False)
    docker("run", "-d", "--name", "running", "-l", "kind=b", image, "sleep", "60")
    docker("create", "--name", "created", "-l", "kind=a", "-l", "more", image)


@pytest.mark.usefixtures("three")
@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ([], ["running"]),
        (["-a"], ["created", "running", "ended"]),
        (["-l"], ["created"]),
        (["-n", "2"], ["created", "running"]),
        (["-a", "-f", "status=exited"], ["ended"]),
        (["-f", "status=created"], ["created"]),
        (["-a", "-f", "status=exited", "-f", "status=running"], ["running", "ended"]),
        (["-a", "-f", "exited=3"], ["ended"]),
        (["-a", "-f", "exited=0"], []),
        (["-f", "exited=3"], []),
        (["-f", "since=ended"], ["running"]),
        (["-a", "-f", "label=kind=a"], ["created", "ended"]),
        (["-a", "-f", "label=more"], ["created"]),
        (["-a", "-f", "label=kind=a", "-f", "label=more"], ["created"]),
        (["-a", "-f", "name=run"], ["running"]),
        (["-a", "-f", "name=^/ended$"], ["ended"]),
        (["-a", "-f", "before=running"], ["ended"]),
        (["-a", "-f", "since=ended"], ["created", "running"]),
        (["-a", "-f", "ancestor=pier-test/busybox"], ["created", "running", "ended"]),
        (["-a", "-f", "ancestor=nothere"], []),
        (["-a", "-f", "network=none"], []),
        (["-a", "-f", "is-task=true"], []),
    ],
)
def test_listed(docker: Client, flags: list[str], expected: list[str]) -> None:
    assert docker("ps", *flags, "--format", "{{.Names}}").stdout.split() == expected


@pytest.mark.usefixtures("three")
def test_by_id(docker: Client) -> None:
    identity = docker("inspect", "-f", "{{.Id}}", "ended").stdout.strip()
    shown = docker("ps", "-a", "-f", f"id={identity[:12]}", "--format", "{{.Names}}").stdout
    assert shown == "ended\n"


@pytest.mark.usefixtures("three")
def test_table(docker: Client) -> None:
    header, *rows = docker("ps", "-a").stdout.splitlines()
    titles = "CONTAINER ID|IMAGE|COMMAND|CREATED|STATUS|PORTS|NAMES"
    assert re.split(r"\s{2,}", header.strip()) == titles.split("|")
    assert '"sleep 60"' in rows[1]
    assert "pier-test/busybox" in rows[1]
    assert re.search(r"Up (Less than a second|\d+ seconds?)", rows[1])
    assert re.search(r"Exited \(3\) (Less than a second|\d+ seconds?) ago", rows[2])
    assert "Created" in rows[0]


@pytest.mark.usefixtures("three")
def test_formats(docker: Client) -> None:
    shown = json.loads(docker("ps", "--format", "{{json .}}").stdout)
    assert shown["Names"] == "running"
    assert shown["State"] == "running"
    assert shown["Labels"] == "kind=b"
    line = docker("ps", "-q").stdout
    assert re.fullmatch(r"[0-9a-f]{12}\n", line)


@pytest.mark.usefixtures("three")
def test_size(docker: Client) -> None:
    docker("exec", "running", "sh", "-c", "head -c 3000000 /dev/zero >/big")
    shown = docker("ps", "-s", "--format", "{{.Size}}").stdout
    assert re.fullmatch(r"3(\.\d+)?MB \(virtual [\d.]+MB\)\n", shown)


@pytest.mark.usefixtures("three")
def test_ancestors_are_what_images_were_made_from(docker: Client, image: str) -> None:
    """The same layers alone make no ancestor."""
    docker("commit", "ended", "made/child")
    docker("create", "--name", "from-child", "made/child")
    docker("commit", "from-child", "made/grandchild")
    docker("create", "--name", "from-grandchild", "made/grandchild")
    twin = docker_archive("made/twin:latest", [root_tar(), layer_tar({"file": b"x"})])
    docker.raw("load", stdin=twin)
    docker("create", "--name", "from-twin", "made/twin", "true")
    try:
        for ancestor, expected in (
            (image, ["from-grandchild", "from-child", "created", "running", "ended"]),
            ("made/child", ["from-grandchild", "from-child"]),
            ("made/twin", ["from-twin"]),
        ):
            found = docker("ps", "-a", "-f", f"ancestor={ancestor}", "--format", "{{.Names}}")
            assert found.stdout.split() == expected
    finally:
        docker("rm", "from-child", "from-grandchild", "from-twin")
        docker("rmi", "made/grandchild", "made/child", "made/twin")
