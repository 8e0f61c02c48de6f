"""Raw LLB definitions over BuildKit's API: what operations come to, and what is done again."""

import asyncio
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pytest
from git_server import serve_repository

from engine_process import Client, EngineProcess, wait_until
from llb_client import NO, Llb, LlbClient, Solved
from pier.buildkit.messages import ops
from pier.grpc.status import GrpcError

NAME = "llb-test:latest"


class Place:
    def __init__(self, engine: EngineProcess, docker: Client, image: str) -> None:
        self._engine = engine
        self.docker = docker
        self.base = f"docker-image://docker.io/{image}"

    def solve(
        self,
        definition: ops.Definition,
        *,
        directories: Mapping[str, Path] = {},
        lent: Mapping[str, bytes] = {},
        entitlements: Sequence[str] = (),
        name: str = NAME,
    ) -> Solved:
        async def work() -> Solved:
            async with LlbClient(self._engine.socket, directories, lent) as client:
                return await client.solve(definition, name=name, entitlements=entitlements)

        return asyncio.run(asyncio.wait_for(work(), 60))

    def read(
        self, definition: ops.Definition, path: str, directories: Mapping[str, Path] = {}
    ) -> bytes:
        async def work() -> bytes:
            async with LlbClient(self._engine.socket, directories) as client:
                return await client.read(definition, path)

        return asyncio.run(asyncio.wait_for(work(), 60))

    def show(self, script: str) -> str:
        return self.docker("run", "--rm", NAME, "sh", "-c", script).stdout


@pytest.fixture
def place(pierd: EngineProcess, docker: Client, image: str) -> Iterator[Place]:
    before = pierd.calls.image_ids()
    yield Place(pierd, docker, image)
    pierd.calls.remove_image(NAME)
    pierd.calls.remove_images_but(before)


def copied(source: int, src: str, dest: str, base: int = 0, **fields: object) -> ops.FileAction:
    fields = {"mode": -1, "timestamp": -1, **fields}
    copy = ops.FileActionCopy(src=src, dest=dest, **fields)  # type: ignore[arg-type]
    return ops.FileAction(input=base, secondaryInput=source, output=0, copy=copy)


def test_commands_and_what_is_done_again(place: Place) -> None:
    llb = Llb()
    base = llb.source(place.base)
    first = llb.run(base, "echo one > /one; echo said", env=["A=b"])
    last = llb.run(first, 'echo "$A $(id -u) $(pwd) $(hostname)" > /two', env=["A=c"],
                   user="7", hostname="there")  # fmt: skip
    with pytest.raises(GrpcError, match="did not complete successfully: exit code: 1"):
        place.solve(llb.definition(last))  # user 7 may not write there
    last = llb.run(first, 'echo "$A $(pwd) $(hostname)" > /two', env=["A=c"], hostname="there")
    solved = place.solve(llb.definition(last))
    assert place.show("cat /one /two") == "one\nc / there\n"
    assert solved.vertexes[first].cached  # of the solve before
    assert not solved.vertexes[last].cached
    assert solved.vertexes[last].inputs == [first]
    again = place.solve(llb.definition(last))
    assert again.vertexes[last].cached
    anew = place.solve(llb.definition(last, fresh=[first]))
    assert not anew.vertexes[first].cached
    assert b"said" in anew.logs


def test_mounts(place: Place, tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "f").write_text("local\n")
    llb = Llb()
    base = llb.source(place.base)
    files = llb.source("local://src")
    script = (
        "cat /in/f > /all; ! touch /in/g 2>/dev/null; echo new > /out/g; cat /run/s >> /all;"
        " echo $KEY >> /all; touch /tmp/t; grep -c ' /tmp ' /proc/mounts >> /all; cat /cache/c >> /all 2>/dev/null;"
        " echo kept > /cache/c"
    )
    run = ops.ExecOp(
        meta=ops.Meta(args=["sh", "-c", script], cwd="/"),
        mounts=[
            ops.Mount(input=0, dest="/", output=0),
            ops.Mount(input=1, selector="d", dest="/in", output=NO, readonly=True),
            ops.Mount(input=1, selector="/d", dest="/out", output=1),
            ops.Mount(input=NO, dest="/run/s", output=NO, mountType=1,
                      secretOpt=ops.SecretOpt(ID="key", mode=0o400)),
            ops.Mount(input=NO, dest="/cache", output=NO, mountType=3,
                      cacheOpt=ops.CacheOpt(ID="llb-cache")),
            ops.Mount(input=NO, dest="/tmp", output=NO, mountType=4),
        ],
        secretenv=[ops.SecretEnv(ID="key", name="KEY")],
    )  # fmt: skip
    first = llb.add(ops.Op(inputs=[], exec=run), base, files)
    lent = {"key": b"secret"}
    given = {"src": tmp_path}
    place.solve(llb.definition(first), directories=given, lent=lent)
    assert place.show("cat /all; ls /in /out /run/s 2>&1 | wc -l") == (
        "local\nsecretsecret\n1\n3\n"
    )
    place.solve(llb.definition((first, 1)), directories=given, lent=lent)
    assert place.read(llb.definition((first, 1)), "/d/g", given) == b"new\n"
    with pytest.raises(GrpcError, match="secret key: not found"):
        place.solve(llb.definition(first, fresh=[first]), directories=given)
    place.solve(llb.definition(first, fresh=[first]), directories=given, lent=lent)
    assert place.show("tail -n 1 /all") == "kept\n"


def test_files(place: Place, tmp_path: Path) -> None:
    for name in ("a.txt", "b.md", "sub/c.txt", "other/d.md"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"{name}\n")
    (tmp_path / "link").symlink_to("a.txt")
    llb = Llb()
    base, local = llb.source(place.base), llb.source("local://src")
    owner = ops.ChownOpt(ops.UserOpt(byID=7), ops.UserOpt(byID=8))
    named = ops.ChownOpt(ops.UserOpt(byName=ops.NamedUserOpt("root", 0)))
    chain = [
        ops.FileAction(0, NO, NO, mkdir=ops.FileActionMkDir("/n/m", 0o750, True, owner, 10**9)),
        ops.FileAction(2, NO, NO, mkfile=ops.FileActionMkFile("/n/f", 0o640, b"text", named, -1)),
        ops.FileAction(3, NO, NO, symlink=ops.FileActionSymlink("f", "/n/l", None, -1)),
        copied(1, "/", "/n/all", 4, dirCopyContents=True, createDestPath=True,
               include_patterns=["**/*.txt", "*.txt"], owner=owner),
        copied(1, "/*.md", "/n/md/", 5, allowWildcard=True, createDestPath=True, modeStr="0600"),
        copied(1, "/sub", "/n", 6, timestamp=2 * 10**9),
        copied(1, "/link", "/n/copied", 7),
        ops.FileAction(8, NO, 0, rm=ops.FileActionRm("/n/all/sub/c.*", False, True)),
    ]  # fmt: skip
    for action in chain[:-1]:
        action.output = NO
    made = llb.file(*chain, inputs=[base, local])
    place.solve(llb.definition(made), directories={"src": tmp_path})
    shown = place.show(
        "cd /n; stat -c '%n %a %u:%g' m f all all/a.txt md/b.md; stat -c %Y m sub/c.txt;"
        "readlink l; readlink copied; find . | sort | tr '\\n' ' '"
    )
    assert shown == (
        "m 750 7:8\nf 640 0:0\nall 755 7:8\nall/a.txt 644 7:8\nmd/b.md 600 0:0\n1\n2\nf\na.txt\n"
        ". ./all ./all/a.txt ./all/sub ./copied ./f ./l ./m ./md ./md/b.md ./sub ./sub/c.txt "
    )
    # What is not copied does not count, nor do times.
    (tmp_path / "other" / "e").write_text("new\n")
    (tmp_path / "a.txt").touch()
    one = llb.file(copied(1, "/a.txt", "/a.txt"), inputs=[base, local])
    place.solve(llb.definition(one), directories={"src": tmp_path})
    (tmp_path / "b.md").write_text("changed\n")
    (tmp_path / "a.txt").touch()
    again = place.solve(llb.definition(one), directories={"src": tmp_path})
    assert again.vertexes[one].cached
    (tmp_path / "a.txt").write_text("changed\n")
    changed = place.solve(llb.definition(one), directories={"src": tmp_path})
    assert not changed.vertexes[one].cached
    assert place.show("cat /a.txt") == "changed\n"


@pytest.mark.parametrize(
    ("action", "message"),
    [
        (ops.FileAction(0, NO, 0, rm=ops.FileActionRm("/none")), "no such file"),
        (ops.FileAction(0, NO, 0, rm=ops.FileActionRm("/")), "invalid empty path"),
        (ops.FileAction(0, NO, 0, mkdir=ops.FileActionMkDir("/x/y", 0o755)), "no such file"),
        (ops.FileAction(5, NO, 0, mkdir=ops.FileActionMkDir("/x", 0o755)), "invalid input index"),
        (ops.FileAction(0, NO, 0), "invalid nil file action"),
        (ops.FileAction(0, NO, 7, rm=ops.FileActionRm("/x")), "invalid outputs"),
        (copied(0, "/none", "/x"), "none"),
    ],
)
def test_actions_that_fail(place: Place, action: ops.FileAction, message: str) -> None:
    llb = Llb()
    made = llb.file(action, inputs=[llb.source(place.base)])
    with pytest.raises(GrpcError, match=message):
        place.solve(llb.definition(made))


def test_links_of_the_tree_lead_nowhere_else(place: Place, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "kept").write_text("kept\n")
    llb = Llb()
    base = llb.run(llb.source(place.base), f"ln -s {outside} /to; ln -s {outside}/kept /file")
    made = llb.file(
        ops.FileAction(0, NO, NO, mkdir=ops.FileActionMkDir(str(outside), 0o755, True, None, -1)),
        ops.FileAction(1, NO, NO, mkfile=ops.FileActionMkFile("/to/new", 0o644, b"x", None, -1)),
        ops.FileAction(2, NO, NO, mkfile=ops.FileActionMkFile("/file", 0o644, b"y", None, -1)),
        ops.FileAction(3, NO, 0, rm=ops.FileActionRm("/to/kept", True)),
        inputs=[base],
    )
    place.solve(llb.definition(made))
    assert [path.name for path in outside.iterdir()] == ["kept"]
    assert (outside / "kept").read_text() == "kept\n"
    assert place.show(f"ls {outside}") == "new\n"


def test_merge_and_diff(place: Place) -> None:
    llb = Llb()
    base = llb.source(place.base)
    one = llb.run(base, "echo one > /one; rm /bin/wc; echo first > /same")
    two = llb.run(base, "echo two > /two; echo second > /same")
    diffs = [
        llb.add(
            ops.Op(inputs=[], diff=ops.DiffOp(ops.LowerDiffInput(0), ops.UpperDiffInput(1))),
            *(base, upper),
        )
        for upper in (one, two)
    ]
    merged = llb.add(
        ops.Op(inputs=[], merge=ops.MergeOp([ops.MergeInput(0), ops.MergeInput(1), ops.MergeInput(2)])),
        *(base, *diffs),
    )  # fmt: skip
    solved = place.solve(llb.definition(merged))
    assert place.show("cat /one /two /same; ls /bin/wc 2>&1 | head -c 3") == "one\ntwo\nsecond\nls:"
    assert not solved.vertexes[merged].cached
    assert place.solve(llb.definition(merged)).vertexes[merged].cached


def test_a_diff_of_files_that_do_not_stand_on_each_other(place: Place) -> None:
    llb = Llb()
    base = llb.source(place.base)
    common = "mkdir -p /d/gone /d/same /kind; touch -d @1 /d/same/f; echo same > /unchanged;"
    root = llb.run(base, common + " echo old > /d/changed; touch -d @5 /unchanged")
    one = llb.run(
        root, "echo a > /d/gone/f; echo lower > /kind/f; echo x > /both; touch -d @3 /both"
    )
    two = llb.run(
        root,
        "rmdir /d/gone; echo new > /d/changed; rm -r /kind; echo file > /kind; mkdir -p /n/m;"
        " echo n > /n/m/f; ln /n/m/f /n/again; echo y > /both; touch -d @3 /both; chmod 700 /d/same",
    )
    both = llb.add(
        ops.Op(inputs=[], diff=ops.DiffOp(ops.LowerDiffInput(0), ops.UpperDiffInput(1))),
        *(one, two),
    )
    place.solve(llb.definition(both), name="")
    last = llb.add(
        ops.Op(inputs=[], merge=ops.MergeOp([ops.MergeInput(0), ops.MergeInput(1)])), one, both
    )
    place.solve(llb.definition(last))
    shown = place.show(
        "cat /d/changed /kind /both /n/again; ls /d; stat -c %a /d/same; stat -c %h /n/m/f;"
        "stat -c %Y /d/same/f"
    )
    assert shown == "new\nfile\ny\nn\nchanged\nsame\n700\n2\n1\n"
    bind = ops.Mount(input=1, dest="/w", output=1)
    written = llb.run(base, "echo more >> /w/kind; ls /w/n", bind, inputs=[last])
    assert place.read(llb.definition((written, 1)), "/kind") == b"file\nmore\n"
    only = llb.run(
        base, "cp -a /diff/* /", ops.Mount(input=1, dest="/diff", output=NO), inputs=[both]
    )
    place.solve(llb.definition(only))
    assert place.show("ls /unchanged /d/same/f 2>&1 | grep -c 'No such'") == "2\n"


def test_repositories_and_urls(place: Place, pierd: EngineProcess, tmp_path: Path) -> None:
    with serve_repository(pierd.in_network, tmp_path) as url:
        llb = Llb()
        base = llb.source(place.base)
        git = llb.source(f"git://{url.partition('//')[2]}#v1:sub", git_fullurl=url)
        head = f"{url}/HEAD"
        web = llb.source(head, http_filename="head", http_perm="0644", http_uid="5")
        made = llb.file(
            copied(1, "/", "/sub", dirCopyContents=True, createDestPath=True),
            inputs=[base, git],
        )
        last = llb.file(copied(1, "/head", "/head"), inputs=[made, web])
        place.solve(llb.definition(last))
        assert place.show("cat /sub/deep/f /head; stat -c '%a %u' /head") == (
            "one\nref: refs/heads/main\n644 5\n"
        )
        assert place.read(llb.definition(git), "deep/f") == b"one\n"
        again = place.solve(llb.definition(last))
        assert again.vertexes[last].cached


@pytest.mark.parametrize(
    ("identifier", "message"),
    [
        ("oci-layout://x@sha256:00", "oci-layout source requires a store"),
        ("gopher://x", "unknown source identifier scheme"),
    ],
)
def test_sources_that_are_refused(place: Place, identifier: str, message: str) -> None:
    llb = Llb()
    with pytest.raises(GrpcError, match=message):
        place.solve(llb.definition(llb.source(identifier)))


def test_rights(place: Place) -> None:
    llb = Llb()
    base = llb.source(place.base)

    def command(**fields: int) -> str:
        op = ops.ExecOp(
            meta=ops.Meta(args=["sh", "-c", "ls /sys/class/net > /net"], cwd="/"),
            mounts=[ops.Mount(input=0, dest="/", output=0)],
        )
        for name, value in fields.items():
            setattr(op, name, value)
        return llb.add(ops.Op(inputs=[], exec=op), base)

    for fields, right in (({"network": 1}, "network.host"), ({"security": 1}, "security.insecure")):
        made = command(**fields)
        with pytest.raises(GrpcError, match=f"{right} is not allowed"):
            place.solve(llb.definition(made))
        place.solve(llb.definition(made), entitlements=[right])
    place.solve(llb.definition(command(network=2)))
    assert place.show("cat /net") == "lo\n"


def test_independent_operations_run_at_once(place: Place) -> None:
    """Each waits for the other's mark in a cache mount that both have."""
    llb = Llb()
    base = llb.source(place.base)
    shared = ops.Mount(
        input=NO,
        dest="/c",
        output=NO,
        mountType=3,
        cacheOpt=ops.CacheOpt(ID=f"marks-{time.time_ns()}"),
    )
    script = "touch /c/{1}; until [ -e /c/{0} ]; do sleep 0.1; done; touch /{1}"
    one, two = (llb.run(base, script.format(a, b), shared) for a, b in (("x", "y"), ("y", "x")))
    both = llb.file(copied(1, "/x", "/x"), inputs=[one, two])
    place.solve(llb.definition(both))
    assert place.show("ls /x /y") == "/x\n/y\n"


def images(place: Place) -> list[str]:
    return sorted(place.docker("images", "-aq", "--no-trunc").stdout.split())


def test_what_it_keeps_goes_with_the_cache(place: Place, tmp_path: Path) -> None:
    (tmp_path / "f").write_text("x\n")
    before = images(place)
    llb = Llb()
    base, local = llb.source(place.base), llb.source("local://src")
    one = llb.run(base, "true > /one")
    two = llb.file(copied(1, "/f", "/f"), inputs=[one, local])
    place.solve(llb.definition(two), directories={"src": tmp_path}, name="")
    assert len(images(place)) == len(before) + 3  # two operations, and the image of the result
    place.docker("builder", "prune", "-af")
    assert images(place) == before


def test_the_client_goes_away(place: Place, pierd: EngineProcess) -> None:
    before = images(place)
    llb = Llb()
    definition = llb.definition(llb.run(llb.source(place.base), "echo begun; exec sleep 1000"))

    async def work() -> None:
        async with LlbClient(pierd.socket) as client:
            solving = asyncio.create_task(client.solve(definition))
            await asyncio.to_thread(
                wait_until, lambda: bool(place.docker("ps", "-q").stdout), "a step"
            )
            solving.cancel()
            await asyncio.wait([solving])

    asyncio.run(asyncio.wait_for(work(), 60))
    wait_until(lambda: not place.docker("ps", "-aq").stdout, "no container")
    wait_until(lambda: images(place) == before, "no more images")


def test_a_configuration_of_the_clients(place: Place, pierd: EngineProcess) -> None:
    llb = Llb()
    definition = llb.definition(llb.run(llb.source(place.base), "echo x > /x"))
    config = {
        "architecture": "amd64",
        "os": "linux",
        "config": {"Cmd": ["cat", "/x"], "Env": ["A=b"], "Labels": {"a": "b"}},
        "rootfs": {"type": "layers", "diff_ids": []},
    }

    async def work(data: bytes) -> None:
        async with LlbClient(pierd.socket) as client:
            await client.build(definition, NAME, {"containerimage.config": data})

    asyncio.run(asyncio.wait_for(work(json.dumps(config).encode()), 60))
    assert place.docker("run", "--rm", NAME).stdout == "x\n"
    found = json.loads(place.docker("inspect", NAME).stdout)[0]
    assert (found["Config"]["Env"], found["Config"]["Labels"]) == (["A=b"], {"a": "b"})
    with pytest.raises(GrpcError, match="failed to unmarshal image config"):
        asyncio.run(asyncio.wait_for(work(b"[]"), 60))


def test_a_selector_leads_nowhere_else(place: Place, tmp_path: Path) -> None:
    """A link in what is mounted is resolved in it, and not on the host."""
    (tmp_path / "secret").write_text("secret\n")
    source = tmp_path / "source"
    source.mkdir()
    (source / "to").symlink_to(tmp_path)
    (source / "up").symlink_to("../..")
    llb = Llb()
    base, local = llb.source(place.base), llb.source("local://src")
    for selector in ("to/secret", "up/secret", "../secret"):
        for readonly in (True, False):
            mount = ops.Mount(input=1, selector=selector, dest="/m", output=NO, readonly=readonly)
            made = llb.run(base, "cat /m > /leaked", mount, inputs=[local])
            with pytest.raises(GrpcError, match="no such file or directory"):
                place.solve(llb.definition(made), directories={"src": source})
