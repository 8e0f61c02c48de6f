"""`docker top`: the host's ps(1), and of what it shows the container's own processes."""

import asyncio

from pier.errors import Internal, InvalidParameter
from pier.model.api_containers import TopResponse


async def run_ps(arguments: str) -> str:
    """Run ps with a user's arguments ("" is -ef). Raises InvalidParameter with what ps says."""
    words = arguments.split() or ["-ef"]
    try:
        process = await asyncio.create_subprocess_exec(
            "ps",
            *words,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
    except FileNotFoundError as exc:
        raise Internal("ps is not installed on this host (Debian: apt install procps)") from exc
    output, complaint = await process.communicate()
    if process.returncode:
        said = complaint.decode(errors="replace").strip().partition("\n")[0]
        raise InvalidParameter(f"ps: {said or f'exit status {process.returncode}'}")
    return output.decode(errors="replace")


def select_processes(output: str, pids: set[int]) -> TopResponse:
    """Keep the rows of the given processes. Raises InvalidParameter when PID is no column."""
    lines = output.splitlines()
    titles = lines[0].split() if lines else []
    if "PID" not in titles:
        raise InvalidParameter("Couldn't find PID field in ps output")
    column = titles.index("PID")
    rows = []
    for line in lines[1:]:
        # The last column may hold blanks: a command with its arguments.
        fields = line.split(None, len(titles) - 1)
        if len(fields) > column and fields[column].isdigit() and int(fields[column]) in pids:
            rows.append(fields)
    return TopResponse(Titles=titles, Processes=rows)
