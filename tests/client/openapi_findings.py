"""What tests/openapi_proxy.py may find, for dockerd does so as well."""

import re
from collections.abc import Iterable

# What dockerd 28.5 does and its document does not say, found by running this ring against it:
# nulls for Go's nil, by the end of their path, and statuses that are not listed.
NULLS = re.compile(
    r"GET /containers/.*(Aliases|DNSNames|Links|Entrypoint|Volumes|Binds|CapAdd|CapDrop|Cmd"
    r"|DeviceCgroupRules|DeviceRequests|ExtraHosts|GroupAdd|MemorySwappiness|SecurityOpt"
    r"|MaskedPaths|ReadonlyPaths|VolumesFrom|Env|io_\w+|sectors_recursive|Dns\w*|Devices|Ulimits|Blkio\w+): null instead of .*"
    r"|GET /info 200 \.(GenericResources|Warnings|Plugins\.Authorization|RegistryConfig\.Mirrors): null .*"
    r"|GET /system/df 200 \.(Containers.*(Aliases|DNSNames|Links)|Volumes.*Options): null .*"
    r"|GET /system/df 200 \.(BuildCache|Containers|Images|Volumes): null .*"  # of other types
    r"|GET /containers/\{id\}/changes 200 \.: null .*|POST /containers/\{id\}/update 200 \.Warnings: null .*"
    r"|GET /(images/json|system/df) 200 .*\.Labels: null .*"
    r"|GET /images/\{name\}/history 200 \[\]\.Tags: null .*"
    r"|GET /images/\{name\}/json 200 \.Config\.(Cmd|Entrypoint|Env|Labels|OnBuild|Volumes): null .*"
    r"|POST /images/prune 200 \.ImagesDeleted: null .*"
    r"|(GET|POST) /(networks|volumes).*: null instead of .*"
)
STATUSES = frozenset(
    f"{route}: this status is not in the document"
    for route in ("POST /exec/{id}/start 101", "POST /exec/{id}/start 500")
)
# A name that the document requires and describes nowhere; dockerd has it not.
UNDESCRIBED = frozenset({"GET /images/json 200 [].Manifests[].ImageData.UnpackedSize: missing"})
# What Pier does not offer yet, and says so.
NOT_OFFERED = re.compile(r".* 501: this status is not in the document")


def unexcused(problems: Iterable[str]) -> list[str]:
    """Return what is left of the proxy's findings, in order."""
    left = set(problems) - STATUSES - UNDESCRIBED
    return [p for p in sorted(left) if not NULLS.fullmatch(p) and not NOT_OFFERED.fullmatch(p)]
