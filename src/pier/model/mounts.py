"""A container's mounts as they were settled when it was made.

`HostConfig` keeps what the user wrote; this is what it came to: names of volumes that did not have
one, what another container's `--volumes-from` brought, the image's own volumes.
"""

from typing import Literal

from msgspec import Struct

DEFAULT_PROPAGATION = "rprivate"


class MountRecord(Struct, omit_defaults=True):
    """`Source` is a host's path (bind), a volume's mount point, or an image as it was named.

    `Mode`, `RW` and `Propagation` are as inspect shows them. `options` are a tmpfs's, merged with
    Docker's defaults; `subpath` is relative, within a volume or image; `layers` are an image
    mount's chain IDs, lowest first, `image` its ID. `create`: a bind's source that is missing is made, as a
    directory, at start. `anonymous`: the volume goes with the container when that is wished.
    `idmap`: "UID:GID", who the source's owner is inside. `cow`: what is written goes to a layer of
    the container's own over the source.
    `copies`: the volume is filled from the image while it is empty. `is_declared`: it comes from
    `Config.Volumes`, or by `--volumes-from`. `is_shown` is whether inspect lists it, which a `--tmpfs` is not.
    """

    Type: Literal["bind", "volume", "tmpfs", "image"]
    Destination: str
    Source: str = ""
    Name: str = ""
    Driver: str = ""
    Mode: str = ""
    RW: bool = True
    Propagation: str = ""
    recursive: bool = True
    readonly_recursive: bool = True
    create: bool = False
    copies: bool = False
    anonymous: bool = False
    is_declared: bool = False
    is_shown: bool = True
    subpath: str = ""
    idmap: str = ""
    cow: bool = False
    options: list[str] = []
    layers: list[str] = []
    image: str = ""
    labels: dict[str, str] = {}
    driver_options: dict[str, str] = {}
