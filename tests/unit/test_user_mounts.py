"""Binds that hold what the engine itself mounts and keeps."""

import pytest

from pier.engine.user_mounts import parse_bind, settle_propagation
from pier.errors import InvalidParameter


@pytest.mark.parametrize(
    ("bind", "propagation"),
    [
        ("/:/host:ro", "rslave"),
        ("/var:/x", "rslave"),
        ("/var/lib/pier/volumes:/x", "rslave"),
        ("/var:/x:rshared", "rshared"),
        ("/var/lib/pierced:/x", "rprivate"),
        ("/srv:/x:slave", "slave"),
    ],
)
def test_propagation_that_nobody_chose(bind, propagation):
    mount = parse_bind(bind)
    settle_propagation(mount, "/var/lib/pier")
    assert mount.Propagation == propagation


@pytest.mark.parametrize("mode", ["private", "rprivate", "slave", "shared"])
def test_propagation_that_would_hold_the_engines_mounts(mode):
    with pytest.raises(InvalidParameter, match='must use either propagation mode "rslave"'):
        settle_propagation(parse_bind(f"/:/host:{mode}"), "/var/lib/pier")
