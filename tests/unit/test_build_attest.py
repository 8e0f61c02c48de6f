"""What attestations say: package databases, package URLs, SPDX, provenance."""

import base64
import contextlib
import json
import sqlite3
import struct
from collections.abc import Mapping

import pytest

from pier.build.attest.packages.apk import parse_installed
from pier.build.attest.packages.dpkg import parse_status
from pier.build.attest.packages.package import (
    Distribution,
    Package,
    normalized,
    parse_os_release,
    purl,
)
from pier.build.attest.packages.python import parse_metadata
from pier.build.attest.packages.rpm import parse_database, parse_header
from pier.build.attest.provenance import provenance, without_secrets
from pier.build.attest.sbom import document
from pier.build.attest.scan import Scanned
from pier.build.attest.statement import image_purl
from pier.build.result import BuildResult, Definition, Material, PlatformResult, StepTimes
from pier.errors import InvalidParameter
from pier.model.platform import Platform

AMD64 = Platform("amd64", "linux")


def test_dpkg() -> None:
    text = (
        "Package: libc6\nStatus: install ok installed\nSource: glibc (2.36-9)\n"
        "Architecture: amd64\nVersion: 2.36-9+deb12u10\nMaintainer: GNU <x@y>\n"
        "Description: library\n more of it\n\n"
        "Package: gone\nStatus: deinstall ok config-files\nVersion: 1\n\n"
        "Package: broken\nStatus: install ok installed\n\n"
    )
    (found,) = parse_status(text, "var/lib/dpkg/status")
    assert (found.name, found.version, found.source) == ("libc6", "2.36-9+deb12u10", "glibc")
    # An image without dpkg: a file a package, without a status.
    (alone,) = parse_status("Package: base-files\nVersion: 12\n", "var/lib/dpkg/status.d/base")
    assert alone.name == "base-files"


def test_apk() -> None:
    text = (
        "C:Q1x=\nP:musl\nV:1.2.5-r0\nA:x86_64\nL:MIT\no:musl\nF:lib\nR:ld-musl.so\nP:not\n\n"
        "P:only-a-name\n\n"
    )
    (found,) = parse_installed(text, "lib/apk/db/installed")
    assert (found.name, found.version, found.license) == ("musl", "1.2.5-r0", "MIT")


def test_python() -> None:
    text = "Metadata-Version: 2.1\nName: Zope.Interface\nVersion: 5.0\n\nName: no\n"
    (found,) = parse_metadata(text, "x")
    assert (found.name, found.version) == ("Zope.Interface", "5.0")
    assert not list(parse_metadata("Name: x\n", "x"))
    assert normalized("A._b--C") == "a-b-c"


def rpm_header(fields: Mapping[int, str | int]) -> bytes:
    entries, data = b"", b""
    for tag, value in fields.items():
        kind = 4 if isinstance(value, int) else 6
        entries += struct.pack(">IIII", tag, kind, len(data), 1)
        data += value.to_bytes(4, "big") if isinstance(value, int) else value.encode() + b"\0"
    return struct.pack(">II", len(fields), len(data)) + entries + data


def test_rpm() -> None:
    header = rpm_header({1000: "bash", 1001: "5.2", 1002: "1.fc40", 1003: 2, 1022: "x86_64"})
    with contextlib.closing(sqlite3.connect(":memory:")) as database:
        database.execute("CREATE TABLE Packages (hnum INTEGER, blob BLOB)")
        rows = [(1, header), (2, rpm_header({1000: "gpg-pubkey", 1001: "1"})), (3, b"short")]
        database.executemany("INSERT INTO Packages VALUES (?, ?)", rows)
        database.commit()
        data = database.serialize()
    (found,) = parse_database(data, "var/lib/rpm/rpmdb.sqlite")
    assert purl(found, Distribution("fedora", "40")) == (
        "pkg:rpm/fedora/bash@5.2-1.fc40?arch=x86_64&distro=fedora-40&epoch=2"
    )
    assert not list(parse_database(b"no database", "x"))


@pytest.mark.parametrize("cut", [0, 4, 8, 20, 40])
def test_rpm_headers_that_end_early(cut: int) -> None:
    parse_header(rpm_header({1000: "bash", 1001: "5"})[:cut])  # whatever it finds, it ends


@pytest.mark.parametrize(
    ("name", "platform", "expected"),
    [
        ("alpine", AMD64, "pkg:docker/alpine@latest?platform=linux%2Famd64"),
        ("a/b:1", None, "pkg:docker/a/b@1"),
        ("localhost:5000/x/y:1", None, "pkg:docker/localhost:5000/x/y@1"),
        (
            "x@sha256:" + "0" * 64,
            None,
            "pkg:docker/x?digest=sha256:" + "0" * 64,
        ),
    ],
)
def test_purls_of_images(name: str, platform: Platform | None, expected: str) -> None:
    assert image_purl(name, platform) == expected


def test_spdx() -> None:
    os_release = parse_os_release("# x\nID=debian\nVERSION_ID=\"13\"\nPRETTY_NAME='D 13'\n")
    packages = [
        Package("deb", "gcc-14-base", "14.2+1~x", "status", architecture="amd64", source="gcc-14"),
        Package("pypi", "A", "1", "m", license="MIT OR (Apache-2.0)", homepage="https://x.example"),
        Package("pypi", "B", "1", "m", license="see the file"),
    ]
    found = document(Scanned(os_release, packages), "sha256:1", 10**18)
    assert found == document(Scanned(os_release, packages), "sha256:1", 10**18)
    assert found["creationInfo"]["created"] == "2001-09-09T01:46:40Z"
    _, system, gcc, a, b = found["packages"]
    assert (system["name"], system["versionInfo"]) == ("debian", "13")
    assert gcc["externalRefs"][0]["referenceLocator"] == (
        "pkg:deb/debian/gcc-14-base@14.2+1~x?arch=amd64&distro=debian-13&upstream=gcc-14"
    )
    assert a["licenseDeclared"] == "MIT OR (Apache-2.0)"
    assert (b["licenseDeclared"], b["licenseComments"]) == ("NOASSERTION", "see the file")
    identities = [package["SPDXID"] for package in found["packages"]]
    assert len(set(identities)) == len(identities)
    related = {relation["relatedSpdxElement"] for relation in found["relationships"]}
    assert related == set(identities)


RESULT = BuildResult(
    [
        PlatformResult(
            AMD64,
            None,
            materials=[Material("pkg:docker/base@1", {"sha256": "ab"})],
            steps=[StepTimes("RUN make", 1, 2, True)],
        )
    ],
    definition=Definition(
        attributes={
            "build-arg:TOKEN": "private",
            "label:l": "v",
            "target": "t",
            "platform": "linux/amd64",
            "attest:sbom": "",
            "vcs:source": "https://me:pw@git.example/x",
        },
        source="FROM base\n",
        secrets=["npm"],
    ),
    started=10**18,
    ended=10**18 + 1,
)


def test_provenance_by_mode() -> None:
    least = provenance(RESULT, RESULT.platforms[0], {}, "id")
    text = json.dumps(least.body)
    assert least.type == "https://slsa.dev/provenance/v0.2"
    for private in ("private", "npm", "label:l", "pw", "RUN make", "FROM"):
        assert private not in text, private
    assert least.body["invocation"]["parameters"]["args"] == {"target": "t"}
    assert least.body["materials"] == [{"uri": "pkg:docker/base@1", "digest": {"sha256": "ab"}}]
    most = provenance(RESULT, RESULT.platforms[0], {"mode": "max", "version": "v1"}, "id")
    assert most.type == "https://slsa.dev/provenance/v1"
    definition = most.body["buildDefinition"]
    request = definition["externalParameters"]["request"]
    assert request["args"]["build-arg:TOKEN"] == "private"
    assert request["secrets"] == [{"id": "npm", "optional": True}]
    (step,) = definition["internalParameters"]["buildConfig"]["steps"]
    assert (step["name"], step["cached"]) == ("RUN make", True)
    (info,) = most.body["runDetails"]["metadata"]["buildkit_metadata"]["source"]["infos"]
    assert base64.b64decode(info["data"]) == b"FROM base\n"


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"mode": "much"}, 'invalid mode "much"'),
        ({"version": "v2"}, "invalid provenance SLSA version: v2"),
    ],
)
def test_provenance_refused(fields: Mapping[str, str], message: str) -> None:
    with pytest.raises(InvalidParameter, match=message):
        provenance(RESULT, RESULT.platforms[0], fields, "id")


def test_urls_lose_their_passwords() -> None:
    assert without_secrets("https://a:b@c.example/d") == "https://xxxxx:xxxxx@c.example/d"
    assert without_secrets("git@example:x") == "git@example:x"
