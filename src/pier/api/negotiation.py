"""Which of several content types a client likes best (RFC 9110, 12.5.1)."""

from collections.abc import Sequence


def negotiate(accept: str, offers: Sequence[str]) -> str:
    """Return the offer that an Accept header prefers, the first of several, "" for none of them.

    A more exact range counts before `*/*` where the qualities are the same.
    """
    best, rank = "", (0.0, -1)
    for offer in offers:
        for part in accept.split(","):
            kind, *parameters = (word.strip() for word in part.split(";"))
            found = _exactness(kind.lower(), offer), _quality(parameters)
            if found[0] >= 0 and found[1] > 0 and (found[1], found[0]) > rank:
                best, rank = offer, (found[1], found[0])
    return best


def _exactness(wanted: str, offer: str) -> int:
    """How narrow a range is that the offer is in, -1 when it is not."""
    if wanted == offer:
        return 2
    if wanted == offer.partition("/")[0] + "/*":
        return 1
    return 0 if wanted == "*/*" else -1


def _quality(parameters: Sequence[str]) -> float:
    for parameter in parameters:
        name, _, value = parameter.partition("=")
        if name.strip().lower() == "q":
            try:
                return float(value)
            except ValueError:
                return 0.0
    return 1.0
