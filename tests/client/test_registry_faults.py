"""Pulls from a registry that misbehaves: clear words, nothing half kept, and the next try works."""

import base64
import json
import os
import subprocess
from collections.abc import Iterator

import pytest
from fake_registry import LAYER, Image
from registry_servers import fake_registry

from engine_process import Client, EngineProcess, wait_until

PORT = 5071
HOST = f"localhost:{PORT}"


@pytest.fixture(scope="module")
def requests(engine: EngineProcess) -> Iterator[str]:
    with fake_registry(engine, PORT) as path:
        yield path


@pytest.fixture
def pier(pierd: EngineProcess) -> Client:
    return pierd.pier


@pytest.fixture(autouse=True)
def _without_images(pierd: EngineProcess) -> Iterator[None]:
    yield
    pierd.calls.remove_named(HOST)
    directory = f"{pierd.data_root}/partial"
    for name in os.listdir(directory):
        os.unlink(f"{directory}/{name}")


def requests_for(path: str, repository: str) -> list[dict[str, str]]:
    with open(path) as file:
        found = [json.loads(line) for line in file]
    return [request for request in found if f"/{repository}/" in request["path"]]


@pytest.mark.parametrize(
    ("repository", "words"),
    [
        ("wrong", f"filesystem layer verification failed for digest {Image('wrong').layer}"),
        ("loop", "stopped after 10 redirects"),
        ("corrupt", "failed to register layer: "),
        ("diffid", "layers from manifest don't match image configuration"),
        ("upper", "layers from manifest don't match image configuration"),
        ("nomatch", "no matching manifest for linux/"),
        ("schema1", "manifest version 2, schema 1 support has been removed"),
        ("chart", 'Encountered remote "application/x-chart"(unknown) when fetching'),
        ("denied", f"pull access denied for {HOST}/denied, repository does not exist or may"),
        ("limited", "toomanyrequests: pull rate limit"),
        ("unknown/x", f"repository {HOST}/unknown/x not found: name unknown: unknown"),
    ],
)
def test_fault(requests: str, docker: Client, pierd: EngineProcess, repository: str, words: str):
    layers = set(os.listdir(f"{pierd.data_root}/layers"))
    done = docker("pull", f"{HOST}/{repository}:v1", check=False)
    assert done.returncode == 1
    assert words in done.stderr
    assert repository not in docker("images").stdout
    assert os.listdir(f"{pierd.data_root}/ingest") == []
    assert set(os.listdir(f"{pierd.data_root}/layers")) == layers
    # What is wrong is not kept, and a good image of the same content can be had at once.
    docker("pull", f"{HOST}/good:v1")
    assert docker("inspect", "-f", "{{.Config.Cmd}}", f"{HOST}/good:v1").stdout == "[good]\n"


def test_a_download_that_breaks_off_goes_on_where_it_was(requests: str, docker: Client):
    docker("pull", f"{HOST}/once:v1")
    layer = Image("once").layer
    tried = [r for r in requests_for(requests, "once") if r["path"].endswith(layer)]
    assert tried[0]["range"] == ""
    assert tried[-1]["range"].startswith("bytes=")
    assert 0 < int(tried[-1]["range"][6:-1]) <= len(LAYER) // 2


def test_a_pull_asked_again_downloads_what_is_missing(
    requests: str, docker: Client, pierd: EngineProcess
):
    """The client goes in the middle: the work stops, and what it got is kept for the next."""
    staging, partial = f"{pierd.data_root}/staging", f"{pierd.data_root}/partial"
    before = len(os.listdir(staging))  # what waits for the next container is there too
    client = docker.popen("pull", f"{HOST}/breaks:v1")
    wait_until(
        lambda: any(os.stat(f"{partial}/{n}").st_size for n in os.listdir(partial)),
        "something was received",
    )
    client.terminate()
    client.communicate(timeout=20)
    wait_until(lambda: len(os.listdir(staging)) <= before, "the pull has stopped")
    docker("pull", f"{HOST}/good:v1")
    layer = Image("good").layer
    asked = [r for r in requests_for(requests, "good") if r["path"].endswith(layer)]
    assert asked[-1]["range"].startswith("bytes=")
    assert os.listdir(partial) == []


def test_credentials_stay_with_the_registry(requests: str, engine: EngineProcess, docker: Client):
    """A redirect leads to another host, which is shown nothing."""
    token = base64.urlsafe_b64encode(b'{"registrytoken": "s3cret"}').decode()
    socket = engine.host.removeprefix("unix://")
    url = f"http://d/images/create?fromImage={HOST}/leak&tag=v1"
    command = ["curl", "-sS", "--unix-socket", socket, "-X", "POST", url]
    done = subprocess.run(
        [*command, "-H", f"X-Registry-Auth: {token}"], capture_output=True, text=True, check=True
    )
    assert "Downloaded newer image" in done.stdout
    assert requests_for(requests, "leak")[0]["auth"] == "Bearer s3cret"
    elsewhere = requests_for(requests, "elsewhere")
    assert elsewhere
    assert all(request["auth"] == "" for request in elsewhere)


def test_tokens(requests: str, docker: Client, pier: Client):
    # docker itself would ask for a password now.
    refused = pier("pull", f"{HOST}/token:v1", check=False)
    assert "unauthorized: incorrect username or password" in refused.stderr
    config = os.path.join(docker.env["DOCKER_CONFIG"], "config.json")
    with open(config, "w") as file:
        auth = base64.b64encode(b"alice:secret").decode()
        json.dump({"auths": {HOST: {"auth": auth}}}, file)
    try:
        docker("pull", f"{HOST}/token:v1")
    finally:
        os.unlink(config)
    shown = {r["auth"] for r in requests_for(requests, "token")}
    assert shown == {"", "Bearer t0ken"}


def test_index_is_what_the_name_stands_for(requests: str, docker: Client):
    docker("pull", f"{HOST}/index:v1")
    digests = docker("inspect", "-f", "{{json .RepoDigests}}", f"{HOST}/index:v1").stdout
    assert Image("index").top in digests
    again = docker("pull", f"{HOST}/index:v1").stdout
    assert f"Status: Image is up to date for {HOST}/index:v1" in again
    platform = docker("pull", "--platform", "linux/riscv64", f"{HOST}/index:v1", check=False)
    assert "no matching manifest for linux/riscv64 in the manifest list entries" in platform.stderr


def test_search(requests: str, docker: Client):
    found = docker("search", f"{HOST}/it").stdout
    assert "found/it" in found
    assert "7" in found
    few = docker("search", "--limit", "200", f"{HOST}/it", check=False)
    assert "limit 200 is outside the range of [1, 100]" in few.stderr
