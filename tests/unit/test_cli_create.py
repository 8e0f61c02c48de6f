"""The create body, field for field as the docker CLI sends it for the same command line.

Both clients are pointed at the recording fake engine; without a docker CLI this is skipped.
"""

import os
import shlex
import shutil
import subprocess
import sys

import pytest
from cli_fake_engine import Answer, FakeEngine

from pier.cli import flags
from pier.cli.create_body import create_body
from pier.cli.create_flags import CREATE_FLAGS

DOCKER = shutil.which("docker")
ID = "ab" * 32

# One line a test; {dir} is a directory with the files used here.
SAME = """
img
img --foo -x
img a b -c
-- img -x
--init img
--init=false img
--name n img
-e A=1 -e HOME -e NOPE_NOT_SET -eB=2 -e C= img
--env-file {dir}/env -e A=2 img
-w /w -u u:g --entrypoint e img
--entrypoint "" img
--entrypoint "a b" img
-h hh.example.com --domainname dd img
--hostname=a --workdir=b img
-m 64m --memory-reservation 32m --memory-swap 128m img
--memory-swap -1 img
-m 1.5g img
-m 1kib img
-m 10b img
-m "10 mb" img
--memory-swappiness 50 img
--cpus 1.5 img
--cpus .5 img
-c 10 --cpu-quota 5 --cpu-period 6 --cpuset-cpus 0 --cpuset-mems 0 img
--cpu-rt-period 5 --cpu-rt-runtime 6 img
--cpu-shares 0x10 img
--pids-limit -1 img
--read-only --privileged img
--read-only=false img
--cap-add NET_ADMIN --cap-drop all --cap-add net_raw --cap-add CAP_NET_RAW img
--security-opt seccomp={dir}/seccomp.json img
--security-opt seccomp:{dir}/seccomp.json img
--security-opt seccomp=unconfined --security-opt no-new-privileges --security-opt apparmor=x img
--security-opt seccomp=builtin --security-opt label:disable img
--security-opt systempaths=unconfined img
--stop-signal 9 --stop-timeout 0 img
--stop-timeout -1 img
--ulimit nofile=10:20 --ulimit core=-1 --ulimit nproc=5 --ulimit nproc=6 img
--sysctl net.ipv4.ip_forward=1 --sysctl kernel.shmmax=1 img
--label x=y -l z -l a=b=c img
--label-file {dir}/labels -l x=q img
--log-driver x --log-opt max-size=1m --log-opt max-file=2 --log-opt max-size=2m img
--log-driver none img
--restart always img
--restart on-failure:3 img
--restart "" img
--restart always: img
--network none img
--net host img
--network default img
--network bridge img
--network container:X img
--network foo img
--network foo --network bar img
--network host --network none img
--network name=foo,alias=x,ip=1.2.3.4 img
--network name=foo,driver-opt=a=b,mac-address=92:d0:c6:0a:29:33,gw-priority=5 img
--network foo --network-alias a --ip 1.2.3.4 --ip6 ::1 --link-local-ip 1.1.1.1 --link a:b img
--network foo --mac-address 92:d0:c6:0a:29:33 img
--network bridge --mac-address 92:d0:c6:0a:29:33 img
--network bridge --ip 1.2.3.4 --link a:b img
--mac-address 92:d0:c6:0a:29:33 img
--ip 1.2.3.4 img
--link a:b --link c img
--pid host --ipc host --uts host --cgroupns host --cgroup-parent /x --userns host img
--pid container:x --ipc container:y img
--device /dev/null --device /dev/null:/dev/x --device /dev/null:rw --device /dev/a:/dev/x:r img
--device vendor.com/class=name --device /dev/null img
--device-cgroup-rule "c 1:3 rwm" --device-cgroup-rule "a *:* r" img
--group-add 5 --group-add x img
--add-host a=1.2.3.4 --add-host b:::1 --add-host c=[::1] --add-host d:host-gateway img
--dns 1.1.1.1 --dns-search x --dns-option y --dns-opt z img
--dns-search . img
--tmpfs /x --tmpfs /y:size=5m,mode=755 img
--mount type=bind,source=/tmp,target=/x img
--mount type=bind,src=/tmp,dst=/x,readonly img
--mount type=bind,src=/tmp,dst=/x,ro=false,bind-propagation=rslave,bind-recursive=disabled img
--mount type=bind,src=/tmp,dst=/x,ro,bind-recursive=readonly,bind-propagation=rprivate img
--mount type=bind,src=/tmp,dst=/x,bind-recursive=writable,ro img
--mount type=bind,src=/tmp,dst=/x,bind-recursive=enabled img
--mount type=bind,src=./rel,dst=/x,consistency=cached img
--mount '"type=bind","src=/a,b","dst=/x"' img
--mount type=tmpfs,dst=/x,tmpfs-size=5m,tmpfs-mode=1777 img
--mount type=volume,src=v,dst=/x,volume-nocopy,volume-label=a=b,volume-subpath=s img
--mount type=volume,src=v,dst=/x,volume-driver=d,volume-opt=o=p img
--mount src=v,dst=/x --mount dst=/y img
--mount type=image,src=i,dst=/x,image-subpath=q img
-v /a:/b -v name:/b:ro -v /anon -v ./rel:/c -v a:b:c:d img
--volumes-from x --volume-driver d img
--shm-size 64m img
--oom-kill-disable --oom-score-adj 5 img
--annotation a=b --annotation c img
--expose 80 --expose 90-92/udp img
-p 80 -p 8080:80 -p 127.0.0.1:8080:81/udp -p 90-92:90-92 img
-p [::1]:80:81 -p 0.0.0.0::82 -p 90-92:83 img
-P --expose 5 img
-a stdin -a stdout img
-a STDERR -i img
-i img
-t img
-it img
-it=false img
--no-healthcheck img
--health-cmd "curl x" --health-interval 5s --health-retries 3 --health-timeout 1m30s img
--health-start-period 1h --health-start-interval 2s --health-cmd x img
--health-interval 10us img
--runtime r --isolation x img
--blkio-weight 100 --blkio-weight-device /dev/sda:100 img
--device-read-bps /dev/sda:1mb --device-write-bps /dev/sda:2kb img
--device-read-iops /dev/sda:5 --device-write-iops /dev/sda:6 img
--storage-opt size=5G img
--gpus all img
--gpus 2 img
--gpus '"device=0,1",capabilities=utility' img
--rm img
--rm --restart no img
--quiet img
--platform linux/amd64 img
--cidfile {dir}/cid img
img:tag
a.b/c/d:tag
"""

# The first line of stderr and the exit status are the same.
REFUSED = """
-e =x img
-e "" img
--env-file /nope img
--env-file {dir}/badenv img
-m foo img
-m -1 img
-m 1x img
--memory= img
--memory-swappiness 500 img
--cpus foo img
--cpus 1.0000000001 img
--cpu-shares x img
--cpu-shares 99999999999999999999 img
--pids-limit= img
--blkio-weight 70000 img
--blkio-weight x img
--init=foo img
--security-opt seccomp=/nope img
--security-opt foo img
--ulimit nofile=20:10 img
--ulimit foo=1 img
--ulimit nofile img
--ulimit nofile=x img
--sysctl a=b img
--sysctl a img
--label =b img
--log-driver none --log-opt max-size=1m img
--restart on-failure:x img
--restart :3 img
--rm --restart always img
--network foo=bar img
--network foo,alias=x img
--network-alias a img
--mac-address zz img
--pid foo img
--uts foo img
--cgroupns foo img
--userns foo img
--device /dev/null:/dev/x:q img
--device "" img
--device /dev/a:/dev/b:rwm:x img
--device-cgroup-rule "x 1" img
--add-host a img
--add-host a:b img
--dns foo img
--mount type=bind,src=/tmp img
--mount dst=/x,foo=bar img
--mount foo img
--mount type=bind,src=/tmp,dst=/x,volume-nocopy=true img
--mount "" img
--mount type=bind,src=/tmp,dst=/x,ro=maybe img
--mount type=tmpfs,dst=/x,tmpfs-mode=9 img
--mount type=tmpfs,dst=/x,tmpfs-size=9q img
--mount type=bind,src=/tmp,dst=/x,bind-recursive=readonly img
-v "" img
--expose foo img
-p foo img
-p 1.2.3:80:80 img
-p 80:80/foo img
-p 90-92:80-81 img
-p 99999:80 img
-a foo img
--pull foo img
--health-interval foo img
--health-interval 5 img
--health-retries -1 img
--no-healthcheck --health-cmd x img
--blkio-weight-device foo img
--blkio-weight-device /dev/x:5 img
--device-read-bps foo img
--device-read-bps /dev/x:foo img
--device-read-iops /dev/x:foo img
--storage-opt size img
--gpus foo img
--cidfile {dir}/env img
--foo img
-x img
-dit img
--name
-e
IMG
"""


@pytest.fixture
def files(tmp_path):
    (tmp_path / "env").write_text('#c\nA=1\nHOME\n\nB="q"\n  C=  x\nNOPE_NOT_SET\n')
    (tmp_path / "badenv").write_text("A B=1\n")
    (tmp_path / "labels").write_text("x=y\n#z\nw\n")
    (tmp_path / "seccomp.json").write_text('{"defaultAction": "SCMP_ACT_ALLOW",\n "x": "<é>"}\n')
    return tmp_path


@pytest.fixture
def fake(tmp_path):
    engine = FakeEngine(str(tmp_path / "s"))
    engine.routes["POST /containers/create"] = Answer(201, {"Id": ID, "Warnings": []})
    yield engine
    engine.close()


def lines(text):
    return [line for line in text.split("\n") if line]


def call(program, fake, arguments, cwd):
    fake.requests.clear()
    result = subprocess.run(
        [*program, "-H", fake.host, "create", *arguments],
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        cwd=cwd,
        check=False,
    )
    if os.path.exists(cwd / "cid"):
        os.unlink(cwd / "cid")
    requests = fake.sent("POST", "/containers/create")
    return result, requests[0] if requests else None


PIER = [sys.executable, "-m", "pier.cli.main"]


def normal(body):
    """Docker sends what it keeps in Go maps in any order."""
    for names in (body["Env"], body["HostConfig"]["Binds"]):
        if names:
            names.sort()
    return body


@pytest.mark.skipif(DOCKER is None, reason="no docker CLI to compare with")
@pytest.mark.parametrize("line", lines(SAME))
def test_body_is_dockers(line, fake, files):
    arguments = shlex.split(line.format(dir=files))
    docker, expected = call([DOCKER], fake, arguments, files)
    pier, sent = call(PIER, fake, arguments, files)
    assert docker.returncode == 0, docker.stderr
    assert pier.returncode == 0, pier.stderr
    assert normal(sent.json) == normal(expected.json)
    assert sent.query == expected.query
    assert pier.stdout == docker.stdout


@pytest.mark.skipif(DOCKER is None, reason="no docker CLI to compare with")
@pytest.mark.parametrize("line", lines(REFUSED))
def test_refusal_is_dockers(line, fake, files):
    arguments = shlex.split(line.format(dir=files))
    docker, _ = call([DOCKER], fake, arguments, files)
    pier, _ = call(PIER, fake, arguments, files)
    expected = docker.stderr.replace("docker:", "pier:", 1)
    assert pier.stderr.split("\n")[0] == expected.split("\n")[0]
    assert pier.returncode == docker.returncode


def body_of(*arguments):
    return create_body(flags.parse(CREATE_FLAGS, arguments, interspersed=False))


def test_defaults_without_docker():
    body = body_of("img")
    assert body["Cmd"] is None
    assert (body["AttachStdin"], body["AttachStdout"], body["AttachStderr"]) == (False, True, True)
    assert body["HostConfig"]["NetworkMode"] == "default"
    assert body["HostConfig"]["MemorySwappiness"] == -1
    assert "Init" not in body["HostConfig"]


def test_detached_attaches_nothing():
    options = flags.parse(CREATE_FLAGS, ["-i", "img"], interspersed=False)
    body = create_body(options, detached=True)
    assert not any(body[name] for name in ("AttachStdin", "AttachStdout", "AttachStderr"))
    assert body["OpenStdin"]
    assert not body["StdinOnce"]


def test_command_keeps_its_own_flags():
    body = body_of("-e", "A=1", "img", "sh", "-c", "--rm", "x")
    assert body["Cmd"] == ["sh", "-c", "--rm", "x"]
    assert not body["HostConfig"]["AutoRemove"]
