"""What an answer looks like, and what a request means, in each version of the API.

By raw HTTP, through the proxy that holds answers against the document of their version.
"""

import http.client
import json
import socket
import time
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import pytest

from busybox_image import docker_archive, layer_tar
from engine_process import Client, EngineProcess

OLD, NEW = "1.51", "1.55"


class Raw:
    """Requests with the version of the API as the first word."""

    def __init__(self, engine: EngineProcess) -> None:
        self._path = engine.env["DOCKER_HOST"].removeprefix("unix://")

    def __call__(
        self, version: str, method: str, path: str, body: Any = None, accept: str = ""
    ) -> tuple[int, Any]:
        status, _, content = self.raw(version, method, path, body, accept)
        return status, json.loads(content) if content else None

    def raw(
        self, version: str, method: str, path: str, body: Any = None, accept: str = ""
    ) -> tuple[int, str, bytes]:
        """Return status, content type and body."""
        connection = http.client.HTTPConnection("engine")
        connection.sock = socket.socket(socket.AF_UNIX)
        connection.sock.connect(self._path)
        headers = {"Content-Type": "application/json"} if body is not None else {}
        if accept:
            headers["Accept"] = accept
        text = json.dumps(body) if body is not None else None
        connection.request(method, f"/v{version}{path}", text, headers)
        response = connection.getresponse()
        content = response.read()
        connection.close()
        return response.status, response.headers["Content-Type"] or "", content

    def get(self, version: str, path: str) -> Any:
        status, answer = self(version, "GET", path)
        assert status == 200, answer
        return answer


@pytest.fixture
def api(pierd: EngineProcess) -> Raw:
    return Raw(pierd)


@pytest.fixture
def make(api: Raw, image: str, docker: Client) -> Iterator[Any]:
    """Create a container called `it`: make(version, Config…=…, **HostConfig fields) -> warnings."""

    def create(version: str, host: Any = None, networks: Any = None, **config: Any) -> Any:
        body = {"Image": image, "Cmd": ["sleep", "60"], "HostConfig": host or {}, **config}
        if networks is not None:
            body["NetworkingConfig"] = {"EndpointsConfig": networks}
        return api(version, "POST", "/containers/create?name=it", body)

    yield create
    docker("rm", "-f", "it", check=False)


def test_ping_and_version_name_the_newest(api: Raw) -> None:
    found = api.get("1.24", "/version")
    assert (found["ApiVersion"], found["MinAPIVersion"]) == (NEW, "1.24")
    assert found["Version"].startswith("29.")


def test_inspect(api: Raw, make: Any) -> None:
    make(OLD, networks={"bridge": {"MacAddress": "02:42:ac:11:00:99"}})
    old, new = (api.get(version, "/containers/it/json") for version in (OLD, NEW))
    assert {"IPAddress", "Bridge", "MacAddress"} <= old["NetworkSettings"].keys()
    assert old["Config"]["MacAddress"] == "02:42:ac:11:00:99"
    assert old["Config"]["OnBuild"] is None
    assert new["NetworkSettings"].keys() == {"SandboxID", "SandboxKey", "Ports", "Networks"}
    assert "MacAddress" not in new["Config"]
    assert "OnBuild" not in new["Config"]


def test_aliases_had_the_short_id(api: Raw, make: Any, docker: Client) -> None:
    docker("network", "create", "versions")
    try:
        _, made = make(OLD, host={"NetworkMode": "versions"})
        short = made["Id"][:12]
        settings = "/containers/it/json"
        for version, wanted in (("1.44", [short]), (OLD, None)):
            networks = api.get(version, settings)["NetworkSettings"]["Networks"]
            assert networks["versions"]["Aliases"] == wanted
    finally:
        docker("rm", "-f", "it")
        docker("network", "rm", "versions")


def test_list(api: Raw, make: Any) -> None:
    make(OLD, host={"Annotations": {"a": "b"}}, Healthcheck={"Test": ["CMD", "true"]})
    rows = {v: api.get(v, "/containers/json?all=1")[0] for v in ("1.45", OLD, NEW)}
    assert "Annotations" not in rows["1.45"]["HostConfig"]
    assert rows[OLD]["HostConfig"]["Annotations"] == {"a": "b"}
    assert "Health" not in rows[OLD]
    assert rows[NEW]["Health"]["Status"] in ("none", "starting")


def test_images(api: Raw, image: str, docker: Client) -> None:
    old, mid, new = (
        api.get(v, f"/images/{quote(image, safe='')}/json") for v in ("1.43", OLD, NEW)
    )
    assert old["VirtualSize"] == old["Size"]
    assert old["Config"]["Hostname"] == ""
    assert old["ContainerConfig"] is None
    assert "Hostname" not in mid["Config"]
    assert mid["Config"]["Labels"] is None
    assert mid["Parent"] == ""
    assert not {"Labels", "Volumes", "OnBuild"} & new["Config"].keys()
    assert not {"Parent", "DockerVersion", "VirtualSize"} & new.keys()
    old, new = (api.get(v, "/images/json")[0] for v in ("1.43", NEW))
    assert old["VirtualSize"] == old["Size"]
    assert old["Containers"] == -1
    assert "VirtualSize" not in new
    assert api(NEW, "GET", "/images/json?identity=1") == (
        400,
        {"message": "conflicting options: identity requires manifests=1"},
    )
    # An older version does not know the parameter.
    assert api(OLD, "GET", "/images/json?identity=1")[0] == 200


def test_unnamed_images_had_no_name_of_a_kind(api: Raw, docker: Client) -> None:
    for content in (b"1", b"2"):  # the second takes the name of the first
        docker.raw("load", stdin=docker_archive("versions:v1", [layer_tar({"x": content})]))
    unnamed = json.dumps({"dangling": ["true"]})
    try:
        for version, wanted in (("1.42", ["<none>:<none>"]), (NEW, [])):
            rows = api.get(version, f"/images/json?filters={quote(unnamed)}")
            assert [row["RepoTags"] for row in rows] == [wanted]
    finally:
        docker("image", "prune", "-f")
        docker("rmi", "versions:v1")


def test_save_and_load_of_several_platforms(api: Raw, image: str) -> None:
    one, two = (quote(json.dumps({"os": "linux", "architecture": a})) for a in ("amd64", "arm64"))
    path = f"/images/{quote(image, safe='')}/get?platform={one}&platform={two}"
    status, answer = api(OLD, "GET", path)
    assert (status, answer["message"]) == (400, "multiple platform parameters not supported")
    assert api(NEW, "GET", path)[0] == 404  # there is no image of the other


@pytest.mark.parametrize(
    ("platform", "message"),
    [
        (" ", '" " is an invalid OS component of " "'),
        ("macos", "operating system is not supported"),
        ("macos/arm64", "operating system is not supported"),
        ("nintendo64", '"nintendo64": unknown operating system or architecture'),
    ],
)
def test_import_for_no_platform(api: Raw, platform: str, message: str) -> None:
    status, answer = api(
        OLD, "POST", f"/images/create?fromSrc=-&platform={quote(platform, safe='')}"
    )
    assert (status, answer["message"]) == (400, message)


def test_attestations(api: Raw, image: str) -> None:
    name = quote(image, safe="")
    assert api(NEW, "GET", f"/images/{name}/attestations") == (200, [])
    assert api(NEW, "GET", "/images/nothere9/attestations")[0] == 404
    status, answer = api(NEW, "GET", f"/images/{name}/attestations?platform=a&platform=b")
    assert (status, answer["message"]) == (400, "only one platform value is currently supported")


def test_disk_usage(api: Raw, make: Any) -> None:
    make(OLD)
    old = api.get(OLD, "/system/df?type=container")
    assert old["Images"] is None
    assert len(old["Containers"]) == 1
    between = api.get("1.52", "/system/df?type=container")
    assert between.keys() == {"LayersSize", "Containers", "ContainerUsage"}
    new = api.get(NEW, "/system/df")
    assert new.keys() == {"ImageUsage", "ContainerUsage", "VolumeUsage", "BuildCacheUsage"}
    assert new["ImageUsage"]["ActiveCount"] == 1
    counted = new["ContainerUsage"]
    assert (counted["ActiveCount"], counted["TotalCount"]) == (0, 1)
    assert counted["Reclaimable"] == counted["TotalSize"]
    verbose = api.get(NEW, "/system/df?type=container&verbose=true")
    assert [row["Names"] for row in verbose["ContainerUsage"]["Items"]] == [["/it"]]
    assert api(NEW, "GET", "/system/df?verbose=x")[0] == 400


def test_events(api: Raw, make: Any) -> None:
    since = time.time()
    make(OLD)
    path = f"/events?since={since:.9f}&until={time.time():.9f}"
    status, kind, content = api.raw(OLD, "GET", path, accept="application/json-seq")
    event = json.loads(content)
    assert (status, kind, event["status"], event["from"]) == (
        *(200, "application/json", "create"),
        event["Actor"]["Attributes"]["image"],
    )
    _, kind, content = api.raw(NEW, "GET", path)
    assert kind == "application/json"
    assert not {"status", "id", "from"} & json.loads(content).keys()
    _, kind, content = api.raw(NEW, "GET", path, accept="application/json-seq")
    assert (kind, content[:1]) == ("application/json-seq", b"\x1e")
    assert api.raw(NEW, "GET", path, accept="*/*")[1] == "application/jsonl"
    assert api.raw("1.52", "GET", path, accept="*/*")[1] == "application/x-ndjson"
    text = "application/x-ndjson;q=0.9, application/jsonl;q=0.1"
    assert api.raw(NEW, "GET", path, accept=text)[1] == "application/x-ndjson"


def test_network_status(api: Raw) -> None:
    old, new = (api.get(v, "/networks/bridge") for v in (OLD, NEW))
    assert "Status" not in old
    subnet = new["IPAM"]["Config"][0]["Subnet"]
    counts = new["Status"]["IPAM"]["Subnets"][subnet]
    # The network's, the broadcast, and the gateway's address.
    assert counts == {"IPsInUse": 3, "DynamicIPsAvailable": 65536 - 3}


def test_info(api: Raw) -> None:
    oldest, old, new = (api.get(v, "/info") for v in ("1.48", OLD, NEW))
    assert oldest["BridgeNfIptables"] is False
    assert "Expected" in oldest["RuncCommit"]
    assert "FirewallBackend" not in oldest
    assert old["FirewallBackend"]["Driver"] == "nftables"
    assert "BridgeNfIptables" not in old
    assert "KernelMemoryTCP" not in new


def test_stats(api: Raw, make: Any) -> None:
    make(OLD)
    old, new = (api.get(v, "/containers/it/stats?stream=0") for v in (OLD, NEW))
    assert "os_type" not in old
    assert new["os_type"] == "linux"


NEEDS_OPTION = (
    'interface specific sysctl setting "net.ipv4.conf.eth0.forwarding" must be supplied using'
    " driver option 'com.docker.network.endpoint.sysctls'"
)
WARNED_MAC = (
    "The container-wide MacAddress field is now deprecated. It should be specified in"
    " EndpointsConfig instead."
)


@pytest.mark.parametrize(
    ("version", "warnings", "mac"),
    [
        ("1.43", [], "02:42:ac:11:00:77"),
        (OLD, [WARNED_MAC], "02:42:ac:11:00:77"),
        (NEW, [], ""),  # no such field any more
    ],
)
def test_mac_address(api: Raw, make: Any, version: str, warnings: list[str], mac: str) -> None:
    status, made = make(version, MacAddress="02:42:ac:11:00:77")
    assert (status, made["Warnings"]) == (201, warnings)
    shown = api.get(OLD, "/containers/it/json")["NetworkSettings"]["Networks"]["bridge"]
    assert shown["MacAddress"] == mac


@pytest.mark.parametrize(("version", "below"), [("1.43", "rw"), ("1.44", "ro")])
def test_read_only_binds_and_what_is_mounted_below(
    make: Any, docker: Client, version: str, below: str
) -> None:
    # /dev/shm is a mount of its own.
    make(version, host={"Binds": ["/dev:/m:ro"]})
    docker("start", "it")
    mounts = docker("exec", "it", "cat", "/proc/self/mountinfo").stdout.splitlines()
    options = {words[4]: words[5].split(",")[0] for words in map(str.split, mounts)}
    assert (options["/m"], options["/m/shm"]) == ("ro", below)


def test_empty_port_bindings(api: Raw, make: Any, docker: Client) -> None:
    wanted = {
        OLD: ([{"HostIp": "", "HostPort": ""}], 0),
        "1.52": ([{"HostIp": "", "HostPort": ""}], 1),
        "1.53": (None, 0),
    }
    for version, (bindings, warned) in wanted.items():
        _, made = make(version, host={"PortBindings": {"80/tcp": []}})
        host = api.get(OLD, "/containers/it/json")["HostConfig"]
        assert host["PortBindings"].get("80/tcp") == bindings
        assert len(made["Warnings"]) == warned
        docker("rm", "it")


@pytest.mark.parametrize(
    ("version", "arguments", "message"),
    [
        (
            "1.43",
            {"networks": {"a": {}, "b": {}}},
            "Container cannot be created with multiple network endpoints: a, b",
        ),
        (
            "1.44",
            {
                "host": {
                    "Mounts": [
                        {"Type": "volume", "Source": "v", "Target": "/v"}
                        | {"VolumeOptions": {"Subpath": "x"}}
                    ]
                }
            },
            "VolumeOptions.Subpath needs API v1.45 or newer",
        ),
        (
            "1.47",
            {"host": {"Mounts": [{"Type": "image", "Source": "busybox", "Target": "/v"}]}},
            'Mount type "Image" needs API v1.48 or newer',
        ),
        (
            NEW,
            {"host": {"Sysctls": {"net.ipv4.conf.eth0.forwarding": "1"}}},
            NEEDS_OPTION,
        ),
    ],
)
def test_create_refuses(make: Any, version: str, arguments: Any, message: str) -> None:
    assert make(version, **arguments) == (400, {"message": message})


def test_sysctls_of_an_interface_move_to_its_endpoint(api: Raw, make: Any) -> None:
    _, made = make("1.46", host={"Sysctls": {"net.ipv4.conf.eth0.forwarding": "1"}})
    key, value = "com.docker.network.endpoint.sysctls", "net.ipv4.conf.IFNAME.forwarding=1"
    assert made["Warnings"] == [
        f'Migrated sysctl "net.ipv4.conf.eth0.forwarding" to DriverOpts{{"{key}":"{value}"}}.'
    ]
    shown = api.get(OLD, "/containers/it/json")
    assert "Sysctls" not in shown["HostConfig"]
    assert shown["NetworkSettings"]["Networks"]["bridge"]["DriverOpts"] == {key: value}


def test_defaults_of_old_clients(api: Raw, make: Any, docker: Client) -> None:
    make("1.39", host={"Annotations": {"a": "b"}}, Healthcheck={"Test": ["CMD", "x"]})
    host = api.get(OLD, "/containers/it/json")["HostConfig"]
    assert host["IpcMode"] == "shareable"
    assert "Annotations" not in host
    docker("rm", "it")
    make("1.24", host={"AutoRemove": True})
    assert api.get(OLD, "/containers/it/json")["HostConfig"]["AutoRemove"] is False


def test_plugins(api: Raw) -> None:
    assert api.get(OLD, "/plugins") == []
    assert api(OLD, "GET", "/plugins/x/json") == (404, {"message": 'plugin "x" not found'})


def test_wait_of_old_clients_has_a_status_of_its_own(api: Raw, make: Any) -> None:
    make(OLD)
    api("1.24", "POST", "/containers/it/start")
    api("1.24", "POST", "/containers/it/kill")
    assert api("1.24", "POST", "/containers/it/wait") == (200, {"StatusCode": 137})


def test_an_exec_is_framed_as_its_start_says(api: Raw, make: Any) -> None:
    """The terminal is its creation's; whether the client reads frames is its start's."""
    make(OLD)
    api(OLD, "POST", "/containers/it/start")
    wanted = {"AttachStdout": True, "Tty": True, "Cmd": ["echo", "x"]}
    for tty, output in ((False, b"\x01\0\0\0\0\0\0\x03x\r\n"), (True, b"x\r\n")):
        _, made = api(OLD, "POST", "/containers/it/exec", wanted)
        started = api.raw(OLD, "POST", f"/exec/{made['Id']}/start", {"Tty": tty})
        assert started[2] == output


def test_a_link_is_removed_alone(api: Raw, make: Any, docker: Client, image: str) -> None:
    docker("run", "-d", "--name", "target", image, "sleep", "60")
    try:
        make(OLD, host={"Links": ["target:alias"]})
        assert api(OLD, "DELETE", "/containers/it/other?link=1")[0] == 404
        assert api(OLD, "DELETE", "/containers/it/alias?link=1")[0] == 204
        assert api.get(OLD, "/containers/it/json")["HostConfig"]["Links"] is None
    finally:
        docker("rm", "-f", "target")
