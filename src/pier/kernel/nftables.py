"""libnftables(3): rule sets as text, each text one transaction. No policy.

A context is bound to the network namespace in which it was made. The library is loaded when it is
first wanted; `Missing` says that the machine has none.
"""

import ctypes
import ctypes.util
import functools
from typing import Self

_OUTPUT_JSON = 1 << 4
_LIBRARY = "libnftables.so.1"
# Rules have protocols by number: libnftables looks a name up in /etc/protocols, and a minimal
# system has none (Debian: the package netbase).
PROTOCOLS = {"icmp": 1, "tcp": 6, "udp": 17, "ipv6-icmp": 58, "sctp": 132}
_NAMES = {number: name for name, number in PROTOCOLS.items()}


def protocol_name(listed: str | int) -> str:
    """The name of a protocol in a listing, which has the number where /etc/protocols is missing."""
    return listed if isinstance(listed, str) else _NAMES.get(listed, str(listed))


class Missing(OSError):
    """libnftables is not installed."""


class Nftables:
    """A context; `close` frees it. Calls let go of the interpreter lock: a thread may make them."""

    def __init__(self) -> None:
        self._lib = _library()
        self._context: int | None = self._lib.nft_ctx_new(0)
        if not self._context:
            raise OSError("nft_ctx_new failed")
        self._lib.nft_ctx_buffer_output(self._context)
        self._lib.nft_ctx_buffer_error(self._context)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.close()

    def close(self) -> None:
        if self._context:
            self._lib.nft_ctx_free(self._context)
            self._context = None

    def run(self, commands: str, *, json: bool = False) -> str:
        """Run commands in the syntax of nft(8), all or none; return what they print.

        Raises OSError with the library's words.
        """
        lib, context = self._lib, self._context
        lib.nft_ctx_output_set_flags(context, _OUTPUT_JSON if json else 0)
        failed = lib.nft_run_cmd_from_buffer(context, commands.encode())
        output = (lib.nft_ctx_get_output_buffer(context) or b"").decode(errors="replace")
        error = (lib.nft_ctx_get_error_buffer(context) or b"").decode(errors="replace").strip()
        if failed:
            raise OSError(0, f"nftables: {error or 'the commands were refused'}")
        return output


@functools.cache
def _library() -> ctypes.CDLL:
    try:
        lib = ctypes.CDLL(_LIBRARY)
    except OSError as exc:
        raise Missing(f"{_LIBRARY} is not installed: {exc}") from exc
    context = ctypes.c_void_p
    for name, result, arguments in (
        ("nft_ctx_new", context, [ctypes.c_uint32]),
        ("nft_ctx_free", None, [context]),
        ("nft_ctx_buffer_output", ctypes.c_int, [context]),
        ("nft_ctx_buffer_error", ctypes.c_int, [context]),
        ("nft_ctx_output_set_flags", None, [context, ctypes.c_uint]),
        ("nft_run_cmd_from_buffer", ctypes.c_int, [context, ctypes.c_char_p]),
        ("nft_ctx_get_output_buffer", ctypes.c_char_p, [context]),
        ("nft_ctx_get_error_buffer", ctypes.c_char_p, [context]),
    ):
        function = getattr(lib, name)
        function.restype = result
        function.argtypes = arguments
    return lib
