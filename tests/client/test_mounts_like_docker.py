"""What dockerd makes of the same mounts: what the container sees, what inspect shows, what is said.

dockerd comes out of a root file system that PIER_PEERS_ROOT names. DIR is a directory of the host's,
VOL a volume, IMAGE the image of both.
"""

import json
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from busybox_image import docker_archive, layer_tar, root_tar
from engine_process import Client

sys.path.insert(0, os.path.join(os.path.dirname(__file__), "..", "..", "bench"))

IMAGE = "like/mounts:latest"
LOOK = (
    "grep ' /m' /proc/self/mountinfo; for f in /m /m/* /m/*/*; do stat -c '%n %F %a %u:%g' $f; done;"
    " echo x > /m/new && echo written; cat /m/file /m/sub/file 2>&1"
)

RUN = {
    "bind": "-v DIR:/m",
    "ro": "-v DIR:/m:ro",
    "rw": "-v DIR:/m:rw",
    "z": "-v DIR:/m:z",
    "Z,ro": "-v DIR:/m:Z,ro",
    "file": "-v DIR/file:/m",
    "missing source": "-v DIR/made/here:/m",
    "cached": "-v DIR:/m:cached",
    "private": "-v DIR:/m:private",
    "rprivate": "-v DIR:/m:rprivate",
    "slave": "-v DIR:/m:slave",
    "rslave": "-v DIR:/m:rslave",
    "shared": "-v DIR:/m:shared",
    "rshared": "-v DIR:/m:rshared",
    "two propagations": "-v DIR:/m:shared,slave",
    "bad mode": "-v DIR:/m:wrong",
    "ro and rw": "-v DIR:/m:ro,rw",
    "nocopy of a bind": "-v DIR:/m:nocopy",
    "relative destination": "-v DIR:m",
    "root": "-v DIR:/",
    "twice": "-v DIR:/m -v DIR/sub:/m",
    "below another": "-v DIR:/m -v DIR/sub:/m/deeper",
    "mount": "--mount type=bind,src=DIR,dst=/m",
    "mount ro": "--mount type=bind,src=DIR,dst=/m,readonly",
    "mount missing": "--mount type=bind,src=DIR/missing,dst=/m",
    "mount propagation": "--mount type=bind,src=DIR,dst=/m,bind-propagation=rslave",
    "mount bad propagation": "--mount type=bind,src=DIR,dst=/m,bind-propagation=wrong",
    "mount not recursive": "--mount type=bind,src=DIR,dst=/m,bind-recursive=disabled",
    "mount writable": "--mount type=bind,src=DIR,dst=/m,ro,bind-recursive=writable",
    "mount readonly": "--mount type=bind,src=DIR,dst=/m,ro,bind-recursive=readonly,bind-propagation=rprivate",
    "mount relative": "--mount type=bind,src=DIR,dst=m",
    "volume": "-v VOL:/m",
    "volume ro": "-v VOL:/m:ro",
    "volume nocopy": "-v VOL2:/m:nocopy",
    "volume z": "-v VOL:/m:z",
    "volume shared": "-v VOL:/m:shared",
    "anonymous": "-v /m",
    "bad name": "-v a/b:/m",
    "mount volume": "--mount type=volume,src=VOL,dst=/m",
    "mount nocopy": "--mount type=volume,src=VOL3,dst=/m,volume-nocopy",
    "mount label": "--mount type=volume,src=VOL4,dst=/m,volume-label=a=b",
    "mount options": "--mount type=volume,src=VOL5,dst=/m,volume-opt=type=tmpfs,volume-opt=device=tmpfs,volume-opt=o=size=1m",
    "mount bad driver": "--mount type=volume,src=VOL6,dst=/m,volume-driver=missing",
    "subpath": "--mount type=volume,src=VOL,dst=/m,volume-subpath=sub",
    "subpath missing": "--mount type=volume,src=VOL,dst=/m,volume-subpath=missing",
    "subpath out": "--mount type=volume,src=VOL,dst=/m,volume-subpath=../x",
    "subpath absolute": "--mount type=volume,src=VOL,dst=/m,volume-subpath=/x",
    "subpath anonymous": "--mount type=volume,dst=/m,volume-subpath=x",
    "anonymous ro": "--mount type=volume,dst=/m,ro",
    "tmpfs": "--tmpfs /m",
    "tmpfs options": "--tmpfs /m:size=1m,mode=700,exec,uid=5",
    "tmpfs ro": "--tmpfs /m:ro",
    "tmpfs bad value": "--tmpfs /m:size=x",
    "mount tmpfs": "--mount type=tmpfs,dst=/m,tmpfs-size=65536,tmpfs-mode=1700",
    "mount tmpfs source": "--mount type=tmpfs,src=x,dst=/m",
    "image": "--mount type=image,src=IMAGE,dst=/m",
    "image subpath": "--mount type=image,src=IMAGE,dst=/m,image-subpath=m",
    "image subpath missing": "--mount type=image,src=IMAGE,dst=/m,image-subpath=none",
    "image missing": "--mount type=image,src=nothing/here,dst=/m",
    "no type": "--mount type=wrong,src=x,dst=/m",
    "cluster": "--mount type=cluster,src=x,dst=/m",
    "no target": "--mount type=bind,src=DIR",
    "over a file": "-v DIR:/etc/passwd",
    "masked": "-v DIR:/proc/m",
    "proc": "-v DIR:/proc",
    "sys": "-v DIR/file:/sys/kernel/m",
    "read-only root": "--read-only -v VOL:/m --tmpfs /t",
    "volumes-from": "--volumes-from GIVER",
    "volumes-from ro": "--volumes-from GIVER:ro",
    "volumes-from bad": "--volumes-from GIVER:wrong",
    "volumes-from missing": "--volumes-from nobody",
}


@pytest.fixture(scope="module")
def sides(engine: Any) -> Iterator[dict[str, Client]]:
    root = os.environ.get("PIER_PEERS_ROOT")
    if not root or not os.path.exists(f"{root}/usr/sbin/dockerd"):
        pytest.skip("PIER_PEERS_ROOT names no root with dockerd in it")
    from dockerd import Dockerd

    content = layer_tar({"m/file": b"image\n", "m/sub/file": b"image's\n"})
    with Dockerd(root, "--bridge=none", "--iptables=false", "--ip6tables=false") as peer:
        theirs = Client("docker", {**engine.env, "DOCKER_HOST": peer.host})
        for client in (engine.docker, theirs):
            client.raw("load", stdin=docker_archive(IMAGE, [root_tar(), content]))
        yield {"pier": engine.docker, "dockerd": theirs}
        engine.docker("volume", "prune", "-af")
        engine.docker("rmi", IMAGE)


@pytest.fixture
def tree() -> Iterator[Path]:
    """Below /tmp, which both engines see at the same path."""
    tree = Path(tempfile.mkdtemp(prefix="pier-like-", dir="/tmp"))
    (tree / "sub").mkdir(mode=0o750)
    (tree / "file").write_text("host\n")
    (tree / "sub" / "file").write_text("host's\n")
    yield tree
    shutil.rmtree(tree)


def observed(client: Client, words: list[str]) -> dict[str, Any]:
    """What comes of `docker run`, and what inspect says of the same container, with what differs
    from engine to engine made alike.
    """
    words = ["--network", "none", "--security-opt", "label=disable", *words]
    done = client("run", "--rm", *words, IMAGE, "sh", "-c", LOOK, check=False)
    lines = [_plain(line) for line in done.stdout.splitlines()]
    made = client("create", *words, IMAGE, "true", check=False)
    mounts: list[dict[str, Any]] = []
    if made.returncode == 0:
        name = made.stdout.split()[-1]
        shown = client("inspect", "-f", "{{json .Mounts}}", name).stdout
        mounts = sorted(json.loads(shown), key=lambda mount: str(mount["Destination"]))
        client("rm", "-v", name)
    for mount in mounts:
        for key in ("Source", "Name"):
            if mount["Type"] == "volume" and len(mount.get("Name", "")) == 64:
                mount[key] = f"some {key}"
            elif mount["Type"] == "volume" and key == "Source":
                mount[key] = "/".join(mount[key].split("/")[-2:])
            elif mount["Type"] == "image" and key == "Source":
                mount[key] = "image"  # dockerd shows where it has it mounted
    return {
        "exit code": done.returncode,
        "stdout": lines,
        "stderr": _error(done.stderr),
        "created": made.returncode,
        "create says": _error(made.stderr),
        "mounts": mounts,
    }


def _plain(line: str) -> str:
    fields = line.split(" ")
    if "-" not in fields[6:]:
        return line
    separator = fields.index("-", 6)
    # dockerd shares its data root with itself, for plugins: its volumes always have a master.
    tags = sorted({tag.split(":")[0] for tag in fields[6:separator]} - {"master"})
    options = sorted(o for o in fields[5].split(",") if o not in ("relatime", "discard"))
    return f"{fields[4]} {','.join(options)} {tags} {fields[separator + 1] == 'tmpfs'}"


def _error(text: str) -> str:
    text = re.sub(r"[0-9a-f]{64}", "ID", text)
    text = re.sub(r"is mounted on \S+", "is mounted on PLACE", text)
    text = re.sub(r"/\S*/volumes/", "VOLUMES/", text)
    text = re.sub(
        r"path \S+/merged/(\S+): lstat \S+/merged/", rf"path {IMAGE}/\1: lstat {IMAGE}/", text
    )
    text = re.sub(r'Get "https:.*', "no registry", text)
    # runc names its own steps.
    text = re.sub(
        r'(error during container init: error mounting "\S+" to rootfs at "\S+"): .*?'
        r"(: Are you trying.*)?$",
        r"\1\2",
        text,
        flags=re.DOTALL,
    )
    return text.split("\n\nRun 'docker")[0].strip()


@pytest.mark.parametrize("case", RUN)
def test_same(sides: dict[str, Client], tree: Path, case: str) -> None:
    found = {}
    for name, client in sides.items():
        giver = client("create", "-v", "given:/m", IMAGE, "true").stdout.strip()
        for path in ("new", "sub/new"):
            (tree / path).unlink(missing_ok=True)
        shutil.rmtree(tree / "made", ignore_errors=True)
        text = re.sub(r"\bVOL", "volume-", RUN[case]).replace("IMAGE", IMAGE)
        words = text.replace("DIR", str(tree)).replace("GIVER", giver).split()
        found[name] = observed(client, words)
        client("rm", giver)
    assert found["pier"] == found["dockerd"]
