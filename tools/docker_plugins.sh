#!/usr/bin/env bash
# Prints a directory with docker-buildx and docker-compose, the plugins of the docker command: out
# of Debian sid's packages, which are unpacked below .cache and never installed, or out of the root
# of peers that PIER_PEERS_ROOT names. PIER_DOCKER_PLUGINS names a directory to take instead.
set -euo pipefail
cd "$(dirname "$0")/.."

inside=usr/libexec/docker/cli-plugins
if [ -n "${PIER_DOCKER_PLUGINS:-}" ]; then
  echo "$PIER_DOCKER_PLUGINS"
  exit
fi
if [ -n "${PIER_PEERS_ROOT:-}" ] && [ -x "$PIER_PEERS_ROOT/$inside/docker-buildx" ]; then
  echo "$PIER_PEERS_ROOT/$inside"
  exit
fi
root=$PWD/.cache/docker-plugins
if [ ! -x "$root/$inside/docker-buildx" ] || [ ! -x "$root/$inside/docker-compose" ]; then
  # Stable's buildx is too old for bake.
  tools/sid_packages.sh "$root" docker-buildx docker-compose
fi
echo "$root/$inside"
