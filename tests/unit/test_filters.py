import pytest

from pier.errors import InvalidParameter
from pier.model.filters import Filters

ACCEPTED = {"label", "label!", "name", "status", "dangling", "id"}


def filters(text):
    return Filters.parse(text, ACCEPTED)


@pytest.mark.parametrize("text", ["", "{}", '{"name":[]}', '{"name":{}}'])
def test_no_filters(text):
    assert not filters(text)
    assert filters(text).exact("name", "x")


def test_both_forms_mean_the_same():
    assert filters('{"name":["a","b"]}') == filters('{"name":{"a":true,"b":true}}')


@pytest.mark.parametrize("text", ["x", "[]", '{"name":"a"}', '{"name":[1]}', "null"])
def test_what_is_not_filters_is_refused(text):
    with pytest.raises(InvalidParameter, match=r"^invalid filter$"):
        filters(text)


def test_unknown_keys_are_refused():
    with pytest.raises(InvalidParameter, match=r"^invalid filter 'x'$"):
        filters('{"x":["1"]}')


@pytest.mark.parametrize(
    ("values", "result"),
    [('["1"]', True), ('["true"]', True), ('["0"]', False), ('["false"]', False)],
)
def test_flags(values, result):
    wanted = filters(f'{{"dangling":{values}}}')
    assert wanted.flag("dangling", default=not result) is result
    assert wanted.flag("name", default=result) is result


@pytest.mark.parametrize("values", ['["maybe"]', '["1","0"]'])
def test_flags_that_are_neither_or_both_are_refused(values):
    with pytest.raises(InvalidParameter, match=r"^invalid filter 'dangling=\["):
        filters(f'{{"dangling":{values}}}').flag("dangling", default=False)


@pytest.mark.parametrize(
    ("wanted", "name", "found"),
    [
        ("web", "web-1", True),
        ("^eb", "web", False),
        ("w.b", "web", True),
        ("(", "(", True),
        ("(", "a", False),
    ],
)
def test_patterns_are_searched_for(wanted, name, found):
    assert Filters({"name": (wanted,)}).pattern("name", name) is found


def test_prefixes():
    assert Filters({"id": ("ab", "cd")}).prefix("id", "cdef")
    assert not Filters({"id": ("ab",)}).prefix("id", "cdef")


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        (("a",), True),
        (("a=1",), True),
        (("a=2",), False),
        (("a", "b"), False),
        (("c=",), True),
        (("d",), False),
    ],
)
def test_all_labels_have_to_match(wanted, found):
    assert Filters({"label": wanted}).labels({"a": "1", "c": ""}) is found


def test_excluded_labels():
    assert not Filters({"label!": ("a",)}).without_labels({"a": "1"})
    assert Filters({"label!": ("a=2",)}).without_labels({"a": "1"})
