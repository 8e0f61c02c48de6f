"""CDI: files that describe devices, and what they do to a specification."""

import json

import pytest

from pier.engine import cdi
from pier.errors import Internal

NULL = {"path": "/dev/made-up", "hostPath": "/dev/null"}


def spec():
    return {
        "process": {"env": ["PATH=/bin", "A=old"], "user": {"uid": 0, "gid": 0}},
        "mounts": [],
        "linux": {"devices": [{"path": "/dev/made-up", "type": "c"}], "resources": {}},
    }


def write(directory, name, devices, kind="vendor.com/class", **common):
    directory.mkdir(exist_ok=True)
    document = {"cdiVersion": "0.6.0", "kind": kind, "devices": devices, "containerEdits": common}
    (directory / name).write_text(json.dumps(document))


def device(name, **edits):
    return {"name": name, "containerEdits": edits}


def test_edits(tmp_path):
    hook = {"hookName": "createContainer", "path": "/bin/true", "args": ["true", "x"]}
    write(
        tmp_path / "a", "v.json",
        [device("one", deviceNodes=[NULL], additionalGids=[44]), device("two", env=["B=2"])],
        env=["A=new"],
        mounts=[{"hostPath": "/lib/x", "containerPath": "/usr/x", "options": ["ro", "nosuid"]}],
        hooks=[hook],
    )  # fmt: skip
    built = spec()
    names = ["vendor.com/class=one", "vendor.com/class=two"]
    assert cdi.inject(built, names, [str(tmp_path / "a")]) == ["44"]
    assert built["process"]["env"] == ["PATH=/bin", "A=new", "B=2"]
    [node] = built["linux"]["devices"]
    assert (node["path"], node["type"], node["major"], node["minor"]) == ("/dev/made-up", "c", 1, 3)
    assert built["linux"]["resources"]["devices"] == [
        {"allow": True, "type": "c", "major": 1, "minor": 3, "access": "rwm"}
    ]
    assert built["mounts"] == [
        {
            "destination": "/usr/x",
            "source": "/lib/x",
            "type": "bind",
            "options": ["ro", "nosuid", "rbind"],
        }
    ]
    assert built["hooks"] == {"createContainer": [{"path": "/bin/true", "args": ["true", "x"]}]}


def test_yaml(tmp_path):
    (tmp_path / "v.yaml").write_text(
        "cdiVersion: 0.6.0\nkind: vendor.com/class\ndevices:\n- name: one\n  containerEdits:\n"
        "    env: [B=2]\n    deviceNodes:\n    - path: /dev/made-up\n      hostPath: /dev/null\n"
    )
    (tmp_path / "broken.yml").write_text("a: [")
    built = spec()
    cdi.inject(built, ["vendor.com/class=one"], [str(tmp_path)])
    assert built["process"]["env"][-1] == "B=2"
    assert built["linux"]["devices"][0]["minor"] == 3


def test_the_later_directory_wins_and_what_two_files_claim_is_nobodys(tmp_path):
    write(tmp_path / "a", "v.json", [device("x", env=["FROM=a"]), device("y", env=["Y=a"])])
    write(tmp_path / "b", "v.json", [device("x", env=["FROM=b"]), device("z", env=["Z=1"])])
    write(tmp_path / "b", "w.json", [device("z", env=["Z=2"])])
    (tmp_path / "b" / "broken.json").write_text("{")
    directories = [str(tmp_path / "a"), str(tmp_path / "b"), str(tmp_path / "none")]
    known = cdi.devices(directories)
    assert sorted(known) == ["vendor.com/class=x", "vendor.com/class=y"]
    assert known["vendor.com/class=x"][2] == {"env": ["FROM=b"]}


def test_unknown_ones(tmp_path):
    with pytest.raises(Internal, match=r"unresolvable CDI devices a\.b/c=d, e"):
        cdi.inject(spec(), ["a.b/c=d", "e"], [str(tmp_path)])


def test_a_node_that_the_host_has_not(tmp_path):
    write(tmp_path / "a", "v.json", [device("x", deviceNodes=[{"path": "/dev/not-there"}])])
    with pytest.raises(Internal, match="failed to stat CDI host device '/dev/not-there'"):
        cdi.inject(spec(), ["vendor.com/class=x"], [str(tmp_path / "a")])
