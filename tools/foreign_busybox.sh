#!/usr/bin/env bash
# Fetches Debian's static busybox of another architecture, out of this machine's own package sources.
#
#   foreign_busybox.sh ARCHITECTURE FILE      e.g. arm64 .cache/busybox-arm64
#
# Nothing of the machine's own package lists is touched.
set -euo pipefail
architecture=${1:?architecture} file=$(realpath -m "${2:?file}")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir -p "$work"/{state/lists/partial,cache/archives/partial} "$(dirname "$file")"
touch "$work/status"
options=(-qq -o "APT::Architecture=$architecture" -o "APT::Architectures=$architecture"
  -o "Dir::State=$work/state" -o "Dir::State::status=$work/status" -o "Dir::Cache=$work/cache"
  -o APT::Sandbox::User=root -o Acquire::Languages=none -o Acquire::Check-Valid-Until=false)
apt-get "${options[@]}" update >&2 || true
cd "$work"
apt-get "${options[@]}" download busybox-static >&2
dpkg-deb --fsys-tarfile ./busybox-static_*.deb | tar -x -O --wildcards '*bin/busybox' >"$file.part"
chmod 755 "$file.part"
mv "$file.part" "$file"
