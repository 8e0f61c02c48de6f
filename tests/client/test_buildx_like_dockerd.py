"""The layouts of outputs, beside those that buildx gets of dockerd with containerd's image store.

dockerd comes out of a root file system that PIER_PEERS_ROOT names.
"""

import os
import re
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from export_builds import Layout
from test_docker_buildx import Context, buildx, context, plugins

from busybox_image import NAME, docker_archive, root_tar
from engine_process import Client

sys.path.insert(0, os.path.join(os.path.dirname(__file__), "..", "..", "bench"))

__all__ = ["buildx", "context", "plugins"]

TEXT = 'FROM BASE\nARG A=1\nRUN echo $A > /a\nCOPY f /d/f\nCMD ["cat", "/a"]\n'
_TIME = re.compile(r"\d{4}-\d\d-\d\dT[\d:.]+Z")
_DIGEST = re.compile(r"(sha256:)?[0-9a-f]{64}")


@pytest.fixture(scope="module")
def dockerd(plugins: Path) -> Iterator[dict[str, str]]:
    """The environment of a client of dockerd's."""
    root = os.environ.get("PIER_PEERS_ROOT")
    if not root or not os.path.exists(f"{root}/usr/sbin/dockerd"):
        pytest.skip("PIER_PEERS_ROOT names no root with dockerd in it")
    from dockerd import Dockerd

    flags = ("--bridge=none", "--iptables=false", "--ip6tables=false")
    with Dockerd(root, *flags, "--feature", "containerd-snapshotter=true") as peer:
        environment = {k: v for k, v in os.environ.items() if k != "DOCKER_BUILDKIT"}
        environment |= {"DOCKER_HOST": peer.host, "DOCKER_CONFIG": str(plugins)}
        Client("docker", environment).raw("load", stdin=docker_archive(NAME, [root_tar()]))
        yield environment


def shape(value: Any) -> Any:
    """What is left of a document when digests, sizes, times and IDs are taken for equal."""
    if isinstance(value, dict):
        return {
            key: "…" if key in ("size", "buildInvocationID", "invocationId") else shape(inner)
            for key, inner in value.items()
        }
    if isinstance(value, list):
        return [shape(inner) for inner in value]
    if isinstance(value, str):
        return _DIGEST.sub("DIGEST", _TIME.sub("TIME", value))
    return value


def documents(layout: Layout) -> list[Any]:
    """All documents of a layout but configs of images, whose histories are each builder's own."""
    found: list[Any] = [shape(layout.index)]
    below = [layout.top]
    while below:
        descriptor = below.pop(0)
        tree = layout.json(descriptor)
        found.append(shape(tree))
        below += tree.get("manifests", [])
        if "unknown" in str(descriptor.get("platform", "")):
            found.append(shape(layout.json(tree["config"])))
            found += [shape(layout.json(layer)) for layer in tree["layers"]]
    return found


@pytest.mark.parametrize(
    ("flags", "output"),
    [
        (("--provenance=mode=min", "-t", "localhost:5000/x/y:1"), "type=oci"),
        (("--provenance=mode=min,version=v1", "-t", "x"), "type=oci"),
        (("--provenance=false",), "type=oci,compression=zstd"),
        (("--provenance=false", "-t", "x:1"), "type=oci,annotation.k=v,oci-mediatypes=true"),
        (("--provenance=false", "--build-arg", "SOURCE_DATE_EPOCH=1000"), "type=oci"),
        (("--provenance=mode=min,inline-only=false", "--annotation", "index:i=1"), "type=oci"),
        (("-t", "a:1", "-t", "b:2"), "type=oci"),
    ],
)
def test_same_layout(
    context: Context,
    dockerd: dict[str, str],
    tmp_path: Path,
    flags: tuple[str, ...],
    output: str,
) -> None:
    context.file("f", "content\n")
    found = []
    for number, environment in enumerate((context.buildx.env, dockerd)):
        context.buildx = Client(context.buildx.command, {**context.buildx.env, **environment})
        archive = tmp_path / f"{number}.tar"
        # The base was loaded as a plain tar, which containerd keeps so and Pier does not.
        order = f"{output},force-compression=true,dest={archive}"
        context.build(TEXT, "--network", "none", *flags, "-o", order)
        found.append(documents(Layout(archive.read_bytes())))
    ours, theirs = found
    for one, other in zip(ours, theirs, strict=True):
        for key in {*one, *other}:
            assert one.get(key) == other.get(key), key


def test_same_files(
    context: Context,
    dockerd: dict[str, str],
    tmp_path: Path,
) -> None:
    context.file("f", "content\n")
    text = "FROM BASE AS one\nRUN echo 1 > /a\nFROM scratch\nCOPY --from=one /a /bin /x/\n"
    found = []
    for number, environment in enumerate((context.buildx.env, dockerd)):
        context.buildx = Client(context.buildx.command, {**context.buildx.env, **environment})
        archive = tmp_path / f"{number}.tar"
        context.build(text, "--network", "none", "-o", f"type=tar,dest={archive}")
        with tarfile.open(archive) as tar:
            found.append({m.name.strip("/"): (m.type, m.mode, m.linkname, m.size) for m in tar})
    assert found[0] == found[1]
