"""Docker's config.json and variables, as far as they say how the client behaves."""

import json
import subprocess
import sys

import pytest
from cli_fake_engine import Answer, FakeEngine

CONFIG = {
    "psFormat": "table {{.ID}}",
    "imagesFormat": "{{.Size}}",
    "detachKeys": "ctrl-x,x",
    "HttpHeaders": {"X-Team": "a", "User-Agent": "never"},
    "proxies": {
        "default": {"httpProxy": "http://p:1", "noProxy": "x"},
        "tcp://elsewhere": {"httpProxy": "http://other"},
    },
}


@pytest.fixture
def fake(tmp_path):
    engine = FakeEngine(str(tmp_path / "s"))
    engine.routes = {
        "GET /containers/json": Answer(body=[]),
        "GET /images/json": Answer(body=[]),
        "POST /containers/create": Answer(201, {"Id": "ab" * 32, "Warnings": []}),
        "POST /build": Answer(body=b""),
        "POST /images/create": Answer(body=b""),
    }
    yield engine
    engine.close()


@pytest.fixture
def pier(fake, tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(CONFIG))
    (tmp_path / "Dockerfile").write_text("FROM scratch\n")

    def run(*words, **variables):
        fake.requests.clear()
        result = subprocess.run(
            [sys.executable, "-m", "pier.cli.main", "-H", fake.host, *words],
            capture_output=True,
            text=True,
            check=False,
            cwd=tmp_path,
            env={"PATH": "/usr/bin:/bin", "DOCKER_CONFIG": str(tmp_path), **variables},
        )
        return result.returncode, result.stdout, result.stderr

    return run


def test_lists_look_as_configured(pier):
    assert pier("ps") == (0, "CONTAINER ID\n", "")
    assert pier("ps", "-s") == (0, "CONTAINER ID\n", "")
    assert pier("ps", "-q") == (0, "", "")
    assert pier("ps", "--format", "table {{.Names}}") == (0, "NAMES\n", "")
    assert pier("images") == (0, "", "")


def test_headers_go_with_every_request(pier, fake):
    pier("ps")
    assert fake.requests[0].headers["x-team"] == "a"
    assert fake.requests[0].headers["user-agent"].startswith("Pier-Client/")
    pier("ps", DOCKER_CUSTOM_HEADERS=' one =1,"two=2,3"')
    assert (fake.requests[0].headers["one"], fake.requests[0].headers["two"]) == ("1", "2,3")
    assert "x-team" not in fake.requests[0].headers


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a", "missing \"=\" in key=value pair: 'a'"),
        ("=b", "value contains a key=value pair with an empty key: '=b'"),
    ],
)
def test_headers_that_are_none(pier, text, message):
    status, _, err = pier("ps", DOCKER_CUSTOM_HEADERS=text)
    assert status == 1
    assert message in err


def test_proxies_are_containers_variables(pier, fake):
    pier("create", "-e", "http_proxy=mine", "-e", "A=1", "img")
    assert fake.requests[0].json["Env"] == [
        "http_proxy=mine",
        "A=1",
        "HTTP_PROXY=http://p:1",
        "NO_PROXY=x",
        "no_proxy=x",
    ]


def test_proxies_are_arguments_of_builds(pier, fake):
    pier("build", "--check", "--build-arg", "NO_PROXY=mine", ".")
    [request] = [request for request in fake.requests if request.path == "/build"]
    assert json.loads(request.query["buildargs"]) == {
        "NO_PROXY": "mine",
        "no_proxy": "x",
        "HTTP_PROXY": "http://p:1",
        "http_proxy": "http://p:1",
    }


@pytest.mark.parametrize("words", [("create", "img"), ("pull", "img"), ("build", "--check", ".")])
def test_platform_of_those_who_give_none(pier, fake, words):
    pier(*words, DOCKER_DEFAULT_PLATFORM="linux/arm64")
    assert fake.requests[-1].query["platform"] == "linux/arm64"
    pier(words[0], "--platform", "linux/riscv64", *words[1:])
    assert fake.requests[-1].query["platform"] == "linux/riscv64"


def test_requests_are_told(pier):
    assert pier("-D", "ps", "-q") == (0, "", "DEBUG GET /containers/json: 200\n")
    assert pier("-l", "debug", "ps", "-q") == (0, "", "DEBUG GET /containers/json: 200\n")
    assert pier("-l", "warn", "ps", "-q") == (0, "", "")
    assert pier("-l", "foo", "ps") == (1, "", "Unable to parse logging level: foo\n")


def test_a_file_that_is_no_json(pier, tmp_path):
    (tmp_path / "config.json").write_text('{"psFormat"')
    status, _, err = pier("ps")
    assert status == 1
    assert err.startswith(f"Error loading config file: {tmp_path}/config.json: ")


@pytest.mark.parametrize(
    ("config", "told"),
    [
        ({"HttpHeaders": ["X-Team"]}, "HttpHeaders is not an object"),
        ({"proxies": "http://p:1"}, "proxies is not an object"),
        ({"proxies": {"default": "http://p:1"}}, "proxies has no object for "),
    ],
)
def test_values_of_another_type(pier, tmp_path, config, told):
    (tmp_path / "config.json").write_text(json.dumps(config))
    status, _, err = pier("create", "img")
    assert status == 1
    assert err.startswith(f"Error loading config file: {tmp_path}/config.json: {told}")
