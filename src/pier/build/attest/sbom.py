"""A bill of materials: what is installed in an image, as an SPDX 2.3 document (spdx.github.io/spdx-spec)."""

import hashlib
import re
from typing import Any

from pier import __version__
from pier.build.attest.packages.package import Package, purl
from pier.build.attest.scan import Scanned, scan
from pier.build.attest.statement import Predicate
from pier.build.result import BuildResult, PlatformResult
from pier.images.store import ImageStore
from pier.model.gotime import format_ns

SPDX = "https://spdx.dev/Document"
FILE = "sbom.spdx.json"

_NOTHING = "NOASSERTION"
_ROOT = "SPDXRef-DocumentRoot-Image"
_DOCUMENT = "SPDXRef-DOCUMENT"
# One license of SPDX's list, or several joined: anything else is told as a comment.
_EXPRESSION = re.compile(
    r"\(?[A-Za-z0-9.+-]+\)?(?: (?:AND|OR|WITH) \(?[A-Za-z0-9.+-]+\)?)*", re.ASCII
)


def sbom(store: ImageStore, one: PlatformResult, result: BuildResult) -> Predicate:
    """Say what one platform's image holds. Blocking. Raises OSError."""
    chain = one.image.chain_ids if one.image else ()
    layers = [store.root.join(store.layers.path(chain_id)) for chain_id in reversed(chain)]
    created = result.ended if result.epoch is None else result.epoch * 1_000_000_000
    name = one.image.id if one.image else "scratch"
    return Predicate(SPDX, document(scan(layers), name, created // 10**9 * 10**9), FILE)


def document(scanned: Scanned, name: str, created: int) -> dict[str, Any]:
    """Return the document; `created` is in ns since the epoch. The same input gives the same."""
    distribution = scanned.distribution
    packages = [
        {
            "name": name,
            "SPDXID": _ROOT,
            "downloadLocation": _NOTHING,
            "filesAnalyzed": False,
            "licenseConcluded": _NOTHING,
            "licenseDeclared": _NOTHING,
            "copyrightText": _NOTHING,
            "primaryPackagePurpose": "CONTAINER",
        }
    ]
    relations = [_relation(_DOCUMENT, "DESCRIBES", _ROOT)]
    if distribution.id:
        identity = "SPDXRef-OperatingSystem"
        packages.append(
            {
                "name": distribution.id,
                "SPDXID": identity,
                "versionInfo": distribution.version or _NOTHING,
                "downloadLocation": _NOTHING,
                "filesAnalyzed": False,
                "licenseConcluded": _NOTHING,
                "licenseDeclared": _NOTHING,
                "copyrightText": _NOTHING,
                "description": distribution.name,
                "primaryPackagePurpose": "OPERATING-SYSTEM",
            }
        )
        relations.append(_relation(_ROOT, "CONTAINS", identity))
    for package in scanned.packages:
        reference = purl(package, distribution)
        identity = f"SPDXRef-Package-{package.kind}-{_digest(reference)}"
        packages.append(_package(package, identity, reference))
        relations.append(_relation(_ROOT, "CONTAINS", identity))
    return {
        "spdxVersion": "SPDX-2.3",
        "dataLicense": "CC0-1.0",
        "SPDXID": _DOCUMENT,
        "name": name,
        "documentNamespace": f"urn:pier:sbom:{_digest(name)}-{created}",
        "creationInfo": {
            "created": format_ns(created),
            "creators": ["Organization: Pier", f"Tool: pier-{__version__}"],
        },
        "packages": packages,
        "relationships": relations,
    }


def _package(package: Package, identity: str, reference: str) -> dict[str, Any]:
    is_expression = _EXPRESSION.fullmatch(package.license) is not None
    found: dict[str, Any] = {
        "name": package.name,
        "SPDXID": identity,
        "versionInfo": package.version,
        "supplier": f"Organization: {package.supplier}" if package.supplier else _NOTHING,
        "downloadLocation": _NOTHING,
        "filesAnalyzed": False,
        "sourceInfo": f"acquired package info from /{package.found_in}",
        "licenseConcluded": _NOTHING,
        "licenseDeclared": package.license if is_expression else _NOTHING,
        "copyrightText": _NOTHING,
        "externalRefs": [
            {
                "referenceCategory": "PACKAGE-MANAGER",
                "referenceType": "purl",
                "referenceLocator": reference,
            }
        ],
    }
    if package.license and not is_expression:
        found["licenseComments"] = package.license
    if "://" in package.homepage:
        found["homepage"] = package.homepage
    return found


def _relation(element: str, kind: str, other: str) -> dict[str, str]:
    return {"spdxElementId": element, "relationshipType": kind, "relatedSpdxElement": other}


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]
