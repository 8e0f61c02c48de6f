"""docs/parity.md says what pierd serves: every route, and none that is not there."""

import re

from pier.api import (
    archive,
    containers,
    egress,
    execs,
    images,
    networks,
    plugins,
    refused,
    registries,
    snapshots,
    system,
    traces,
    volumes,
)

ROOT = __file__.rsplit("/tests/", 1)[0]


def promised() -> dict[str, str]:
    """Return the page's answer by route."""
    with open(f"{ROOT}/docs/parity.md") as page:
        rows = re.findall(r"^\| `([A-Z]+ /[^`]*)` \| (\w+) \|", page.read(), re.MULTILINE)
    return dict(rows)


def test_every_served_route_is_listed() -> None:
    served = {
        *system.ROUTES,
        *containers.ROUTES,
        *archive.ROUTES,
        *egress.ROUTES,
        *execs.ROUTES,
        *images.ROUTES,
        *networks.ROUTES,
        *plugins.ROUTES,
        *registries.ROUTES,
        *snapshots.ROUTES,
        *traces.ROUTES,
        *volumes.ROUTES,
    }
    assert {route for route, answer in promised().items() if answer == "yes"} == served


def test_every_refused_route_is_listed() -> None:
    listed = {route for route, answer in promised().items() if answer in ("later", "no")}
    assert listed == set(refused.ROUTES)
