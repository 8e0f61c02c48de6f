#!/usr/bin/env bash
# Makes the tar of a minimal Debian root file system, with apt, out of this machine's own package sources.
#
#   debian_root.sh FILE.tar [PACKAGE...]
set -euo pipefail
tar=${1:?file}
shift
include=$(IFS=,; echo "$*")
. /etc/os-release
# Ubuntu's own sources work too: mmdebstrap takes the suite and the mirror from the machine.
suite=${VERSION_CODENAME:-stable}
mkdir -p "$(dirname "$tar")"
trap 'rm -f "$tar.new.tar"' EXIT
# Nothing of it outlives a power cut, and dpkg need not write out each package before the next.
# The machine's signed sources of its distribution, and nothing foreign that may lack this suite.
mmdebstrap --quiet --variant=apt --format=tar ${include:+--include="$include"} \
  --aptopt='Acquire::Check-Valid-Until "false"' \
  --dpkgopt=force-unsafe-io \
  --dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-exclude=/usr/share/locale/*' \
  --dpkgopt='path-exclude=/usr/share/man/*' \
  "$suite" "$tar.new.tar"
mv "$tar.new.tar" "$tar"
