import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pier.api.body import convert, without_nulls
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
