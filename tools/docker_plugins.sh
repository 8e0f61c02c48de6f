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
  staging=$root.new
  rm -rf "$staging"
  mkdir -p "$staging/apt/lists/partial" "$staging/apt/cache/archives/partial" "$staging/debs"
  # The machine's own mirror of Debian, whatever its release; stable's buildx is too old for bake.
  mirror=$(grep -rhoE 'https?://[^ ]+/debian/?( |$)' /etc/apt/sources.list* | head -n 1 | tr -d ' ')
  keyring=/usr/share/keyrings/debian-archive-keyring.gpg
  echo "deb [signed-by=$keyring] ${mirror:?no Debian mirror in /etc/apt} sid main" \
    >"$staging/apt/sources.list"
  apt=(-o "Dir::Etc::SourceList=$staging/apt/sources.list" -o Dir::Etc::SourceParts=/dev/null
    -o "Dir::State::Lists=$staging/apt/lists" -o "Dir::Cache=$staging/apt/cache"
    -o Acquire::Check-Valid-Until=false -o APT::Sandbox::User=root)
  apt-get "${apt[@]}" update -qq >&2
  (cd "$staging/debs" && apt-get "${apt[@]}" download -qq docker-buildx docker-compose >&2)
  for package in "$staging"/debs/*.deb; do dpkg-deb -x "$package" "$staging/root"; done
  rm -rf "$root"
  mv "$staging/root" "$root"
  rm -rf "$staging"
fi
echo "$root/$inside"
