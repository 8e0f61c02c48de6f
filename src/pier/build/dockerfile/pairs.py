"""The `key=value` words of ENV, LABEL and ARG."""

from pier.build.dockerfile.errors import DockerfileError

Pairs = list[tuple[str, str]]


def parse_pairs(text: str, escape: str, name: str) -> tuple[Pairs, bool]:
    """Return the pairs with quotes as written, and whether it is the old form without `=`.

    Raises DockerfileError.
    """
    words = split_words(text, escape)
    if "=" not in words[0]:
        if len(words) < 2:
            raise DockerfileError(f"{name} must have two arguments", bare=True)
        key = words[0]
        return [(key, text[len(key) :].strip())], True
    found: Pairs = []
    for word in words:
        key, equals, value = word.partition("=")
        if not equals:
            raise DockerfileError(
                f'Syntax error - can\'t find = in "{word}". Must be of the form: name=value',
                bare=True,
            )
        if not key:
            raise DockerfileError(f"{name} names can not be blank")
        found.append((key, value))
    return found, False


def parse_arg_words(text: str, escape: str) -> list[tuple[str, str | None]]:
    """Return (name, default) of each word of an ARG. Raises DockerfileError."""
    found: list[tuple[str, str | None]] = []
    for word in split_words(text, escape):
        name, equals, value = word.partition("=")
        if not name:
            raise DockerfileError("ARG names can not be blank")
        found.append((name, value if equals else None))
    return found


def split_words(text: str, escape: str) -> list[str]:
    """Split at blanks outside of quotes; quotes and escapes stay as they are written."""
    words: list[str] = []
    word, quote = "", ""
    at = 0
    while at < len(text):
        character = text[at]
        if character == escape and at + 1 < len(text) and quote != "'":
            word += text[at : at + 2]
            at += 2
            continue
        if quote:
            quote = "" if character == quote else quote
        elif character in "\"'":
            quote = character
        elif character.isspace():
            if word:
                words.append(word)
            word = ""
            at += 1
            continue
        word += character
        at += 1
    return [*words, word] if word else words
