import json

import pytest

from pier.engine.settings import Settings, parse, usage
from pier.errors import InvalidParameter, PierError, Unsupported


@pytest.fixture
def run(tmp_path):
    """Parse flags beside a configuration file with this content."""

    def parse_with(*argv, file=None):
        path = tmp_path / "daemon.json"
        path.write_text(json.dumps(file or {}))
        return parse(["--config-file", str(path), *argv])

    return parse_with


def test_defaults(run):
    invocation = run()
    assert invocation.action == "run"
    assert invocation.settings == Settings()


def test_flags_in_all_their_spellings(run):
    settings = run(
        *("-DH", "unix:///tmp/a.sock", "--host=fd://", "-Hunix:///tmp/b.sock", "-p=/tmp/p"),
        *("--data-root", "/tmp/data", "--exec-root=/tmp/exec", "-l", "warn", "--label", "a=b"),
    ).settings
    assert settings == Settings(
        hosts=("unix:///tmp/a.sock", "fd://", "unix:///tmp/b.sock"),
        data_root="/tmp/data",
        exec_root="/tmp/exec",
        pidfile="/tmp/p",
        debug=True,
        log_level="warn",
        labels=("a=b",),
    )


def test_the_file_says_the_same(run):
    file = {"hosts": ["unix:///tmp/a.sock"], "data-root": "/tmp/d", "debug": True, "group": "g"}
    assert run(file=file).settings == Settings(
        hosts=("unix:///tmp/a.sock",), data_root="/tmp/d", debug=True, group="g"
    )


def test_the_pidfile_follows_the_exec_root(run):
    assert run("--exec-root", "/tmp/e").settings.pidfile == "/tmp/e/pierd.pid"


def test_what_pier_does_anyway_is_accepted(run):
    run("--live-restore", "--storage-driver", "overlay2")
    run(file={"live-restore": True, "log-driver": "json-file"})
    run("--iptables=false", "--ip6tables=false")


def test_an_empty_directory_of_cdi_is_none(run):
    assert run("--cdi-spec-dir", "").settings.cdi_spec_dirs == ()


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--x"], "unknown flag: --x"),
        (["-x"], "unknown shorthand flag: 'x' in -x"),
        (["-Dx"], "unknown shorthand flag: 'x' in -Dx"),
        (["--data-root"], "flag needs an argument: --data-root"),
        (["--debug=maybe"], 'invalid argument "maybe" for "--debug" flag'),
        (["serve"], '"pierd" accepts no arguments'),
        (["-l", "loud"], "invalid logging level: loud"),
        (["--label", "x"], "bad attribute format: x"),
        (["--default-ipc-mode", "nope"], "default IPC mode setting (nope) is invalid; use"),
        (["--default-cgroupns-mode", "nope"], "invalid default cgroup namespace (nope): use"),
        (["-H", "gopher://x"], "invalid bind address format: gopher://x"),
        (["--config-file", "/nonexistent/x"], "open /nonexistent/x: no such file or directory"),
    ],
)
def test_wrong_flags_are_refused_in_dockerds_words(argv, message):
    with pytest.raises(InvalidParameter) as caught:
        parse(argv)
    assert message in caught.value.message


@pytest.mark.parametrize(
    "argv",
    [
        ["--live-restore=false"],
        ["--ip6tables=false"],
        ["--userns-remap", "default"],
    ],
)
def test_what_pier_does_not_have_yet_is_refused_by_name(run, argv):
    with pytest.raises(Unsupported, match="not supported"):
        run(*argv)


@pytest.mark.parametrize(
    ("argv", "file", "message"),
    [
        (
            [],
            {"colour": 1, "x": 2},
            "the following directives don't match any configuration option: colour, x",
        ),
        (
            ["-D"],
            {"debug": False},
            (
                "the following directives are specified both as a flag and in the configuration file: "
                "debug: (from flag: true, from file: false)"
            ),
        ),
        (
            ["-H", "unix:///a"],
            {"hosts": ["unix:///b"]},
            "hosts: (from flag: [unix:///a], from file: [unix:///b])",
        ),
        ([], {"debug": "yes"}, "cannot unmarshal 'yes' into debug of type bool"),
        ([], {"hosts": "unix:///b"}, "into hosts of type list of strings"),
    ],
)
def test_wrong_files_are_refused_in_dockerds_words(run, argv, file, message):
    with pytest.raises(
        InvalidParameter, match="unable to configure the Docker daemon with file"
    ) as caught:
        run(*argv, file=file)
    assert message in caught.value.message


def test_null_says_nothing(run):
    file = {"max-concurrent-uploads": None, "debug": None, "hosts": None}
    assert run("-D", file=file) == run("-D", file={})


def test_a_file_that_is_not_json_is_refused(tmp_path):
    path = tmp_path / "daemon.json"
    path.write_text("{")
    with pytest.raises(InvalidParameter, match="invalid JSON"):
        parse(["--config-file", str(path)])


@pytest.mark.parametrize(
    ("flag", "action"), [("--help", "help"), ("-v", "version"), ("--validate", "validate")]
)
def test_other_actions(run, flag, action):
    assert run(flag).action == action


def test_usage_names_every_flag_that_is_accepted():
    for line in usage().splitlines():
        if "--" in line:
            flag = line.split("--")[1].split()[0]
            with pytest.raises(PierError) as caught:
                parse([f"--{flag}=?", "--nope"])
            assert "unknown flag: --" + flag not in caught.value.message


@pytest.mark.parametrize("name", ["registry-htpasswd", "registry-tls-cert", "registry-tls-key"])
def test_registry_options_need_its_address(run, name):
    with pytest.raises(InvalidParameter, match=f"{name} needs registry-listen"):
        run(f"--{name}", "/etc/file")
    listen = ["--registry-listen", "127.0.0.1:5000", "--registry-listen", ":5001"]
    settings = run(f"--{name}", "/etc/file", *listen).settings
    assert settings.registry_listen == ("127.0.0.1:5000", ":5001")


def test_networks(run):
    settings = run(
        *("--bip", "10.1.0.1/24", "--mtu", "1400", "--icc=false", "--dns", "1.1.1.1"),
        *("--default-address-pool", "base=10.0.0.0/8,size=24", "--bridge", "none"),
    ).settings
    assert (settings.bip, settings.mtu, settings.icc) == ("10.1.0.1/24", 1400, False)
    assert settings.default_address_pools == (("10.0.0.0/8", 24),)
    assert settings.dns == ("1.1.1.1",)
    marked = run("--bridge-accept-fwmark", "1/0xff", "--allow-direct-routing").settings
    assert (marked.bridge_accept_fwmark, marked.allow_direct_routing) == ("0x1/0xff", True)
    pools = [{"base": "10.0.0.0/8", "size": 24}]
    found = run(file={"default-address-pools": pools, "mtu": 9000}).settings
    assert (found.default_address_pools, found.mtu) == ((("10.0.0.0/8", 24),), 9000)


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--bip", "10.1.0.1"], "invalid CIDR address: 10.1.0.1"),
        (["--dns", "one"], "one is not an ip address"),
        (["--bridge-accept-fwmark", "red"], "invalid firewall mark: red"),
        (["--bip6", "10.1.0.1/24"], "invalid CIDR address: 10.1.0.1/24"),
        (["--mtu", "many"], "failed to parse com.docker.network.driver.mtu"),
        (["--default-address-pool", "base=10.0.0.0/8"], "invalid default address pool"),
        (["--default-address-pool", "base=10.0.0.0/8,size=4"], "invalid pools size"),
        (["--bridge", "a/b"], "invalid interface name"),
    ],
)
def test_networks_refused(run, argv, message):
    with pytest.raises(InvalidParameter, match=message):
        run(*argv)


@pytest.mark.parametrize("argv", [["-H", "tcp://0.0.0.0:2375"], ["-H", "localhost:1"]])
def test_tcp_without_tls_has_to_be_asked_for(run, argv):
    with pytest.raises(InvalidParameter, match="without TLS: who can connect there is root here"):
        run(*argv)
    assert run(*argv, "--tls=false").settings.hosts[0].startswith("tcp://")
    verified = run(*argv, "--tlsverify", "--tlscert", "/c.pem", "--tlskey=/k.pem").settings
    assert (verified.tls, verified.tlscert, verified.tlskey) == (True, "/c.pem", "/k.pem")
    assert verified.tlscacert == "/etc/pier/ca.pem"


def test_what_containers_get_by_default(run):
    from_flags = run(
        *("--default-ulimit", "nofile=1:2", "--default-ulimit", "nproc=3"),
        *("--default-shm-size", "1m", "--log-opt", "max-size=1k", "--log-opt", "max-file=2"),
    ).settings
    from_file = run(
        file={
            "default-ulimits": {
                "nofile": {"Name": "nofile", "Soft": 1, "Hard": 2},
                "nproc": {"Name": "nproc", "Soft": 3, "Hard": 3},
            },
            "default-shm-size": "1m",
            "log-opts": {"max-size": "1k", "max-file": "2"},
        }
    ).settings
    assert from_flags == from_file
    assert from_flags.default_ulimits == {"nofile": (1, 2), "nproc": (3, 3)}
    assert from_flags.default_shm_size == 1 << 20
    assert from_flags.log_opts == {"max-size": "1k", "max-file": "2"}


def test_features(tmp_path):
    def features(text, *flags):
        (tmp_path / "daemon.json").write_text(text)
        return parse(["--config-file", str(tmp_path / "daemon.json"), *flags]).settings

    assert features("{}", "--feature", "buildkit=false").features == {"buildkit": False}
    assert features('{"features": {"buildkit": true}}').features == {"buildkit": True}
    assert features('{"features": {"cdi": false}}').cdi_spec_dirs == ()
    # Off is what it is here anyway.
    assert features('{"features": {"containerd-snapshotter": false}}').features == {}
    with pytest.raises(Unsupported, match="feature containerd-snapshotter is not supported"):
        features('{"features": {"containerd-snapshotter": true}}')


def test_proxies(tmp_path):
    path = tmp_path / "daemon.json"
    path.write_text('{"proxies": {"http-proxy": "http://p:1", "no-proxy": "a,b"}}')
    settings = parse(["--config-file", str(path), "--https-proxy", "http://q:2"]).settings
    assert (settings.http_proxy, settings.https_proxy) == ("http://p:1", "http://q:2")
    assert settings.no_proxy == "a,b"
    with pytest.raises(InvalidParameter, match="both as a flag and in the configuration"):
        parse(["--config-file", str(path), "--http-proxy", "http://other:2"])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--exec-opt", "native.cgroupdriver=systemd"], "only native.cgroupdriver=cgroupfs"),
        (["--exec-opt", "other=1"], "invalid exec-opt: other=1"),
        (["--storage-opt", "overlay2.size=x"], "invalid size: 'x'"),
        (["--storage-opt", "dm.size=1G"], "overlay2: unknown option dm.size"),
        (["--default-network-opt", "bridge=x"], "invalid default network option: bridge=x"),
        (["--default-stop-timeout", "x"], "invalid default stop timeout: x"),
    ],
)
def test_bad_defaults(words, message):
    with pytest.raises((InvalidParameter, Unsupported), match=message):
        parse(words)


def test_default_network_options():
    words = ["--default-network-opt", "bridge=com.docker.network.driver.mtu=1400"]
    assert parse(words).settings.default_network_opts == {
        "bridge": {"com.docker.network.driver.mtu": "1400"}
    }
