#!/usr/bin/env bash
# Prints a directory with the docker command: the machine's own, or the one out of Debian's package (sid's
# where that can be had), unpacked below .cache. The package is never installed, so no service of it ever starts.
# PIER_DOCKER_CLI names a directory to take instead.
set -euo pipefail
cd "$(dirname "$0")/.."

if [ -n "${PIER_DOCKER_CLI:-}" ]; then
  echo "$PIER_DOCKER_CLI"
  exit
fi
if found=$(command -v docker); then
  dirname "$found"
  exit
fi
root=$PWD/.cache/docker-cli
if [ ! -x "$root/usr/bin/docker" ]; then
  # Stable's may be years old (Debian 12: 20.10), and know few of the flags that tests use.
  if ! tools/sid_packages.sh "$root" docker-cli; then
    apt-get update -qq >&2 || true
    # Newer releases have the client in a package of its own; before, docker.io held everything.
    package=docker-cli
    apt-cache show "$package" >/dev/null 2>&1 || package=docker.io
    staging=$root.new
    rm -rf "$staging"
    mkdir -p "$staging"
    (cd "$staging" && apt-get download -qq -o APT::Sandbox::User=root "$package" >&2)
    dpkg-deb -x "$staging"/*.deb "$staging"
    rm -rf "$root" "$staging"/*.deb
    mv "$staging" "$root"
  fi
fi
echo "$root/usr/bin"
