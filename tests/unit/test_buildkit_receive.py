"""Trees that clients send: what arrives, what does not travel again, what is refused."""

import hashlib
import os
import stat
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pier.build.kept_contexts import Index, KeptContexts, read_index, write_index
from pier.buildkit import packets
from pier.buildkit.messages.filesync import Packet, Stat
from pier.buildkit.receive import Receiver
from pier.errors import PierError
from pier.grpc.message import BadMessage
from pier.grpc.status import GrpcError
from pier.storage.root import DataRoot

DIRECTORY, LINK = 1 << 31, 1 << 27
TIME = 1_600_000_000_123_456_789


def file(
    path: str, content: bytes = b"x", mode: int = 0o644, time: int = TIME
) -> tuple[Stat, bytes]:
    return Stat(path=path, mode=mode, size=len(content), modTime=time), content


def directory(path: str) -> tuple[Stat, bytes]:
    return Stat(path=path, mode=DIRECTORY | 0o755, modTime=TIME), b""


def link(path: str, target: str) -> tuple[Stat, bytes]:
    return Stat(path=path, mode=LINK | 0o777, modTime=TIME, linkname=target), b""


def hard_link(path: str, target: str) -> tuple[Stat, bytes]:
    return Stat(path=path, mode=0o644, size=1, modTime=TIME, linkname=target), b""


def sync(into: Path, entries: list[tuple[Stat, bytes]], index: Index) -> tuple[Index, list[str]]:
    """Do what a client does; return the new index, and which files were asked for."""
    receiver = Receiver(str(into), index)
    answers = receiver.take([packets.stat_packet(s.encode()) for s, _ in entries] + [b""])
    asked = []
    while answers:
        data = []
        for answer in answers:
            packet = packets.read_packet(answer)
            if packet.kind == packets.FIN:
                data.append(packets.FIN_PACKET)
                continue
            described, content = entries[packet.id]
            asked.append(described.path)
            pieces = [content[:1], content[1:]]
            data += [packets.data_packet(packet.id, piece) for piece in pieces if piece]
            data.append(packets.data_packet(packet.id, b""))
        answers = receiver.take(data)
    assert receiver.is_over
    return receiver.taken, asked


def test_a_tree_arrives(tmp_path: Path) -> None:
    entries = [
        file("a", b"hello", 0o755),
        directory("d"),
        file("d/b", b""),
        link("d/c", "../a"),
        hard_link("e", "a"),
    ]
    index, asked = sync(tmp_path, entries, {})
    assert asked == ["a", "d/b"]
    assert (tmp_path / "a").read_bytes() == b"hello"
    found = (tmp_path / "a").stat()
    assert (stat.S_IMODE(found.st_mode), found.st_mtime_ns) == (0o755, TIME)
    assert os.readlink(tmp_path / "d/c") == "../a"
    assert (tmp_path / "e").stat().st_ino == found.st_ino
    assert (tmp_path / "d").stat().st_mtime_ns == TIME
    assert sorted(index) == [b"a", b"d", b"d/b", b"d/c", b"e"]
    assert index[b"a"][1] == hashlib.sha256(b"hello").digest()
    assert index[b"d/c"][1] == index[b"e"][1] == b""
    again, _ = sync(tmp_path, entries, index)
    assert again == index


def test_only_what_differs_travels(tmp_path: Path) -> None:
    before = [
        directory("d"),
        file("d/a"),
        file("d/b"),
        directory("gone"),
        file("gone/x"),
        file("z"),
    ]
    index, _ = sync(tmp_path, before, {})
    assert sync(tmp_path, before, index)[1] == []
    index, _ = sync(tmp_path, before, {**index})
    after = [directory("d"), file("d/a"), file("d/b", b"new"), link("gone", "z"), file("z", time=5)]
    index, asked = sync(tmp_path, after, index)
    assert asked == ["d/b", "z"]
    assert (tmp_path / "d/b").read_bytes() == b"new"
    assert os.readlink(tmp_path / "gone") == "z"
    assert sync(tmp_path, [directory("gone"), file("gone/y")], index)[1] == ["gone/y"]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["gone"]


@pytest.mark.parametrize(
    "entries",
    [
        [file("../a")],
        [file("/etc/passwd")],
        [file("a/b")],
        [link("a", "/etc"), file("a/passwd")],
        [directory("a"), file("a/../b")],
        [file("a"), file("a")],
        [file("a\0b")],
        [hard_link("a", "/etc/passwd")],
        [link("b", "/etc/passwd"), directory("c"), hard_link("c/a", "../../etc/passwd")],
        [directory("c"), hard_link("a", "c")],
        [file(".")],
    ],
)
def test_nothing_leads_out_of_it(tmp_path: Path, entries: list[tuple[Stat, bytes]]) -> None:
    inner = tmp_path / "inner"
    inner.mkdir()
    with pytest.raises(PierError):
        sync(inner, entries, {})
    assert [p.name for p in tmp_path.iterdir()] == ["inner"]


def test_a_link_that_took_a_directorys_place_is_not_followed(tmp_path: Path) -> None:
    index, _ = sync(tmp_path, [directory("d"), file("d/a")], {})
    index, _ = sync(tmp_path, [link("d", "/var/tmp")], index)
    sync(tmp_path, [directory("d"), file("d/b")], index)
    assert [p.name for p in (tmp_path / "d").iterdir()] == ["b"]


def test_what_the_sender_says_of_a_failure(tmp_path: Path) -> None:
    receiver = Receiver(str(tmp_path), {})
    with pytest.raises(GrpcError, match="error from sender: permission denied"):
        receiver.take([Packet(type=packets.ERR, data=b"permission denied").encode()])


@given(st.lists(st.binary(max_size=40), max_size=10))
def test_any_packets(messages: list[bytes]) -> None:
    receiver = Receiver("/nonexistent/for/the/test", {})
    try:
        receiver.take(messages)
    except (BadMessage, PierError, OSError):
        pass
    finally:
        receiver.close()


@pytest.mark.parametrize(
    "packet",
    [
        Packet(type=packets.REQ, ID=300),
        Packet(type=packets.DATA, ID=1, data=b"abc"),
        Packet(type=packets.STAT, stat=Stat(path="a", mode=0o644)),
        Packet(type=packets.FIN),
    ],
)
def test_packets_are_the_messages(packet: Packet) -> None:
    found = packets.read_packet(packet.encode())
    assert (found.kind, found.id, found.data) == (packet.type, packet.ID, packet.data)
    assert found.body == (packet.stat.encode() if packet.stat else b"")
    if packet.type == packets.DATA:
        assert packets.data_packet(packet.ID, packet.data) == packet.encode()
    if packet.type == packets.REQ:
        assert packets.request(packet.ID) == packet.encode()


@pytest.mark.parametrize("mode", [0o100644, 0o104755, 0o040755, 0o041777, 0o120777, 0o010600])
def test_modes_are_gos_and_back(mode: int) -> None:
    assert packets.mode_of(packets.go_mode(mode)) == mode


def test_a_tree_is_one_builds_at_a_time(tmp_path: Path) -> None:
    root = DataRoot(str(tmp_path / "root"))
    try:
        trees = KeptContexts(root)
        with trees.held("key") as first:
            assert first.begin() == {}
            with trees.held("key") as second, trees.held("") as passing:
                assert len({first.place, second.place, passing.place}) == 3
                passing.begin()
            assert not os.path.exists(passing.place)
            first.settle({b"a": (b"1", b"")})
        with trees.held("key") as again:
            assert again.place == first.place
            assert again.begin() == {b"a": (b"1", b"")}
            (Path(again.path) / "half").write_text("of a transfer that broke off")
        with trees.held("key") as broken:
            assert not os.path.exists(broken.path)
        (usage,) = [u for u in trees.all(lambda _: 7) if u.name == os.path.basename(first.place)]
        assert (usage.size, usage.in_use) == (7, False)
        assert trees.discard(usage.name)
        assert not trees.discard(usage.name)
    finally:
        root.close()


def test_an_index_that_is_torn_is_none(tmp_path: Path) -> None:
    path = str(tmp_path / "index")
    write_index(path, {b"a": (b"b", b"c")})
    assert read_index(path) == {b"a": (b"b", b"c")}
    (tmp_path / "index").write_bytes(b"\x81")
    assert read_index(path) == {}
    assert read_index(path + "x") == {}
