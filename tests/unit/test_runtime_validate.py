"""config.json that is wrong, or asks for what there is not: each refused, in runc's words."""

import copy
from typing import Any

import pytest

from pier.errors import InvalidParameter, PierError, Unsupported
from pier.runtime import sysctls, validate
from pier.runtime.cli.template import template


def spec(**changes: Any) -> Any:
    """A good config.json; "linux__x" and "process__x" change what is in there."""
    made: Any = copy.deepcopy(template())
    for key, value in changes.items():
        where, _, name = key.rpartition("__")
        (made[where] if where else made)[name] = value
    return made


def kinds(*names: str) -> list[dict[str, str]]:
    return [{"type": name} for name in ("mount", *names)]


def test_the_template_is_good() -> None:
    validate.check(template())


@pytest.mark.parametrize(
    "changes",
    [
        {"unknown": {"of": "tomorrow"}, "annotations": {"org.nobody.knows": ""}},
        {"linux__unknown": 1},
        {"ociVersion": "1.0.2-dev"},
        {"hooks": {"tomorrow": [{"path": "x"}]}},
        {"linux__sysctl": {"net.ipv4.ip_forward": "1", "net/ipv4/conf/a.1/forwarding": "1",
                           "kernel.shmmax": "1", "fs.mqueue.msg_max": "1", "kernel.domainname": "x"}},
        {"linux__rootfsPropagation": "rslave"},
    ],
)  # fmt: skip
def test_what_is_taken(changes: dict[str, Any]) -> None:
    validate.check(spec(**changes))


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"ociVersion": "invalid"}, "unsupported spec version 'invalid'"),
        ({"ociVersion": "2.0.0"}, "unsupported spec version '2.0.0'"),
        ({"root": {}}, "root.path is required"),
        ({"process__args": []}, "args must not be empty"),
        ({"process__cwd": "relative"}, "Cwd must be an absolute path"),
        ({"process__rlimits": [{"type": "RLIMIT_KARMA", "soft": 1, "hard": 1}]},
         "wrong rlimit value: RLIMIT_KARMA"),
        ({"process__rlimits": [{"type": "RLIMIT_CORE", "soft": 1, "hard": 1}] * 2},
         "rlimit RLIMIT_CORE is given twice"),
        ({"process__rlimits": [{"type": "RLIMIT_CORE", "soft": 2, "hard": 1}]}, "above the hard one"),
        ({"process__oomScoreAdj": 1001}, "oomScoreAdj 1001"),
        ({"process__scheduler": {}}, "scheduler policy is required"),
        ({"process__execCPUAffinity": {"initial": "x"}}, "bad CPUAffinity"),
        ({"linux__namespaces": [{"type": "karma"}]}, 'namespace "karma" does not exist'),
        ({"linux__namespaces": kinds("mount")}, 'malformed spec file: duplicated ns "mount"'),
        ({"linux__namespaces": [{"type": "mount", "path": "x"}]}, "is not absolute"),
        ({"linux__namespaces": kinds()}, "unable to set hostname without a private UTS namespace"),
        ({"linux__namespaces": [{"type": "uts"}]},
         "unable to restrict sys entries without a private MNT namespace"),
        ({"linux__uidMappings": [{"containerID": 0, "hostID": 0, "size": 1}]},
         "user namespace mappings specified"),
        ({"linux__timeOffsets": {"boottime": {"secs": 1}}}, "time namespace offsets specified"),
        ({"linux__rootfsPropagation": "sideways"}, "rootfsPropagation=sideways is not supported"),
        ({"linux__maskedPaths": ["x"]}, "is not absolute"),
        ({"linux__netDevices": {"a/b": {}}, "linux__namespaces": kinds("uts", "network")},
         "invalid network device name 'a/b'"),
        ({"linux__netDevices": {"a": {"name": "b"}, "b": {}},
          "linux__namespaces": kinds("uts", "network")}, "'b' is given twice"),
        ({"linux__devices": [{"type": "x", "path": "/dev/x"}]}, 'invalid type "x" of device /dev/x'),
        ({"linux__sysctl": {"kernel.core_pattern": "x"}},
         'sysctl "kernel.core_pattern" is not in a separate kernel namespace'),
        ({"linux__sysctl": {"net/../kernel/core_pattern": "x"}}, "is not valid"),
        ({"linux__sysctl": {"kernel.hostname": "x"}}, 'conflicts with the OCI "hostname" field'),
        ({"linux__memoryPolicy": {"mode": "x"}}, "invalid memory policy mode"),
        ({"linux__personality": {"domain": "x"}}, "invalid personality domain"),
        ({"hooks": {"prestart": [{"path": "x"}]}}, "prestart hook path 'x' is not absolute"),
        ({"hooks": {"poststop": [{"path": "/x", "timeout": 0}]}}, "must be greater than zero"),
        ({"mounts": [{"destination": "/x", "uidMappings": [{}]}]}, "needs both uidMappings"),
        ({"mounts": [{"source": "/x"}]}, "mount destination is empty"),
    ],
)  # fmt: skip
def test_what_is_invalid(changes: dict[str, Any], text: str) -> None:
    with pytest.raises(InvalidParameter) as info:
        validate.check(spec(**changes))
    assert text in info.value.message


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"process__commandLine": "x"}, "process.commandLine is for Windows"),
        ({"linux__intelRdt": {"closID": "x"}}, "intelRdt"),
        (
            {"linux__resources": {"rdma": {"x": {"hcaHandles": 1}}}},
            "cgroup controller rdma is not available on this host",
        ),
        (
            {"linux__resources": {"network": {"classID": 1}}},
            "cgroup controller net_cls is not available on this host",
        ),
        (
            {"linux__resources": {"network": {"priorities": [{"name": "lo", "priority": 1}]}}},
            "cgroup controller net_prio is not available on this host",
        ),
        ({"linux__resources": {"network": {"classID": 1}}}, "net"),
    ],
)
def test_what_is_not_offered(changes: dict[str, Any], text: str) -> None:
    with pytest.raises(Unsupported) as info:
        validate.check(spec(**changes))
    assert text in info.value.message


@pytest.mark.parametrize("field", ["process__selinuxLabel", "linux__mountLabel"])
def test_labels_need_selinux(monkeypatch: pytest.MonkeyPatch, field: str) -> None:
    monkeypatch.setattr(validate, "SELINUX", "/no/such")
    with pytest.raises(Unsupported, match="selinux label is specified in config, but selinux is"):
        validate.check(spec(**{field: "system_u:system_r:x"}))


@pytest.mark.parametrize(
    ("key", "path"),
    [
        ("net.ipv4.ip_forward", b"sys/net/ipv4/ip_forward"),
        ("net/ipv4/conf/eth0.1/forwarding", b"sys/net/ipv4/conf/eth0.1/forwarding"),
        ("net.ipv4.conf.eth0/1.forwarding", b"sys/net/ipv4/conf/eth0.1/forwarding"),
    ],
)
def test_where_a_sysctl_is(key: str, path: bytes) -> None:
    assert sysctls.path(key) == path


def test_without_their_namespaces_sysctls_are_the_hosts() -> None:
    for key, text in (("net.ipv4.ip_forward", "not allowed in host network namespace"),
                      ("kernel.sem", "not allowed in the hosts ipc namespace")):  # fmt: skip
        with pytest.raises(PierError, match=text):
            sysctls.check({"namespaces": [], "sysctl": {key: "1"}})
    ours = {"type": "network", "path": "/proc/self/ns/net"}
    with pytest.raises(PierError, match="not allowed in host network namespace"):
        sysctls.check({"namespaces": [ours], "sysctl": {"net.ipv4.ip_forward": "1"}})
