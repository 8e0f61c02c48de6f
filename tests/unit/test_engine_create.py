"""What a container takes over from its image, why starts fail, what ps output becomes."""

import errno

import pytest

from pier.engine.create import inherit
from pier.engine.mount_points import mount_points
from pier.engine.start_errors import translate_exec, translate_start
from pier.engine.top import select_processes
from pier.engine.user_mounts import parse_all, settle_propagation
from pier.errors import Internal, InvalidParameter, StartFailed
from pier.model.container import ContainerConfig, Empty, HostConfig, Mount

IMAGE = ContainerConfig(
    User="app",
    Env=["PATH=/bin", "A=image"],
    Entrypoint=["/entry"],
    Cmd=["serve"],
    WorkingDir="/srv",
    Labels={"a": "image", "b": "image"},
    ExposedPorts={"80/tcp": Empty()},
    StopSignal="SIGINT",
)


@pytest.mark.parametrize(
    ("request_", "entrypoint", "cmd"),
    [
        ({}, ["/entry"], ["serve"]),
        ({"Cmd": ["x"]}, ["/entry"], ["x"]),
        ({"Entrypoint": ["y"]}, ["y"], None),
        ({"Entrypoint": ["y"], "Cmd": ["x"]}, ["y"], ["x"]),
        ({"Entrypoint": [""], "Cmd": ["x"]}, None, ["x"]),
        ({"Entrypoint": [], "Cmd": ["x"]}, [], ["x"]),
    ],
)
def test_the_command(request_, entrypoint, cmd):
    config = ContainerConfig(**request_)
    inherit(config, IMAGE)
    assert (config.Entrypoint, config.Cmd) == (entrypoint, cmd)


@pytest.mark.parametrize("request_", [{"Entrypoint": [""]}, {}])
def test_nothing_to_run(request_):
    image = IMAGE if request_ else ContainerConfig()
    with pytest.raises(InvalidParameter, match="no command specified"):
        inherit(ContainerConfig(**request_), image)


def test_the_rest_of_the_configuration():
    config = ContainerConfig(User="me", Env=["A=mine", "C"], Labels={"b": "mine"})
    inherit(config, IMAGE)
    assert (config.User, config.WorkingDir, config.StopSignal) == ("me", "/srv", "SIGINT")
    assert config.Env == ["A=mine", "C", "PATH=/bin"]
    assert config.Labels == {"a": "image", "b": "mine"}
    assert list(config.ExposedPorts) == ["80/tcp"]
    assert IMAGE.Labels == {"a": "image", "b": "image"}, "the image's own stays as it is"


@pytest.mark.parametrize(
    ("step", "number", "start", "exec_"),
    [
        ("exec", errno.ENOENT, (127, InvalidParameter), (127, InvalidParameter)),
        ("exec", errno.EACCES, (126, InvalidParameter), (126, InvalidParameter)),
        ("exec", errno.ENOEXEC, (126, InvalidParameter), (126, InvalidParameter)),
        ("chdir", errno.EACCES, (126, InvalidParameter), (126, InvalidParameter)),
        ("chdir", errno.ENOENT, (127, InvalidParameter), (127, InvalidParameter)),
        ("mount", errno.ENOTDIR, (127, InvalidParameter), (126, Internal)),
        ("cgroup", errno.EINVAL, (128, Internal), (126, Internal)),
        ("user", 0, (128, Internal), (1, Internal)),
    ],
)
def test_failures(step, number, start, exec_):
    failure = StartFailed("{reason}", step=step, errno=number)
    results = ((translate_start(failure, "/srv"), start), (translate_exec(failure), exec_))
    for (found, error), (code, kind) in results:
        assert (found, type(error)) == (code, kind)
        assert "{reason}" in error.message
        assert error.message == error.message.strip()


def test_a_working_directory_that_is_a_file():
    failure = StartFailed("", step="chdir", errno=errno.ENOTDIR)
    code, error = translate_start(failure, "/etc/passwd")
    assert (code, error.message) == (128, "Cannot mkdir: /etc/passwd is not a directory")


PS = """\
UID          PID    PPID  C STIME TTY          TIME CMD
root           1       0  0 10:00 ?        00:00:01 /sbin/init splash
me           200       1  0 10:00 ?        00:00:01 sh -c  sleep 5
"""


def test_only_the_containers_processes():
    answer = select_processes(PS, {200, 300})
    assert answer.Titles == ["UID", "PID", "PPID", "C", "STIME", "TTY", "TIME", "CMD"]
    assert answer.Processes == [["me", "200", "1", "0", "10:00", "?", "00:00:01", "sh -c  sleep 5"]]
    with pytest.raises(InvalidParameter, match="Couldn't find PID field in ps output"):
        select_processes("CMD\nsh\n", {1})


def test_mount_points():
    host = HostConfig(
        Binds=["/b:/z:ro,rslave", "/a:/y"],
        Mounts=[Mount(Type="tmpfs", Target="/x"), Mount(Type="bind", Source="/c", Target="/w")],
    )
    mounts = parse_all(host)
    for mount in mounts:
        settle_propagation(mount, "/var/lib/pier")
    shown = [
        (point.Type, point.Source, point.Destination, point.Mode, point.RW, point.Propagation)
        for point in mount_points(mounts)
    ]
    assert shown == [
        ("bind", "/c", "/w", "", True, "rprivate"),
        ("tmpfs", "", "/x", "", True, ""),
        ("bind", "/a", "/y", "", True, "rprivate"),
        ("bind", "/b", "/z", "ro,rslave", False, "rslave"),
    ]
