#!/usr/bin/env bash
# Makes .venv from the two lock files, hashes required, with Pier itself installed editable.
# A stamp in it names what it was made from, so that the second call is over at once.
set -euo pipefail
cd "$(dirname "$0")/.."

# pip needs certificates; a minimal image has none.
[ -e /etc/ssl/certs/ca-certificates.crt ] || tools/packages.sh ca-certificates

find_python() {
  for candidate in python3 python3.15 python3.14 python3.13 python3.12 python3.11; do
    if command -v "$candidate" >/dev/null 2>&1 &&
      "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then
      command -v "$candidate"
      return
    fi
  done
  return 1
}

if ! python=$(find_python); then
  tools/packages.sh python3
  python=$(find_python) || { echo "venv.sh: Python 3.11 or newer is needed" >&2; exit 1; }
fi
"$python" -c 'import ensurepip, venv' 2>/dev/null || tools/packages.sh python3-venv

# Two rings may ask at once.
exec 9<"$0"
flock 9
stamp=$({ "$python" -c 'import sys; print(sys.version, sys.prefix)'; pwd
  cat requirements.lock requirements-dev.lock pyproject.toml "$0"; } | sha256sum | cut -d' ' -f1)
# Where PYTHONDONTWRITEBYTECODE is set, every start of the client would compile it again.
compile() { .venv/bin/python -m compileall -q src; }
if [ "$(cat .venv/.stamp 2>/dev/null || true)" = "$stamp" ]; then compile; exit 0; fi

# An environment of another interpreter or place is made anew, one of other locks is brought up
# to date in place.
if ! .venv/bin/python -c "
import sys
sys.exit(sys.prefix != '$PWD/.venv' or sys.version != '''$("$python" -c 'import sys; print(sys.version)')''')
" 2>/dev/null; then
  rm -rf .venv
  "$python" -m venv .venv
fi
rm -f .venv/.stamp
pip=(.venv/bin/pip --quiet --disable-pip-version-check)
"${pip[@]}" install --require-hashes -r requirements.lock -r requirements-dev.lock
"${pip[@]}" install --no-deps --no-build-isolation -e .
compile
echo "$stamp" >.venv/.stamp
