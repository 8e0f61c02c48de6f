import json

import pytest

import pier.errors
from pier.api.answers import error_answer
from pier.api.errors import STATUS, error_line, status_of
from pier.errors import Conflict, NotFound, PierError


def subclasses(cls):
    for child in cls.__subclasses__():
        yield child
        yield from subclasses(child)


@pytest.mark.parametrize("cls", sorted(set(subclasses(PierError)), key=lambda cls: cls.__name__))
def test_every_error_has_a_status(cls):
    assert any(base in STATUS for base in cls.__mro__)


def test_the_tree_in_the_docstring_says_the_same():
    documented = {
        words[1]: int(words[-1])
        for line in (pier.errors.__doc__ or "").splitlines()
        if len(words := line.split()) > 2 and words[-1].isdigit()
    }
    assert documented
    for name, status in documented.items():
        assert STATUS[getattr(pier.errors, name)] == status


def test_subclasses_have_their_bases_status():
    class NoSuchImage(NotFound):
        pass

    assert status_of(NoSuchImage("x")) == 404
    assert status_of(ValueError("x")) == 500


def test_bodies():
    answer = error_answer(Conflict("container x is paused"))
    assert answer.status == 409
    assert json.loads(answer.body) == {"message": "container x is paused"}
    assert error_answer(pier.errors.NotModified("x")).body is None
    assert json.loads(error_line(OSError(28, "No space left on device"))) == {
        "errorDetail": {"message": "[Errno 28] No space left on device"},
        "error": "[Errno 28] No space left on device",
    }
