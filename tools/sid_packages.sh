#!/usr/bin/env bash
# Unpacks packages of Debian sid, which know today's Docker, below a directory. None is installed, and
# the machine's own package lists stay as they are.
#
#   sid_packages.sh DIRECTORY PACKAGE...
#
# Fails, having made nothing, where the machine has no mirror of Debian (Ubuntu).
set -euo pipefail
root=$(realpath -m "${1:?directory}")
shift
# The machine's own mirror, whatever its release.
mirror=$(grep -rhoE 'https?://[^ ]+/debian/?( |$)' /etc/apt/sources.list* | head -n 1 | tr -d ' ' || true)
keyring=/usr/share/keyrings/debian-archive-keyring.gpg
if [ -z "$mirror" ]; then
  echo "sid_packages.sh: no Debian mirror in /etc/apt for $*" >&2
  exit 1
fi
staging=$root.new
rm -rf "$staging"
trap 'rm -rf "$staging"' EXIT
mkdir -p "$staging/apt/lists/partial" "$staging/apt/cache/archives/partial" "$staging/debs" "$staging/root"
echo "deb [signed-by=$keyring] $mirror sid main" >"$staging/apt/sources.list"
apt=(-o "Dir::Etc::SourceList=$staging/apt/sources.list" -o Dir::Etc::SourceParts=/dev/null
  -o "Dir::State::Lists=$staging/apt/lists" -o "Dir::Cache=$staging/apt/cache"
  -o Acquire::Check-Valid-Until=false -o APT::Sandbox::User=root)
apt-get "${apt[@]}" update -qq >&2
(cd "$staging/debs" && apt-get "${apt[@]}" download -qq "$@" >&2)
for package in "$staging"/debs/*.deb; do dpkg-deb -x "$package" "$staging/root"; done
rm -rf "$root"
mv "$staging/root" "$root"
