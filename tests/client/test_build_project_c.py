"""A C program by the classic API, compiled in one stage and run in another; apt has cache mounts."""

import re
import zlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from projects import APT, BASE, CA, Workshop, classic_steps, replace, write

PACKAGES = "gcc libc6-dev zlib1g-dev"
DOCKERFILE = f"""\
FROM {BASE} AS build
{APT}{PACKAGES}
WORKDIR /src
COPY *.h *.c ./
RUN gcc -O1 -o /counter *.c -lz
FROM {BASE}
COPY --from=build /counter /usr/local/bin/
EXPOSE 8080
USER nobody
CMD ["/usr/local/bin/counter"]
"""
TEXT_H = "const char *text(void);\n"
TEXT_C = '#include "text.h"\nconst char *text(void) { return "the first edition"; }\n'
MAIN_C = r"""
#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include <zlib.h>
#include "text.h"

int main(void) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(8080)};
    int listener = socket(AF_INET, SOCK_STREAM, 0), one = 1;
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (bind(listener, (struct sockaddr *)&address, sizeof address) || listen(listener, 8))
        return perror("listen"), 1;
    for (;;) {
        char request[4096];
        int client = accept(listener, NULL, NULL);
        if (client < 0 || read(client, request, sizeof request) <= 0)
            continue;
        dprintf(client, "HTTP/1.0 200 OK\r\n\r\n%s, %08lx, uid %d\n", text(),
                crc32(0, (const Bytef *)text(), strlen(text())), getuid());
        close(client);
    }
}
"""


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("counter")
    files = {"text.h": TEXT_H, "text.c": TEXT_C, "main.c": MAIN_C, "Dockerfile": DOCKERFILE}
    write(directory, files)
    return directory


@pytest.fixture(autouse=True)
def _afterwards(workshop: Workshop) -> Iterator[None]:
    yield
    workshop.close_project()


def ask(workshop: Workshop, image: str) -> str:
    workshop.docker("run", "-d", "--name", "counter", "-P", image)
    said = workshop.get("counter", 8080)
    workshop.docker("rm", "-f", "counter")
    return said


def fetched(output: str) -> str:
    """Of "Need to get 0 B/52 MB of archives.", what there was to fetch."""
    found = re.search(r"Need to get ([\d.]+ k?M?B)[ /]", output)
    assert found, output
    return found[1]


def test_classic(workshop: Workshop, project: Path, tmp_path: Path) -> None:
    write(project, {f"machine/{p.name}": p.read_text() for p in workshop.settings.iterdir()})
    text = DOCKERFILE.replace("type=secret,id=apt", "type=bind,source=machine/apt")
    text = text.replace("type=secret,id=ca", f"type=bind,source=machine/ca,target={CA}")
    write(tmp_path, {"Dockerfile": text})
    command = ("build", "-t", "counter:c", "-f", str(tmp_path / "Dockerfile"), str(project))
    first = workshop.classic(*command, timeout=150).stdout
    assert fetched(first) != "0 B"
    checksum = zlib.crc32(b"the first edition")
    assert ask(workshop, "counter:c") == f"the first edition, {checksum:08x}, uid 65534\n"
    assert "gcc" not in workshop.docker("run", "--rm", "counter:c", "ls", "/usr/bin").stdout
    # What a step had mounted is no part of the image.
    seen = ["ls", "/run/secrets", "/etc/apt/apt.conf.d/99machine"]
    assert workshop.docker("run", "--rm", "counter:c", *seen, check=False).stdout == ""

    replace(project / "text.c", "first", "second")
    again = classic_steps(workshop.classic(*command).stdout)
    (install,) = [command for command in again if "apt-get" in command]
    assert again[install] == "CACHED"
    assert again["RUN gcc -O1 -o /counter *.c -lz"] == "DONE"
    assert again["WORKDIR /src"] == "CACHED"
    assert again["COPY --from=build /counter /usr/local/bin/"] == "DONE"
    assert ask(workshop, "counter:c").startswith("the second edition, ")


def test_buildx_finds_what_the_classic_api_has_fetched(workshop: Workshop, tmp_path: Path) -> None:
    """Cache mounts are the same ones for both, and no part of what is built."""
    (tmp_path / "config").mkdir()
    buildx = workshop.plugins(tmp_path / "config")
    text = f"FROM {BASE}\n{APT}--download-only {PACKAGES}\nRUN ! ls /var/cache/apt/archives/*.deb\n"
    write(tmp_path / "context", {"Dockerfile": text})
    flags = [f"--secret=id={name},src={path}" for name, path in workshop.secrets.items()]
    done = buildx("build", "--progress=plain", *flags, str(tmp_path / "context"), timeout=90)
    assert fetched(done.stderr) == "0 B"
