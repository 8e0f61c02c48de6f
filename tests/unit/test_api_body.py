import asyncio
import json
from typing import ClassVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pier.api.body import convert, read_json, without_nulls
from pier.api.containers import _create_request
from pier.errors import InvalidParameter
from pier.model.container import CreateRequest

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=10,
)


def has_nulls(value):
    if isinstance(value, dict):
        return any(item is None or has_nulls(item) for item in value.values())
    return isinstance(value, list) and any(
        has_nulls(item) for item in value if isinstance(item, dict)
    )


@given(st.dictionaries(st.text(), json_values, max_size=4))
def test_no_object_keeps_a_null(value):
    assert not has_nulls(without_nulls(value))


def test_nulls_are_as_not_given():
    body = json.loads(
        """{"Image": "a", "Cmd": null, "Env": null, "Labels": null, "Volumes": {"/x": null},
            "HostConfig": {"Binds": null, "LogConfig": {"Type": "", "Config": null},
                           "PortBindings": {"80/tcp": null}, "ConsoleSize": [0, 0]},
            "NetworkingConfig": {"EndpointsConfig": {"n": null}}}"""
    )
    request = _create_request(without_nulls(body))
    assert request.Cmd is None
    assert request.Labels == {}
    assert list(request.Volumes or {}) == ["/x"]
    assert request.HostConfig.LogConfig.Config == {}
    assert request.HostConfig.PortBindings == {"80/tcp": None}
    assert list(request.NetworkingConfig.EndpointsConfig) == ["n"]


def test_unknown_fields_are_ignored():
    assert convert({"Image": "a", "Fancy": {"b": 1}}, CreateRequest).Image == "a"


def test_a_command_may_be_one_string():
    request = _create_request({"Image": "a", "Cmd": "echo hi", "Entrypoint": "sh"})
    assert (request.Cmd, request.Entrypoint) == (["echo hi"], ["sh"])


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (None, "invalid JSON: got EOF while reading request body"),
        ({}, "config cannot be empty in order to create a container"),
        ({"HostConfig": {}}, "config cannot be empty in order to create a container"),
        (
            {"Image": "a", "HostConfig": {"Memory": "1g"}},
            "invalid JSON: json: cannot unmarshal string into Go struct field .HostConfig.Memory of type int64",
        ),
        (
            {"Image": 1},
            "invalid JSON: json: cannot unmarshal number into Go struct field .Image of type string",
        ),
        (
            {"Image": "a", "Env": ["a=b", 1]},
            "invalid JSON: json: cannot unmarshal number into Go struct field .Env[1] of type string",
        ),
    ],
)
def test_wrong_bodies_are_refused(body, message):
    with pytest.raises(InvalidParameter) as caught:
        _create_request(body)
    assert caught.value.message == message


class _Request:
    """What `read_json` asks of a request."""

    headers: ClassVar[dict[str, str]] = {"Content-Type": "application/json"}

    def __init__(self, body):
        self._parts = [body, b""]
        self.content = self

    def at_eof(self):
        return not self._parts[0]

    async def readany(self):
        return self._parts.pop(0)


# The words of Go's encoding/json, checked against it.
@pytest.mark.parametrize(
    ("body", "message"),
    [
        (
            b"{invalid",
            "invalid JSON: invalid character 'i' looking for beginning of object key string",
        ),
        (b'{"a" 1}', "invalid JSON: invalid character '1' after object key"),
        (b'{"a":1 "b"}', "invalid JSON: invalid character '\"' after object key:value pair"),
        (b'{"a":[1 2]}', "invalid JSON: invalid character '2' after array element"),
        (b'{"a":x}', "invalid JSON: invalid character 'x' looking for beginning of value"),
        (b'{"a":', "invalid JSON: unexpected EOF"),
        (b"{}trailing content", "unexpected content after JSON"),
    ],
)
def test_what_is_no_json_is_refused_in_gos_words(body, message):
    with pytest.raises(InvalidParameter) as caught:
        asyncio.run(read_json(_Request(body)))
    assert caught.value.message == message
