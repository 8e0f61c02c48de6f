"""Packets between pierd, the zygote and the keepers.

AF_UNIX SOCK_SEQPACKET: one JSON object a packet, descriptors beside it (SCM_RIGHTS). A request
carries "op" and "seq"; its answer carries "re" (that seq) and either its results or "error". What
happens on its own carries "ev". Nothing here blocks for ever: sockets are non-blocking or have a
time-out set by their owner.

    pierd → zygote
        {"op": "fork"}  + [the keeper's channel]   no answer: it closes when there was no fork

    pierd → keeper (the channel, or a connection to keeper.sock after pierd was restarted)
        {"op": "keep", "bundle": dir}             the channel's first, perhaps long after the fork
        {"op": "attach", "seq", "stdin", "stdout", "stderr", "detach_keys", "pending"}  + [client]
        {"op": "start", "seq"}                    answer {"re", "pid", "at", "marks"?, "marks_inside"?}
        {"op": "exec", "seq", "exec": id, "config": ExecConfig,
                 "stdin", "stdout", "stderr", "detach_keys", "pending", "failure_text"}
                 + [client]?                      answer {"re", "pid"}
        {"op": "resize", "seq", "height", "width", "exec": id?}
        {"op": "kill", "seq", "signal", "exec": id?}
        {"op": "pause" | "resume", "seq"}
        {"op": "update", "seq", "resources": Resources}
        {"op": "state", "seq"}                    answer {"re", "pid", "at", "status", "execs": {…}}
                                                  "at": when it ran, nanoseconds since the epoch
        {"op": "witness", "seq"}  + [the writing end of a pipe, closed when the container is over]
        the end of the requests                   the keeper closes; unstarted, it ends
    keeper → pierd (every connected one)
        {"ev": "exit", "code", "oom": bool, "at": nanoseconds since the epoch,
                 "marks"?, "marks_inside"?}       of a traced start: [nanoseconds, phase] each
        {"ev": "exec-exit", "exec": id, "code"}
        {"ev": "oom"}
        {"ev": "detach", "exec": id or null}      a client typed its detach keys

A packet of over 64 KiB stands in a memfd, the last descriptor of {"spilled": its size in bytes}.

"error" is {"step": what was done, "errno": n, "message": text}: see `StartFailed`. Bytes travel in
JSON as latin-1 text ("detach_keys", "pending": what the client had already sent on stdin).
"""

from __future__ import annotations

import os
import struct

from pier.kernel.lean import json, socket

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

MAX_FDS = 16
FD_BYTES = 4
# A socket's buffer takes some 200 KiB, an exec's arguments and environment may have 2 MiB. What is
# received into is small enough to come from the heap: larger buffers are mapped, and faulted in,
# anew for every packet.
SPILL_BYTES = 1 << 16
MAX_PACKET = SPILL_BYTES + 4096
MAX_SPILLED = 1 << 26

SPILLED = "spilled"

# In a bundle that another runtime runs: which (`spec.RuntimeCommand`); gone when it has let go.
RUNTIME_FILE = "runtime.json"

if TYPE_CHECKING:
    Packet = dict[str, Any]
else:
    Packet = dict


def send(sock: socket.socket, packet: Packet, fds: tuple[int, ...] = ()) -> None:
    """Send one packet with descriptors, which stay the caller's to close.

    Raises BlockingIOError when the peer does not read, OSError when it is gone.
    """
    data = json.dumps(packet, separators=(",", ":")).encode()
    if len(data) > SPILL_BYTES:
        _send_spilled(sock, data, fds)
        return
    rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, _pack(fds))] if fds else []
    sock.sendmsg([data], rights, socket.MSG_NOSIGNAL)


def _send_spilled(sock: socket.socket, data: bytes, fds: tuple[int, ...]) -> None:
    """Send a packet that stands in a memory file, whose descriptor follows the others."""
    spill_fd = os.memfd_create("packet")
    try:
        view = memoryview(data)
        while view:
            view = view[os.write(spill_fd, view) :]
        send(sock, {SPILLED: len(data)}, (*fds, spill_fd))
    finally:
        os.close(spill_fd)


def _pack(fds: tuple[int, ...]) -> bytes:
    # `array` would do the same, and bring in `collections`.
    return struct.pack(f"{len(fds)}i", *fds)


def _read_spilled(fds: list[int], size: object) -> Any:
    if not fds or not isinstance(size, int) or not 0 < size <= MAX_SPILLED:
        return None
    spill_fd = fds.pop()
    try:
        return json.loads(os.pread(spill_fd, size, 0))
    finally:
        os.close(spill_fd)


def receive(sock: socket.socket) -> tuple[Packet, list[int]] | None:
    """Receive one packet and the descriptors that came with it (close-on-exec, now the caller's).

    None at end of file. Raises BlockingIOError when there is none now, ValueError for a packet
    that is not a JSON object or was cut.
    """
    size = FD_BYTES * MAX_FDS
    data, ancillary, flags, _ = sock.recvmsg(
        MAX_PACKET, socket.CMSG_SPACE(size), socket.MSG_CMSG_CLOEXEC
    )
    fds: list[int] = []
    for level, kind, payload in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            fds.extend(struct.unpack_from(f"{len(payload) // FD_BYTES}i", payload))
    if not data:
        for fd in fds:
            os.close(fd)
        return None
    try:
        packet = json.loads(data) if not flags & socket.MSG_TRUNC else None
        if isinstance(packet, dict) and SPILLED in packet:
            packet = _read_spilled(fds, packet[SPILLED])
    except ValueError:
        packet = None
    if not isinstance(packet, dict):
        for fd in fds:
            os.close(fd)
        raise ValueError("malformed packet")  # noqa: TRY004  # the value came over a wire
    return packet, fds


def failure(step: str, exc: Exception) -> Packet:
    """Return the "error" value that describes an exception raised during `step`.

    An exception that knows its own step (`StepError`, `StartFailed`) is believed.
    """
    step = getattr(exc, "step", "") or step
    number = getattr(exc, "errno", 0) or 0
    return {"step": step, "errno": number, "message": str(exc)}


def send_failure(sock: socket.socket, step: str, exc: Exception) -> None:
    """Tell the other side of a start that it failed during `step`; it may be gone already."""
    sock.setblocking(True)
    try:
        send(sock, {"error": failure(step, exc)})
    except OSError:
        return
