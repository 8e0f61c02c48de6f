import pytest

from pier.api import containers, execs, images, refused, system
from pier.api.router import Router
from pier.errors import InvalidParameter, NotFound

NEWEST = (1, 55)
router = Router(system.ROUTES, containers.ROUTES, execs.ROUTES, images.ROUTES, refused.ROUTES)


@pytest.mark.parametrize(
    ("method", "path", "handler", "version", "name"),
    [
        ("GET", "/_ping", system.ping, NEWEST, ""),
        ("HEAD", "/_ping", system.ping, NEWEST, ""),
        ("GET", "/v1.24/version", system.version, (1, 24), ""),
        ("GET", "/containers/json", containers.list_, NEWEST, ""),
        ("GET", "/v1.41/containers/web/json", containers.inspect, (1, 41), "web"),
        ("DELETE", "/containers/web", containers.remove, NEWEST, "web"),
        ("POST", "/exec/abc/start", execs.start, NEWEST, "abc"),
        ("GET", "/images/json", images.list_, NEWEST, ""),
        ("GET", "/images/reg.io:5000/a/b:1/json", images.inspect, NEWEST, "reg.io:5000/a/b:1"),
        ("GET", "/images/a%2Fb/json", images.inspect, NEWEST, "a/b"),
        ("DELETE", "/v1.51/images/a/b", images.remove, (1, 51), "a/b"),
        ("DELETE", "/images/json", images.remove, NEWEST, "json"),
        ("POST", "/images/a/b/tag", images.tag, NEWEST, "a/b"),
        # An image may be called as a version prefix is.
        ("GET", "/images/v1.51/json", images.inspect, NEWEST, "v1.51"),
    ],
)
def test_routes(method, path, handler, version, name):
    assert router.find(method, path) == (handler, version, name)


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/"),
        ("GET", "/v1.51"),
        ("GET", "/nothing"),
        ("POST", "/_ping"),
        ("GET", "/containers"),
        ("GET", "/containers/"),
        ("GET", "/containers/web"),
        ("GET", "/containers/web/nothing"),
        ("GET", "/containers//json"),
        ("GET", "/vx.y/version"),
        ("GET", "/networks"),
        ("GET", "/volumes"),
    ],
)
def test_other_paths_are_not_found(method, path):
    with pytest.raises(NotFound, match=r"^page not found$"):
        router.find(method, path)


def test_old_and_new_clients_are_told():
    with pytest.raises(InvalidParameter) as caught:
        router.find("GET", "/v1.23/version")
    assert caught.value.message == (
        "client version 1.23 is too old. Minimum supported API version is 1.24, "
        "please upgrade your client to a newer version"
    )
    with pytest.raises(InvalidParameter) as caught:
        router.find("GET", "/v1.99/version")
    assert caught.value.message == (
        "client version 1.99 is too new. Maximum supported API version is 1.55"
    )
