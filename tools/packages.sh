#!/usr/bin/env bash
# Installs those of the named Debian packages that are missing; does nothing when none is.
#
#   packages.sh PACKAGE...
set -euo pipefail

missing=()
for package in "$@"; do
  state=$(dpkg-query -W -f='${db:Status-Status}' "$package" 2>/dev/null || true)
  [ "$state" = installed ] || missing+=("$package")
done
[ "${#missing[@]}" -gt 0 ] || exit 0

if [ "$(id -u)" != 0 ]; then
  echo "packages.sh: not root; please install: ${missing[*]}" >&2
  exit 1
fi
# Two rings may ask at once.
exec 9<"$0"
flock 9
export DEBIAN_FRONTEND=noninteractive
install=(apt-get install -y -qq -o Dpkg::Use-Pty=0 --no-install-recommends "${missing[@]}")
# The lists may be absent (a fresh image) or name versions that are gone. A foreign source that
# cannot be reached is not our business: whether the packages can be had decides.
apt-get update -qq || true
"${install[@]}" >&2 9>&-
