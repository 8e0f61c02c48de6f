"""What all rings share: the rings that need root are skipped, with the reason, without it."""

import os
import signal

import pytest

NEED_ROOT = ("kernel", "client", "crash", "vm")


def pytest_configure() -> None:
    # Whoever ends the run with SIGTERM (timeout(1), a CI system) gets the fixtures' clean-up too.
    signal.signal(signal.SIGTERM, signal.default_int_handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if os.geteuid() == 0:
        return
    here = os.path.dirname(os.path.abspath(__file__))
    for item in items:
        ring = os.path.relpath(item.path, here).split(os.sep)[0]
        if ring in NEED_ROOT:
            item.add_marker(pytest.mark.skip(reason=f"the {ring} ring needs root"))
