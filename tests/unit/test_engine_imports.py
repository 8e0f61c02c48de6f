"""What pierd does not load before somebody needs it: memory of every engine that builds nothing."""

import subprocess
import sys

LATER = ("hpack", "pier.buildkit", "pier.grpc")


def test_no_grpc_before_a_client_speaks_it() -> None:
    code = "import sys, pier.engine_main; print(*sys.modules, sep='\\n')"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    loaded = done.stdout.split()
    assert "pier.engine.builds" in loaded
    assert [name for name in loaded if name.startswith(LATER)] == []
