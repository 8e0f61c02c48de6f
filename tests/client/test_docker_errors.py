"""What goes wrong, with Docker's exit code and Docker's words."""

import pytest

from engine_process import Client

# flags and command; exit code; what standard error says. IMAGE stands for the image's name.
RUN_FAILURES = {
    "no such image": (["--pull=never", "nothere"], 125, "No such image: nothere:latest"),
    "image is pulled in vain": (["nothere"], 125, "Unable to find image 'nothere:latest' locally"),
    "command not found": (
        ["IMAGE", "nothere"],
        127,
        'exec: "nothere": executable file not found in $PATH',
    ),
    "path not found": (["IMAGE", "/nothere"], 127, "no such file or directory"),
    "not executable": (["IMAGE", "/etc/passwd"], 126, "permission denied"),
    "a directory": (["IMAGE", "/etc"], 126, ""),
    "empty entrypoint": (["--entrypoint", "", "IMAGE"], 125, "no command specified"),
    "user unknown": (
        ["-u", "nobody9", "IMAGE", "true"],
        125,
        "unable to find user nobody9: no matching entries in passwd file",
    ),
    "group unknown": (
        ["-u", "root:nogroup9", "IMAGE", "true"],
        125,
        "unable to find group nogroup9: no matching entries in group file",
    ),
    "extra group unknown": (
        ["--group-add", "nogroup9", "IMAGE", "true"],
        125,
        "nogroup9",
    ),
    "relative directory": (
        ["-w", "here", "IMAGE", "true"],
        125,
        "the working directory 'here' is invalid, it needs to be an absolute path",
    ),
    "directory is a file": (["-w", "/etc/passwd", "IMAGE", "true"], 125, "Cannot mkdir"),
    "bind source missing": (
        ["--mount", "type=bind,source=/nothere9,target=/x", "IMAGE", "true"],
        125,
        'invalid mount config for type "bind": bind source path does not exist: /nothere9',
    ),
    "mount target relative": (
        ["--mount", "type=bind,source=/tmp,target=x", "IMAGE", "true"],
        125,
        "invalid mount path: 'x' mount path must be absolute",
    ),
    "mount on root": (
        ["--mount", "type=bind,source=/tmp,target=/", "IMAGE", "true"],
        125,
        "invalid specification: destination can't be '/'",
    ),
    "duplicate mount": (
        ["-v", "/tmp:/x", "-v", "/etc:/x", "IMAGE", "true"],
        125,
        "Duplicate mount point: /x",
    ),
    "memory too small": (["-m", "1m", "IMAGE", "true"], 125, "Minimum memory limit allowed is 6MB"),
    "swap below memory": (
        ["-m", "32m", "--memory-swap", "16m", "IMAGE", "true"],
        125,
        "Minimum memoryswap limit should be larger than memory limit, see usage",
    ),
    "too many cpus": (["--cpus", "4096", "IMAGE", "true"], 125, "range of CPUs is from 0.01 to"),
    "cpus and quota": (
        ["--cpus", "1", "--cpu-quota", "1000", "IMAGE", "true"],
        125,
        "Conflicting options: Nano CPUs and CPU Quota cannot both be set",
    ),
    "cpuset out of range": (
        ["--cpuset-cpus", "4096", "IMAGE", "true"],
        125,
        "Requested CPUs are not available - requested 4096",
    ),
    "capability unknown": (["--cap-add", "NOPE", "IMAGE", "true"], 125, '"CAP_NOPE"'),
    "security option unknown": (
        ["--security-opt", "nope=1", "IMAGE", "true"],
        125,
        'invalid --security-opt 2: "nope=1"',
    ),
    "network unknown": (["--network", "net9", "IMAGE", "true"], 125, "network net9 not found"),
    "joins nobody": (
        ["--network", "container:nobody9", "IMAGE", "true"],
        125,
        "No such container: nobody9",
    ),
    "name malformed": (
        ["--name", "a b", "IMAGE", "true"],
        125,
        "Invalid container name (a b), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed",
    ),
    "log driver unknown": (["--log-driver", "nope", "IMAGE", "true"], 125, "nope"),
    "log option unknown": (
        ["--log-opt", "nope=1", "IMAGE", "true"],
        125,
        "unknown log opt 'nope' for json-file log driver",
    ),
    "stop signal unknown": (
        ["--stop-signal", "SIGNOPE", "IMAGE", "true"],
        125,
        "invalid signal: SIGNOPE",
    ),
    "device missing": (
        ["--device", "/dev/nope9", "IMAGE", "true"],
        127,  # the client takes "no such file or directory" for a missing command
        "error gathering device information while adding custom device",
    ),
    "exit code": (["IMAGE", "sh", "-c", "exit 42"], 42, ""),
    "killed by a signal": (["--init", "IMAGE", "sh", "-c", "kill -9 $$"], 137, ""),
    "terminated": (["--init", "IMAGE", "sh", "-c", "kill -15 $$"], 143, ""),
}


@pytest.mark.parametrize("case", RUN_FAILURES)
def test_run(docker: Client, image: str, case: str) -> None:
    words, code, message = RUN_FAILURES[case]
    done = docker("run", "--rm", *(image if w == "IMAGE" else w for w in words), check=False)
    assert message in done.stderr
    assert done.returncode == code, done.stderr


@pytest.mark.parametrize(
    ("policy", "message"),
    [
        ("sometimes", "invalid restart policy: unknown policy 'sometimes'"),
        ("always:3", "invalid restart policy: maximum retry count can only be used with"),
    ],
)
def test_restart_policy(docker: Client, image: str, policy: str, message: str) -> None:
    done = docker("run", "--restart", policy, image, "true", check=False)
    assert message in done.stderr
    assert done.returncode == 125


def test_failed_start_leaves_the_container_created(docker: Client, image: str) -> None:
    assert docker("run", "--name", "unborn", image, "nothere", check=False).returncode == 127
    state = docker("inspect", "-f", "{{.State.Status}} {{.State.ExitCode}}", "unborn").stdout
    assert state == "created 127\n"
    assert (
        "executable file not found" in docker("inspect", "-f", "{{.State.Error}}", "unborn").stdout
    )


def test_name_in_use(docker: Client, image: str) -> None:
    first = docker("create", "--name", "taken", image).stdout.strip()
    done = docker("create", "--name", "taken", image, check=False)
    assert (
        'Conflict. The container name "/taken" is already in use by container '
        f'"{first}". You have to remove (or rename) that container to be able to reuse that name.'
    ) in done.stderr
    assert docker("run", "--name", "taken", image, check=False).returncode == 125


EXEC_FAILURES = {
    "command not found": (
        ["NAME", "nothere"],
        127,
        'exec: "nothere": executable file not found in $PATH',
    ),
    "not executable": (["NAME", "/etc/passwd"], 126, "permission denied"),
    "exit code": (["NAME", "sh", "-c", "exit 7"], 7, ""),
    "killed": (["NAME", "sh", "-c", "kill -9 $$"], 137, ""),
    "no such container": (["nobody9", "true"], 1, "No such container: nobody9"),
    "user unknown": (
        ["-u", "nobody9", "NAME", "true"],
        1,
        "unable to find user nobody9: no matching entries in passwd file",
    ),
    "directory missing": (["-w", "/nothere", "NAME", "true"], 127, 'chdir to cwd ("/nothere")'),
}


@pytest.mark.parametrize("case", EXEC_FAILURES)
def test_exec(docker: Client, image: str, case: str) -> None:
    words, code, message = EXEC_FAILURES[case]
    docker("run", "-d", "--name", "target", image, "sleep", "60")
    done = docker("exec", *("target" if w == "NAME" else w for w in words), check=False)
    assert message in done.stderr + done.stdout
    assert done.returncode == code, done.stderr + done.stdout


# what was done before; the command; what it says. All of these end with 1.
STATE_FAILURES = {
    "exec in a stopped one": (["run"], ["exec", "it", "true"], "is not running"),
    "exec in a paused one": (["run -d", "pause"], ["exec", "it", "true"], "is paused"),
    "pause a stopped one": (["run"], ["pause", "it"], "is not running"),
    "pause a paused one": (["run -d", "pause"], ["pause", "it"], "is already paused"),
    "unpause a running one": (["run -d"], ["unpause", "it"], "is not paused"),
    "kill a stopped one": (["run"], ["kill", "it"], "is not running"),
    "kill with nonsense": (["run -d"], ["kill", "-s", "NOPE", "it"], "invalid signal: NOPE"),
    "start a paused one": (
        ["run -d", "pause"],
        ["start", "it"],
        "cannot start a paused container, try unpause instead",
    ),
    "remove a running one": (
        ["run -d"],
        ["rm", "it"],
        "container is running: stop the container before removing or force remove",
    ),
    "remove a paused one": (
        ["run -d", "pause"],
        ["rm", "it"],
        "container is paused and must be unpaused first",
    ),
    "attach to a stopped one": (
        ["run"],
        ["attach", "it"],
        "cannot attach to a stopped container, start it first",
    ),
    "attach to a paused one": (
        ["run -d", "pause"],
        ["attach", "it"],
        "cannot attach to a paused container, unpause it first",
    ),
    "rename to a taken name": (
        ["run -d", "create other"],
        ["rename", "it", "other"],
        'The container name "/other" is already in use',
    ),
    "rename to its own name": (
        ["run -d"],
        ["rename", "it", "it"],
        "Renaming a container with the same name as its current name",
    ),
    "top of a stopped one": (["run"], ["top", "it"], "is not running"),
    "logs of nobody": ([], ["logs", "nobody9"], "No such container: nobody9"),
    "remove nobody": ([], ["rm", "nobody9"], "No such container: nobody9"),
    "stop nobody": ([], ["stop", "nobody9"], "No such container: nobody9"),
    "start nobody": ([], ["start", "nobody9"], "No such container: nobody9"),
    "wait for nobody": ([], ["wait", "nobody9"], "No such container: nobody9"),
    "inspect nobody": ([], ["container", "inspect", "nobody9"], "No such container: nobody9"),
    "inspect no image": ([], ["image", "inspect", "nothere9"], "No such image: nothere9"),
    "remove no image": ([], ["rmi", "nothere9"], "No such image: nothere9"),
    "tag no image": ([], ["tag", "nothere9", "x"], "No such image: nothere9:latest"),
    "remove a used image": (
        ["run -d"],
        ["rmi", "IMAGE"],
        "unable to remove repository reference",
    ),
    "filter unknown": ([], ["ps", "--filter", "nope=1"], "invalid filter 'nope'"),
    "status filter unknown": (
        [],
        ["ps", "--filter", "status=nope"],
        "invalid filter 'status=nope'",
    ),
}


@pytest.mark.parametrize("case", STATE_FAILURES)
def test_wrong_state(docker: Client, sole_image: str, case: str) -> None:
    image = sole_image
    before, words, message = STATE_FAILURES[case]
    for step in before:
        match step.split():
            case ["run", "-d"]:
                docker("run", "-d", "--name", "it", image, "sleep", "60")
            case ["run"]:
                docker("run", "--name", "it", image, "true")
            case ["create", name]:
                docker("create", "--name", name, image)
            case [verb]:
                docker(verb, "it")
            case _:
                raise AssertionError(step)
    done = docker(*(image if w == "IMAGE" else w for w in words), check=False)
    assert message in done.stderr
    assert done.returncode == 1
