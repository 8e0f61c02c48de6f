"""Container names: which are allowed, and the ones that the engine makes up."""

import random
import re
from collections.abc import Container

from pier.errors import InvalidParameter

NAME_CHARS = "[a-zA-Z0-9][a-zA-Z0-9_.-]"
_VALID = re.compile(NAME_CHARS + r"+\Z", re.ASCII)

_ADJECTIVES = (
    "able airy amber ample apt bold brave breezy bright brisk calm candid cheery chilly civil "
    "clever cosy crisp curious dapper daring deft eager earnest easy fair famous fleet fond frank "
    "fresh gallant gentle glad golden grand happy hardy hearty honest hopeful jolly keen kind "
    "lively loyal lucid lucky mellow merry mighty neat nimble noble patient placid plucky polite "
    "proud quick quiet rapid ready robust rosy serene sharp sincere sleek smart snug sober steady "
    "sturdy sunny swift tidy tranquil trusty upbeat valiant vivid warm wise witty zealous"
)
_SURNAMES = (
    "abbe agnesi anning babbage banneker barton bell bohr boole bose brahe burnell cannon carson "
    "cerf clarke colden cori curie darwin davinci dijkstra drew easley einstein euclid euler "
    "faraday fermi feynman franklin galileo gauss germain goodall hamilton harvey hawking heron "
    "herschel hertz hodgkin hopper huygens hypatia jemison johnson joliot kepler kilby knuth "
    "kovalevskaya lamarr lamport leavitt liskov lovelace maxwell mayer mccarthy meitner mendel "
    "mirzakhani montalcini morse napier newton nobel noether pascal pasteur payne perlman planck "
    "ptolemy raman ride ritchie rubin sagan shannon somerville tesla thompson torvalds turing "
    "villani volta wilson wozniak wright yalow"
)


def check_name(name: str) -> str:
    """Return the name without its optional leading slash; raise InvalidParameter when it is bad.

    At least two characters, as in dockerd.
    """
    bare = name.removeprefix("/")
    if not _VALID.match(bare):
        raise InvalidParameter(f"Invalid container name ({name}), only {NAME_CHARS} are allowed")
    return bare


def random_name(taken: Container[str]) -> str:
    """Make up an adjective_surname that is not in `taken`; after a few tries with a number."""
    adjectives, surnames = _ADJECTIVES.split(), _SURNAMES.split()
    for attempt in range(1_000_000):
        name = f"{random.choice(adjectives)}_{random.choice(surnames)}"  # noqa: S311  # no secret
        if attempt > 5:
            name += str(random.randrange(10 ** min(attempt - 5, 9)))  # noqa: S311
        if name not in taken:
            return name
    raise AssertionError("every name is taken")
