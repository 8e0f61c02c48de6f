"""A real database of Debian's whose data lives through all that happens to its containers."""

import os
import uuid

import pytest
from made_once import CACHE, debian_tar, tools_tar

from engine_process import EngineProcess, wait_until

SERVER = ["redis-server", "--dir", "/data", "--appendonly", "yes", "--appendfsync", "always"]


POSTGRESQL = (
    "cd /var/lib/postgresql; bin=$(echo /usr/lib/postgresql/*/bin);"
    " [ -d mine ] || $bin/initdb -D mine >/dev/null; exec $bin/postgres -D mine -k /tmp"
)


def database_image(engine: EngineProcess, tar: str, name: str, *changes: str) -> str:
    options = [word for change in changes for word in ("--change", change)]
    engine.docker("import", *options, tar, name, timeout=180)
    return name


@pytest.fixture(scope="module")
def redis_image(engine: EngineProcess) -> str:
    return database_image(engine, tools_tar(), "pier-test/redis:1", "VOLUME /data")


@pytest.fixture(scope="module")
def postgresql_image(engine: EngineProcess) -> str:
    """PostgreSQL is 400 MB: only where somebody has made it, with tools/debian_root.sh."""
    if not os.path.exists(os.path.join(CACHE, "postgresql.tar")):
        pytest.skip(
            "no .cache/postgresql.tar: tools/debian_root.sh .cache/postgresql.tar postgresql"
        )
    changes = ("USER postgres", "VOLUME /var/lib/postgresql")
    tar = debian_tar("postgresql", "postgresql")
    return database_image(engine, tar, "pier-test/postgresql:1", *changes)


class Redis:
    """A container of a server that keeps its data in a volume; each has the same name."""

    def __init__(self, engine: EngineProcess, image: str) -> None:
        self.docker = engine.docker
        self.name = f"redis-{uuid.uuid4().hex[:6]}"
        self.volume = f"{self.name}-data"
        self._image = image

    def run(self, *options: str) -> None:
        words = ["--name", self.name, "-v", f"{self.volume}:/data", *options]
        self.docker("run", "-d", *words, self._image, *SERVER)
        self.wait()

    def wait(self) -> None:
        wait_until(lambda: "PONG" in self.ask("ping", check=False), "redis answers", seconds=30)

    def ask(self, *words: str, check: bool = True) -> str:
        return self.docker("exec", self.name, "redis-cli", *words, check=check).stdout.strip()


@pytest.mark.timeout(400)  # where the image has to be made first
def test_redis(pierd: EngineProcess, redis_image: str) -> None:
    redis = Redis(pierd, redis_image)
    docker, pier = redis.docker, pierd.pier
    redis.run("--restart", "always")
    for number in range(20):
        assert redis.ask("set", f"key{number}", f"value{number}") == "OK"

    # Its container is replaced.
    docker("rm", "-f", redis.name)
    redis.run("--restart", "always", "--memory", "256m")
    assert redis.ask("get", "key7") == "value7"

    # The engine is killed while it is written to, and started again: nothing notices.
    pid = docker("inspect", "-f", "{{.State.Pid}}", redis.name).stdout
    pierd.kill()
    pierd.start()
    assert docker("inspect", "-f", "{{.State.Pid}}", redis.name).stdout == pid
    assert redis.ask("incr", "counter") == "1"

    # The server itself is killed: the policy brings it back, with all that was acknowledged.
    os.kill(int(pid), 9)
    wait_until(
        lambda: docker("inspect", "-f", "{{.State.Pid}}", redis.name).stdout not in (pid, "0\n"),
        "it is started again",
    )
    redis.wait()
    assert redis.ask("incr", "counter") == "2"

    # A backup that is made while it runs is one that a server can start from.
    path = f"{pierd.directory}/{redis.name}.tar"
    pier("volume", "backup", redis.volume, path)
    redis.ask("set", "late", "value")
    docker("rm", "-f", redis.name)
    docker("volume", "rm", redis.volume)
    pier("volume", "restore", redis.volume, path)
    redis.run()
    assert redis.ask("get", "counter") == "2"
    assert redis.ask("dbsize") == "21"
    docker("rm", "-f", redis.name)
    docker("volume", "rm", redis.volume)


@pytest.mark.timeout(240)
def test_postgresql(pierd: EngineProcess, postgresql_image: str) -> None:
    docker, name = pierd.docker, f"postgresql-{uuid.uuid4().hex[:6]}"
    volume = f"{name}-data"

    def run() -> None:
        words = ["--name", name, "-v", f"{volume}:/var/lib/postgresql"]
        docker("run", "-d", *words, postgresql_image, "sh", "-c", POSTGRESQL)
        wait()

    def wait() -> None:
        wait_until(lambda: ask("SELECT 1", check=False) == "1", "it answers", seconds=60)

    def ask(sql: str, *, check: bool = True) -> str:
        command = ["psql", "-h", "/tmp", "-d", "postgres", "-Atc", sql]
        return docker("exec", name, *command, check=check).stdout.strip()

    run()
    ask("CREATE TABLE kept (n int); INSERT INTO kept SELECT generate_series(1, 1000)")
    docker("rm", "-f", name)  # which kills it: it recovers from its log
    run()
    assert ask("SELECT count(*), sum(n) FROM kept") == "1000|500500"
    pid = docker("inspect", "-f", "{{.State.Pid}}", name).stdout
    pierd.kill()
    pierd.start()
    assert docker("inspect", "-f", "{{.State.Pid}}", name).stdout == pid
    ask("INSERT INTO kept VALUES (1001)")
    docker("stop", name)
    docker("start", name)
    wait()
    assert ask("SELECT max(n) FROM kept") == "1001"
    copy = f"{volume}-copy"
    pierd.pier("volume", "clone", volume, copy)
    docker("rm", "-f", name)
    docker("volume", "rm", volume)
    pierd.pier("volume", "rename", copy, volume)
    run()
    assert ask("SELECT count(*) FROM kept") == "1001"
    docker("rm", "-f", name)
    docker("volume", "rm", volume)
