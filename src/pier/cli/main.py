"""`pier`, the command-line client: global options, dispatch, and the exit status of failures.

Every import here is paid for by every command; what one command needs, that command imports.
"""

import os
import sys

from pier.cli.errors import Exit, Failure

_LEVELS = ("trace", "debug", "info", "warn", "warning", "error", "fatal", "panic")


def main() -> int:
    """Run `sys.argv`; the process's exit status."""
    try:
        _run(sys.argv[1:])
        sys.stdout.flush()
    except Exit as end:
        return _flushed(end.status)
    except Failure as error:
        status = _flushed(error.status)
        sys.stderr.write(f"{error}\n")
        return status
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # Who read our output has gone; the interpreter must not complain while it flushes.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 141
    return 0


def _flushed(status: int) -> int:
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    return status


def _run(argv: list[str]) -> None:
    from pier.cli import catalogue, flags
    from pier.cli.command import Context
    from pier.cli.errors import UsageError
    from pier.cli.kinds import BOOL, LIST, STRING

    global_flags = (
        flags.Flag("host", LIST, "", short="H"),
        flags.Flag("context", STRING, "", short="c"),
        flags.Flag("config", STRING, ""),
        flags.Flag("debug", BOOL, "", short="D"),
        flags.Flag("log-level", STRING, "", short="l", default="info"),
        flags.Flag("tls", BOOL, ""),
        flags.Flag("tlsverify", BOOL, ""),
        flags.Flag("tlscacert", STRING, ""),
        flags.Flag("tlscert", STRING, ""),
        flags.Flag("tlskey", STRING, ""),
        flags.Flag("version", BOOL, "", short="v"),
        flags.Flag("help", BOOL, "", short="h"),
    )
    try:
        options = flags.parse(global_flags, argv, interspersed=False)
    except flags.FlagError as error:
        raise UsageError(
            f"{error}\n\nUsage:  pier [OPTIONS] COMMAND [ARG...]\n\n"
            "Run 'pier --help' for more information",
            125,
        ) from None
    if options.on("version"):
        from pier import __version__

        print(f"Pier version {__version__}")
    elif options.on("help") or not options.args:
        sys.stdout.write(catalogue.top_help())
    else:
        if options.text("config"):
            os.environ["DOCKER_CONFIG"] = options.text("config")
        tls = {
            "ca": options.text("tlscacert"),
            "cert": options.text("tlscert"),
            "key": options.text("tlskey"),
            "on": options.on("tls"),
            "verify": options.on("tlsverify"),
        }
        level = options.text("log-level")
        if level.lower() not in _LEVELS:
            raise Failure(f"Unable to parse logging level: {level}")
        debug = options.on("debug") or level.lower() in ("trace", "debug")
        context = Context(options.list("host"), options.text("context"), tls, debug=debug)
        catalogue.run(context, options.args)


if __name__ == "__main__":
    sys.exit(main())
