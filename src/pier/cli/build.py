"""`pier build`: a context is sent to the engine, or fetched by it, and becomes an image.

What the engine's classic route does not know is in parameters that begin with `pier.` (docs/build.md).
"""

import os
import sys

from pier.cli import kinds
from pier.cli.build_context import body_of, is_remote
from pier.cli.command import Command
from pier.cli.config_file import proxies
from pier.cli.errors import Exit, Failure
from pier.cli.flags import Flag

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from pier.cli.build_outputs import Outputs
    from pier.cli.build_show import Show
    from pier.cli.command import Context
    from pier.cli.flags import Options
    from pier.cli.http import Response

_PROGRESS = ("auto", "plain", "tty", "rawjson", "quiet")
_CALLS = ("build", "check", "lint", "outline", "targets")


def _build(context: "Context", options: "Options") -> None:
    import json

    from pier.cli import build_show
    from pier.cli.build_outputs import Outputs
    from pier.cli.build_session import BuildSession, Sources

    progress = options.text("progress") or os.environ.get("BUILDKIT_PROGRESS", "auto")
    if progress not in _PROGRESS:
        raise Failure(f"invalid progress mode {progress}")
    call = "check" if options.on("check") else options.text("call").partition(",")[0]
    if call not in _CALLS:
        raise Failure(f'invalid call "{call}"')
    quiet = options.on("quiet") or progress == "quiet"
    sources, outputs = Sources(), Outputs(options)
    query = _query(options, outputs, context.client.host) | _own(options, sources)
    query["pier.call"] = {"build": None, "lint": "check"}.get(call, call)
    body, content_type = None, ""
    source = options.args[0]
    if is_remote(source):
        query |= {"remote": source, "dockerfile": options.text("file") or None}
    else:
        body, content_type, query["dockerfile"] = body_of(source, options.text("file"))
    session = BuildSession(context.client, sources)
    show = build_show.make("quiet" if quiet or call != "build" else progress, sys.stderr)
    try:
        if call == "build":
            session.start()
            query["pier.session"] = session.id
        response = context.client.request(
            "POST",
            "/build",
            query,
            body=body,
            content_type=content_type,
            headers={"X-Registry-Config": _registries(json)},
        )
        found = _follow(context, response, show, outputs)
    finally:
        session.close()
        if body is not None:
            body.close()
    if call != "build":
        _answer(found, options.text("call").partition("format=")[2], call)
    outputs.wait()
    if quiet and found.get("ID"):
        print(found["ID"])
    _files(options, found)


def _follow(
    context: "Context", response: "Response", show: "Show", outputs: "Outputs"
) -> "dict[str, Any]":
    """Show what the build tells; return its result. Raises Failure for its error."""
    found: dict[str, Any] = {}
    failure: dict[str, Any] = {}
    ended = False
    try:
        for record in response.json_lines():
            if record.get("error"):
                ended = True
                show.end(failure)
                code = (record.get("errorDetail") or {}).get("code") or 1
                said = failure.get("reason") or record["error"]
                raise Failure(f"ERROR: failed to build: failed to solve: {said}", code)
            if (aux := record.get("aux")) is not None:
                if told := aux.get("Export"):
                    outputs.take(context.client, told)
                found |= {key: value for key, value in aux.items() if value}
            elif (told := record.get("failure")) is not None:
                failure = told
            elif (told := record.get("answer")) is not None:
                found["answer"] = told
            elif (told := record.get("shell")) is not None:
                _enter(context, show, told)
            else:
                show.add(record)
    finally:
        if not ended:
            show.end({})
    return found


def _enter(context: "Context", show: "Show", told: "dict[str, Any]") -> None:
    """Let the user into a step that failed; the build goes on, to its end, after that."""
    from pier.cli.build_shell import enter

    show.pause()
    show.say("The step failed. This is a shell in its state; the build ends with it.")
    enter(context.client, str(told["container"]), tty=_has_terminal())


def _answer(found: "dict[str, Any]", form: str, call: str) -> None:
    """Print what was asked for instead of a build. Raises Exit for findings."""
    import json

    answer = found.get("answer") or {}
    count = int(answer.get("count") or 0)
    if form == "json":
        print(json.dumps(answer.get("document"), indent=2))
    elif call in ("check", "lint"):
        if count:
            noun = "1 warning has" if count == 1 else f"{count} warnings have"
            print(f"Check complete, {noun} been found!")
            sys.stdout.write(str(answer["text"]))
        else:
            print("Check complete, no warnings found.")
    else:
        sys.stdout.write(str(answer.get("text", "")))
    if text := answer.get("error"):
        sys.stdout.flush()
        raise Failure(f"ERROR: {text}")
    if count:
        sys.stdout.flush()
        raise Exit(1)


def _files(options: "Options", found: "dict[str, Any]") -> None:
    import json

    if path := options.text("iidfile"):
        with open(path, "w", encoding="ascii") as file:
            file.write(str(found.get("ID", "")))
    if path := options.text("metadata-file"):
        import base64

        values = dict(found.get("Exported") or {})
        if "ID" in found:
            values.setdefault("containerimage.config.digest", found["ID"])
        if encoded := values.get("containerimage.descriptor"):
            values["containerimage.descriptor"] = json.loads(base64.b64decode(encoded))
        with open(path, "w", encoding="utf-8") as file:
            json.dump(values, file, indent=2, sort_keys=True)


def _json(value: "Any") -> "str | None":
    import json

    return json.dumps(value) if value else None


def _query(options: "Options", outputs: "Outputs", host: str) -> "dict[str, Any]":
    """Docker's parameters of POST /build, and those that Pier's engine reads in the same way."""
    arguments = {}
    for text in options.list("build-arg"):
        name, equals, value = text.partition("=")
        arguments[name] = value if equals else os.environ.get(name)
    labels = dict(text.partition("=")[::2] for text in options.list("label"))
    attested = _attested(options)
    return {
        "t": options.list("tag") or None,
        "target": options.text("target") or None,
        "buildargs": _json(arguments | proxies(host, arguments)),
        "labels": _json(labels),
        "cachefrom": _json(_caches(options.list("cache-from"))),
        "cacheto": _json(_caches(options.list("cache-to"))),
        "nocache": options.on("no-cache") or None,
        "pull": options.on("pull") or None,
        "rm": options.on("rm"),
        "forcerm": options.on("force-rm") or None,
        "platform": ",".join(options.list("platform")) or os.environ.get("DOCKER_DEFAULT_PLATFORM"),
        "networkmode": options.text("network") or None,
        "extrahosts": options.list("add-host") or None,
        "shmsize": options.number("shm-size") or None,
        "memory": options.number("memory") or None,
        "memswap": options.number("memory-swap") or None,
        "cpushares": options.number("cpu-shares") or None,
        "cpuperiod": options.number("cpu-period") or None,
        "cpuquota": options.number("cpu-quota") or None,
        "cpusetcpus": options.text("cpuset-cpus") or None,
        "cpusetmems": options.text("cpuset-mems") or None,
        "cgroupparent": options.text("cgroup-parent") or None,
        "ulimits": _json(options.list("ulimit")),
        "outputs": _json(outputs.orders),
        "provenance": options.text("provenance") or attested.get("provenance"),
        "sbom": options.text("sbom") or attested.get("sbom"),
    }


def _caches(texts: "list[str]") -> "list[str]":
    """Make the paths of local caches whole: they are the engine's, which is on this machine."""
    found = []
    for text in texts:
        words = text.split(",")
        if "type=local" in words:
            pairs = [word.partition("=") for word in words]
            words = [
                f"{key}={os.path.abspath(value)}"
                if key in ("src", "dest")
                else f"{key}{is_}{value}"
                for key, is_, value in pairs
            ]
        found.append(",".join(words))
    return found


def _has_terminal() -> bool:
    return sys.stdin.isatty() and sys.stdout.isatty()


def _attested(options: "Options") -> "dict[str, str]":
    """Read --attest type=provenance,mode=max and the like. Raises Failure."""
    found = {}
    for text in options.list("attest"):
        words = dict(word.partition("=")[::2] for word in text.split(","))
        kind = words.pop("type", "")
        if kind not in ("provenance", "sbom"):
            raise Failure(f'unknown attestation type "{kind}"')
        found[kind] = ",".join(f"{key}={value}" for key, value in words.items()) or "true"
    return found


def _own(options: "Options", sources: "Any") -> "dict[str, Any]":
    """Pier's own parameters."""
    for text in options.list("secret"):
        sources.add_secret(text)
    for text in options.list("ssh"):
        sources.add_agent(text)
    contexts = dict(sources.add_context(text) for text in options.list("build-context"))
    if path := options.text("cache-mounts-from"):
        sources.add_file("cache-mounts", path)
    on_error = options.text("on-error")
    if on_error not in ("", "shell"):
        raise Failure(f"invalid value for --on-error: {on_error}: there is shell")
    return {
        "pier.progress": True,
        "pier.allow": _json([*options.list("allow"), "network.host"]),
        "pier.contexts": _json(contexts),
        "pier.no-cache-filter": _json(options.list("no-cache-filter")),
        "pier.cache-mounts-from": bool(options.text("cache-mounts-from")) or None,
        "pier.cache-mounts-to": bool(options.text("cache-mounts-to")) or None,
        "pier.explain": options.on("explain") or None,
        "pier.on-error": ("terminal" if _has_terminal() else "shell") if on_error else None,
    }


def _registries(json: "Any") -> str:
    """X-Registry-Config: the credentials of all registries that the configuration names."""
    import base64

    from pier.cli import credentials

    known = {server: credentials.load(server) for server in credentials.servers()}
    document = json.dumps({server: found for server, found in known.items() if found})
    return base64.urlsafe_b64encode(document.encode()).decode()


BUILD = Command(
    "build [OPTIONS] PATH | URL | -",
    "Build an image from a Dockerfile",
    _build,
    arity=(1, 1),
    options=(
        Flag("add-host", kinds.EXTRA_HOST, 'Add a custom host-to-IP mapping ("host:ip")'),
        Flag("allow", kinds.STRINGS, "Allow extra privileged entitlement (security.insecure)"),
        Flag("annotation", kinds.LIST, "Add annotation to the image"),
        Flag("attest", kinds.LIST, 'Attestation parameters (format: "type=sbom,…")'),
        Flag("build-arg", kinds.LIST, "Set build-time variables"),
        Flag("build-context", kinds.LIST, 'Additional build contexts (e.g., "name=path")'),
        Flag("cache-from", kinds.LIST, "External cache sources (images, or type=registry|local,…)"),
        Flag("cache-to", kinds.LIST, 'Cache export destinations ("type=registry|local|inline,…")'),
        Flag(
            "call",
            kinds.STRING,
            'Set method for evaluating build ("check", "outline", "targets")',
            default="build",
        ),
        Flag(
            "cache-mounts-from",
            kinds.STRING,
            "Fill cache mounts from a file that was written before",
        ),
        Flag(
            "cache-mounts-to", kinds.STRING, "Write the cache mounts of the build's steps to a file"
        ),
        Flag("cgroup-parent", kinds.STRING, "Set the parent cgroup for RUN instructions"),
        Flag("check", kinds.BOOL, 'Shorthand for "--call=check"'),
        Flag("cpu-period", kinds.INT, "Limit the CPU CFS (Completely Fair Scheduler) period"),
        Flag("cpu-quota", kinds.INT, "Limit the CPU CFS (Completely Fair Scheduler) quota"),
        Flag("cpu-shares", kinds.INT, "CPU shares (relative weight)", short="c"),
        Flag("cpuset-cpus", kinds.STRING, "CPUs in which to allow execution (0-3, 0,1)"),
        Flag("cpuset-mems", kinds.STRING, "MEMs in which to allow execution (0-3, 0,1)"),
        Flag("explain", kinds.BOOL, "Tell for each step that missed the cache what differs"),
        Flag(
            "file", kinds.STRING, 'Name of the Dockerfile (Default is "PATH/Dockerfile")', short="f"
        ),
        Flag("force-rm", kinds.BOOL, "Always remove intermediate containers"),
        Flag("iidfile", kinds.STRING, "Write the image ID to the file"),
        Flag("label", kinds.LABEL, "Set metadata for an image"),
        Flag("load", kinds.BOOL, 'Shorthand for "--output=type=docker"'),
        Flag("memory", kinds.BYTES, "Memory limit", short="m"),
        Flag("memory-swap", kinds.SWAP, "Swap limit equal to memory plus swap"),
        Flag("metadata-file", kinds.STRING, "Write build result metadata to a file"),
        Flag("network", kinds.STRING, "Set the networking mode for the RUN instructions"),
        Flag("no-cache", kinds.BOOL, "Do not use cache when building the image"),
        Flag("no-cache-filter", kinds.STRINGS, "Do not cache specified stages"),
        Flag("on-error", kinds.STRING, "On a failing RUN: a shell in that step's state (shell)"),
        Flag(
            "output", kinds.LIST, 'Output destination (format: "type=local,dest=path")', short="o"
        ),
        Flag("platform", kinds.STRINGS, "Set target platform for build"),
        Flag(
            "progress",
            kinds.STRING,
            'Set type of progress output ("auto", "plain", "tty", "quiet", "rawjson")',
        ),
        Flag("provenance", kinds.STRING, 'Shorthand for "--attest=type=provenance"'),
        Flag("push", kinds.BOOL, 'Shorthand for "--output=type=registry,unpack=false"'),
        Flag("pull", kinds.BOOL, "Always attempt to pull a newer version of the image"),
        Flag(
            "quiet",
            kinds.BOOL,
            "Suppress the build output and print image ID on success",
            short="q",
        ),
        Flag(
            "rm",
            kinds.BOOL,
            "Remove intermediate containers after a successful build",
            default=True,
            shown="true",
        ),
        Flag("sbom", kinds.STRING, 'Shorthand for "--attest=type=sbom"'),
        Flag(
            "secret",
            kinds.LIST,
            'Secret to expose to the build (format: "id=mysecret[,src=/local/secret]")',
        ),
        Flag("shm-size", kinds.BYTES, 'Size of "/dev/shm"'),
        Flag(
            "ssh",
            kinds.LIST,
            'SSH agent socket to expose to the build (format: "default|<id>[=<socket>]")',
        ),
        Flag("tag", kinds.LIST, 'Name and optionally a tag in the "name:tag" format', short="t"),
        Flag("target", kinds.STRING, "Set the target build stage to build"),
        Flag("ulimit", kinds.ULIMIT, "Ulimit options"),
    ),
    aliases="image build, build, builder build",
)
