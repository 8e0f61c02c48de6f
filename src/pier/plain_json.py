"""json's two functions without the module, whose regular expressions take as long to load as all else.

For what is started for each container (keepers) or each command (the client). The C part has no promise
of a stable interface: where it is not as expected, the real module is taken.
"""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from json import dumps, loads
    from json.encoder import encode_basestring
else:

    def _json() -> tuple:
        import _json  # noqa: PLC0415

        class Context:
            strict = True
            object_hook = object_pairs_hook = None
            parse_float, parse_int = float, int
            parse_constant = {
                "NaN": float("nan"),
                "Infinity": float("inf"),
                "-Infinity": -float("inf"),
            }.get
            memo: dict[str, str] = {}  # noqa: RUF012

        scan = _json.make_scanner(Context)
        blank = " \t\n\r"

        def default(value: object) -> object:
            raise TypeError(f"Object of type {type(value).__name__} is not JSON serializable")

        escape = _json.encode_basestring_ascii
        loose = _json.make_encoder(None, default, escape, None, ": ", ", ", False, False, True)
        tight = _json.make_encoder(None, default, escape, None, ":", ",", False, False, True)

        def loads(data: bytes | str) -> object:
            """json.loads: UTF-8 in bytes. Raises ValueError."""
            text = data if isinstance(data, str) else str(data, "utf-8")
            begin = len(text) - len(text.lstrip(blank))
            try:
                value, end = scan(text, begin)
            except StopIteration:
                raise ValueError("not JSON") from None
            if text[end:].strip(blank):
                raise ValueError("not JSON: extra data")
            return value

        def dumps(value: object, separators: tuple[str, str] = (", ", ": ")) -> str:
            """json.dumps, with its separators or the shortest ones."""
            return "".join((loose if separators[1] == ": " else tight)(value, 0))

        sample = {"a": [1, -2.5, None, True, "é\n"], "b": {}}
        if loads(dumps(sample, separators=(",", ":")).encode()) != sample or loads(b" 1 ") != 1:
            raise ImportError("_json is not what it was")
        return loads, dumps, _json.encode_basestring

    try:
        loads, dumps, encode_basestring = _json()
    except (ImportError, AttributeError, TypeError):
        from json import dumps, loads
        from json.encoder import encode_basestring


__all__ = ["dumps", "encode_basestring", "loads"]
