"""A Python application, whose wheels are built in a stage, by the genuine compose; pip has its cache."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from projects import APT, BASE, Workshop, replace, steps, write

PIP = (
    "RUN --mount=type=cache,target=/root/.cache/pip"
    " --mount=type=secret,id=pip,target=/etc/pip.conf"
    " --mount=type=secret,id=ca"
    " pip wheel --no-build-isolation --wheel-dir /wheels "
)
DOCKERFILE = f"""\
FROM {BASE} AS python
{APT}python3
FROM python AS wheels
{APT}python3-pip
WORKDIR /src
COPY requirements.txt .
{PIP}-r requirements.txt
COPY pyproject.toml *.py ./
{PIP}--no-deps .
RUN pip install --no-index --find-links /wheels --target /site shop
FROM python
COPY --from=wheels /site /usr/lib/python3/dist-packages
USER nobody
CMD ["python3", "-m", "shop"]
"""
COMPOSE = """
name: shop
services:
  web:
    build: {context: ., secrets: [apt, ca, pip]}
    image: shop/web
    ports: ["127.0.0.1::8080"]
    init: true
secrets:
"""
PROJECT = """
[build-system]
requires = ["setuptools"]
build-backend = "setuptools.build_meta"
[project]
name = "shop"
version = "1.0"
dependencies = ["docopt"]
[tool.setuptools]
py-modules = ["shop"]
"""
SHOP = """
'Usage: shop [--port=N]'
from wsgiref.simple_server import make_server
import docopt

port = int(docopt.docopt(__doc__)["--port"] or 8080)

def shop(environ, respond):
    respond("200 OK", [])
    return [f"apples, by {environ['SERVER_SOFTWARE']}".encode()]

try:
    import waitress
    waitress.serve(shop, port=port)
except ImportError:
    make_server("", port, shop).serve_forever()
"""
DOCOPT = "docopt==0.6.2\n"  # it has no wheel in any index: pip makes one, and keeps it in its cache


@pytest.fixture
def project(workshop: Workshop, tmp_path: Path) -> Iterator[Path]:
    directory = tmp_path / "shop"
    secrets = "".join(f"  {name}: {{file: {path}}}\n" for name, path in workshop.secrets.items())
    files = {
        "Dockerfile": DOCKERFILE,
        "compose.yaml": COMPOSE + secrets,
        "pyproject.toml": PROJECT,
        "requirements.txt": DOCOPT,
        "shop.py": SHOP,
    }
    write(directory, files)
    yield directory
    workshop.close_project()


def test_compose(workshop: Workshop, project: Path, tmp_path: Path) -> None:
    (tmp_path / "config").mkdir()
    client = workshop.plugins(tmp_path / "config")
    compose = ["compose", "--progress=plain", "-f", str(project / "compose.yaml")]

    def up() -> str:
        done = client(*compose, "up", "-d", "--build", timeout=150)
        return done.stdout + done.stderr

    assert "Building wheel for docopt" in up()
    assert workshop.get("shop-web-1", 8080).startswith("apples, by WSGIServer/")
    before = workshop.docker("ps", "-q").stdout

    # One line of the program: nothing is fetched, the requirements' wheels are those of before.
    replace(project / "shop.py", "apples", "pears")
    ended = steps(up())
    ran = {command.rpartition(" --")[2] for command, how in ended.items() if how == "DONE"}
    assert {"no-deps .", "target /site shop"} <= ran
    cached = [command for command, how in ended.items() if how == "CACHED"]
    assert sum("apt-get" in command for command in cached) == 2
    assert sum("-r requirements.txt" in command for command in cached) == 1
    assert workshop.get("shop-web-1", 8080).startswith("pears, by")
    assert workshop.docker("ps", "-q").stdout != before, "the container was replaced"

    # One more requirement: the wheel of the other one, made here, comes out of pip's cache.
    replace(project / "requirements.txt", DOCOPT, DOCOPT + "waitress==3.0.2\n")
    replace(project / "pyproject.toml", '["docopt"]', '["docopt", "waitress"]')
    third = up()
    assert "Using cached docopt" in third
    assert "Building wheel for docopt" not in third
    assert workshop.get("shop-web-1", 8080) == "pears, by waitress"
    client(*compose, "down", "--timeout", "0")
