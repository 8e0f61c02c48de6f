"""The genuine docker compose: a project's whole life on Pier, command by command."""

import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from docker_plugins import configure, find_plugins
from engine_process import Client, wait_until

PROJECT = """
name: shop
services:
  db:
    image: IMAGE
    command: ["sh", "-c", "echo ready > /data/state; exec httpd -f -p 80 -h /data"]
    volumes: ["data:/data", "./conf:/conf:ro"]
    networks: {back: {aliases: [database]}}
    healthcheck:
      test: ["CMD", "wget", "-qO-", "http://127.0.0.1/state"]
      interval: 500ms
      timeout: 2s
      start_period: 5s
      start_interval: 200ms
    environment: {MODE: prod}
    init: true
    stop_grace_period: 1s
  web:
    image: IMAGE
    command: ["sh", "-c", "wget -qO- http://database/state; while :; do sleep 1; done"]
    depends_on: {db: {condition: service_healthy}}
    networks: [back, front]
    ports: ["127.0.0.1::80"]
    configs: [{source: greeting, target: /etc/greeting}]
    secrets: [token]
    deploy: {resources: {limits: {cpus: "0.5", memory: 64M}}}
    labels: {tier: web}
    tmpfs: [/run/x]
    init: true
    stop_grace_period: 1s
  job:
    image: IMAGE
    command: ["true"]
    profiles: [jobs]
    networks: [back]
volumes: {data: {labels: {keep: "no"}}}
networks:
  back: {internal: true}
  front: {ipam: {config: [{subnet: 10.77.0.0/24}]}}
configs: {greeting: {content: "hello ${WHO:-nobody}\\n"}}
secrets: {token: {file: ./token}}
"""


class Compose:
    """The plugin, for one project."""

    def __init__(self, docker: Client, config: Path, project: Path) -> None:
        self._client = Client(docker.command, {**docker.env, "DOCKER_CONFIG": str(config)})
        self._file = str(project / "compose.yaml")

    def __call__(self, *words: str) -> str:
        return self.run(*words, check=True).stdout

    def run(self, *words: str, check: bool = False) -> "subprocess.CompletedProcess[str]":
        return self._client("compose", "-f", self._file, *words, check=check, timeout=90)


@pytest.fixture
def compose(
    docker: Client, image: str, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Compose]:
    found = find_plugins()
    if found is None or not (Path(found) / "docker-compose").exists():
        pytest.skip("no docker-compose: PIER_DOCKER_PLUGINS names no directory with it")
    config = tmp_path_factory.mktemp("config")
    configure(config, found)
    (tmp_path / "conf").mkdir()
    (tmp_path / "conf/setting").write_text("a setting\n")
    (tmp_path / "token").write_text("s3cret\n")
    (tmp_path / "compose.yaml").write_text(PROJECT.replace("IMAGE", image))
    made = Compose(docker, config, tmp_path)
    yield made
    made("--profile", "jobs", "down", "-v", "--remove-orphans", "-t", "1")
    assert docker("ps", "-aq", "--filter", "label=com.docker.compose.project=shop").stdout == ""
    assert docker("volume", "ls", "-q", "--filter", "name=shop").stdout == ""
    assert docker("network", "ls", "-q", "--filter", "name=shop").stdout == ""


def states(compose: Compose) -> dict[str, str]:
    """What `compose ps -a` says of each container."""
    rows = [json.loads(line) for line in compose("ps", "-a", "--format", "json").splitlines()]
    return {row["Name"]: row["State"] for row in rows}


def test_up_and_what_is_there(compose: Compose, docker: Client) -> None:
    compose("up", "-d", "--wait")
    assert states(compose) == {"shop-db-1": "running", "shop-web-1": "running"}
    assert compose("logs", "--no-color", "--no-log-prefix", "web") == "ready\n"
    shown = compose("exec", "-T", "web", "cat", "/etc/greeting", "/run/secrets/token")
    assert shown == "hello nobody\ns3cret\n"
    assert compose("exec", "-T", "db", "cat", "/conf/setting") == "a setting\n"
    assert re.fullmatch(r"127\.0\.0\.1:\d+\n", compose("port", "web", "80"))
    assert "httpd -f -p 80" in compose("top", "db")
    assert compose("images").count("shop-") == 2
    assert "shop_data" in compose("volumes")
    assert json.loads(compose("ls", "--format", "json"))[0]["Status"] == "running(2)"
    limits = "{{.HostConfig.NanoCpus}} {{.HostConfig.Memory}} {{.Config.Labels.tier}}"
    assert docker("inspect", "-f", limits, "shop-web-1").stdout == "500000000 67108864 web\n"
    # Changing nothing leaves all as it is.
    ids = docker("ps", "-q", "--no-trunc").stdout
    compose("up", "-d")
    assert docker("ps", "-q", "--no-trunc").stdout == ids


def test_run_scale_and_recreate(compose: Compose, docker: Client) -> None:
    compose("up", "-d", "--wait")
    assert compose("run", "--rm", "-T", "job", "echo", "done") == "done\n"
    answer = compose("run", "--rm", "-T", "web", "wget", "-qO-", "http://database/state")
    assert answer == "ready\n"
    compose("up", "-d", "--scale", "web=3")
    assert [name for name in states(compose) if "web" in name] == [
        "shop-web-1", "shop-web-2", "shop-web-3"
    ]  # fmt: skip
    compose("up", "-d", "--scale", "web=1")
    assert sorted(states(compose)) == ["shop-db-1", "shop-web-1"]
    before = docker("inspect", "-f", "{{.Id}}", "shop-db-1").stdout
    compose("up", "-d", "--force-recreate", "-t", "1")
    assert docker("inspect", "-f", "{{.Id}}", "shop-db-1").stdout != before
    assert compose("exec", "-T", "db", "cat", "/data/state") == "ready\n"


def test_stop_pause_kill_and_copy(compose: Compose, docker: Client, tmp_path: Path) -> None:
    compose("up", "-d", "--wait")
    compose("stop", "web")
    assert states(compose)["shop-web-1"] == "exited"
    compose("start", "web")
    compose("restart", "-t", "1", "db")
    compose("pause", "db")
    assert states(compose)["shop-db-1"] == "paused"
    compose("unpause", "db")
    compose("cp", "web:/etc/greeting", str(tmp_path / "copied"))
    assert (tmp_path / "copied").read_text() == "hello nobody\n"
    assert "shop-web-1" in compose("stats", "--no-stream")
    compose("export", "-o", str(tmp_path / "web.tar"), "web")
    assert (tmp_path / "web.tar").stat().st_size > 100_000
    compose("commit", "web", "shop/committed:1")
    docker("rmi", "shop/committed:1")
    compose("kill", "db")
    wait_until(lambda: states(compose)["shop-db-1"] == "exited", "the killed one has ended")
    compose("rm", "-sf", "web")
    assert states(compose) == {"shop-db-1": "exited"}
    compose("create")
    assert states(compose)["shop-web-1"] == "created"


def test_a_service_that_fails(compose: Compose, tmp_path: Path) -> None:
    """What another service waits for does not come: `up` fails, and says which it was."""
    path = tmp_path / "compose.yaml"
    text = path.read_text().replace("http://127.0.0.1/state", "http://127.0.0.1/none")
    path.write_text(
        text.replace("start_period: 5s", "retries: 1").replace("start_interval: 200ms", "")
    )
    done = compose.run("up", "-d")
    assert done.returncode == 1
    assert "dependency failed to start: container shop-db-1 is unhealthy" in done.stderr
    assert states(compose)["shop-web-1"] == "created"
