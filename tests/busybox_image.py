"""Images that the tests make for themselves, since they reach no registry.

A small root file system around Debian's busybox-static, as the tar that `import` takes, as a
docker-archive (what `docker save` wrote before 25) and as an OCI image layout.
"""

import gzip
import hashlib
import io
import json
import shutil
import subprocess
import tarfile
from collections.abc import Iterable, Mapping
from typing import Any

NAME = "pier-test/busybox:latest"
PASSWD = "root:x:0:0:root:/root:/bin/sh\ndaemon:x:1:1::/:/bin/false\nalice:x:1000:1000::/home/alice:/bin/sh\n"
GROUP = "root:x:0:\ndaemon:x:1:\nalice:x:1000:\nwheel:x:10:alice\nstaff:x:50:alice,bob\n"


def root_tar() -> bytes:
    """Return the tar of a root file system: busybox with all its applets, users, a sticky /tmp."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, mode in (
            *((d, 0o755) for d in ("bin", "dev", "etc", "home", "home/alice", "proc", "root")),
            *((d, 0o755) for d in ("sbin", "sys", "usr", "usr/bin", "usr/sbin", "var")),
            ("tmp", 0o1777),
        ):
            _add(tar, name, kind=tarfile.DIRTYPE, mode=mode, owner=1000 if "alice" in name else 0)
        busybox = shutil.which("busybox")
        assert busybox, "busybox-static is not installed"
        with open(busybox, "rb") as file:
            _add(tar, "bin/busybox", file.read(), mode=0o755)
        listed = subprocess.run([busybox, "--list"], check=True, capture_output=True, text=True)
        for applet in sorted(set(listed.stdout.split()) - {"busybox"}):
            _add(tar, f"bin/{applet}", kind=tarfile.SYMTYPE, target="busybox")
        _add(tar, "etc/passwd", PASSWD.encode())
        _add(tar, "etc/group", GROUP.encode())
    return buffer.getvalue()


def layer_tar(files: Mapping[str, bytes]) -> bytes:
    """Return the tar of a layer that holds `files`; a value of b"" makes an empty file."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, content in files.items():
            _add(tar, name, content)
    return buffer.getvalue()


def docker_archive(
    name: str, layers: Iterable[bytes], config: Mapping[str, Any] | None = None
) -> bytes:
    """Return a docker-archive of uncompressed layer tars, lowest first.

    `config` is the image's `config` object: Cmd, Env, User and so on.
    """
    tars = list(layers)
    diff_ids = ["sha256:" + hashlib.sha256(tar).hexdigest() for tar in tars]
    image = json.dumps(_image_config(diff_ids, config)).encode()
    image_name = hashlib.sha256(image).hexdigest() + ".json"
    paths = [diff_id.removeprefix("sha256:") + "/layer.tar" for diff_id in diff_ids]
    manifest = [{"Config": image_name, "RepoTags": [name], "Layers": paths}]
    members = dict(zip(paths, tars, strict=True))
    members[image_name] = image
    members["manifest.json"] = json.dumps(manifest).encode()
    return layer_tar(members)


def oci_layout(
    name: str, layers: Iterable[bytes], config: Mapping[str, Any] | None = None
) -> bytes:
    """Return the tar of an OCI image layout (image-layout.md) whose layers are gzip'ed."""
    blobs: dict[str, bytes] = {}

    def descriptor(media_type: str, content: bytes, **more: Any) -> dict[str, Any]:
        hex_digest = hashlib.sha256(content).hexdigest()
        blobs[f"blobs/sha256/{hex_digest}"] = content
        kind = f"application/vnd.oci.image.{media_type}"
        return {"mediaType": kind, "digest": f"sha256:{hex_digest}", "size": len(content), **more}

    tars = list(layers)
    diff_ids = ["sha256:" + hashlib.sha256(tar).hexdigest() for tar in tars]
    image = json.dumps(_image_config(diff_ids, config)).encode()
    manifest = {
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": descriptor("config.v1+json", image),
        "layers": [descriptor("layer.v1.tar+gzip", gzip.compress(tar, 1)) for tar in tars],
    }
    names = {
        "io.containerd.image.name": f"docker.io/{name}",
        "org.opencontainers.image.ref.name": name.partition(":")[2] or "latest",
    }
    index = {
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.index.v1+json",
        "manifests": [
            descriptor("manifest.v1+json", json.dumps(manifest).encode(), annotations=names)
        ],
    }
    blobs["oci-layout"] = b'{"imageLayoutVersion":"1.0.0"}'
    blobs["index.json"] = json.dumps(index).encode()
    return layer_tar(blobs)


def _image_config(diff_ids: list[str], config: Mapping[str, Any] | None) -> dict[str, Any]:
    machine = subprocess.run(
        ["dpkg", "--print-architecture"], check=True, capture_output=True, text=True
    ).stdout.strip()
    return {
        "architecture": machine,
        "os": "linux",
        "created": "2024-01-02T03:04:05Z",
        "config": {"Env": ["PATH=/bin:/sbin:/usr/bin:/usr/sbin"], "Cmd": ["sh"], **(config or {})},
        "rootfs": {"type": "layers", "diff_ids": diff_ids},
        "history": [{"created": "2024-01-02T03:04:05Z", "created_by": "test"} for _ in diff_ids],
    }


def _add(
    tar: tarfile.TarFile,
    name: str,
    content: bytes = b"",
    *,
    kind: bytes = tarfile.REGTYPE,
    mode: int = 0o644,
    target: str = "",
    owner: int = 0,
) -> None:
    member = tarfile.TarInfo(name)
    member.type, member.mode, member.linkname = kind, mode, target
    member.uid = member.gid = owner
    member.size = len(content)
    member.mtime = 1_700_000_000
    tar.addfile(member, io.BytesIO(content))
