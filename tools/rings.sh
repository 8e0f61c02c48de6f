#!/usr/bin/env bash
# Runs some of make's targets beside others: the output of the first list is seen as it comes, that
# of the second in one piece when both are over. Both run to their end, and what each ring counted
# stands once more below. Fails when anything of either failed.
#
#   rings.sh "TARGET…" "TARGET…"
set -uo pipefail
cd "$(dirname "$0")/.."

logs=$(mktemp -d)
started=()
finish() {
  trap - EXIT
  [ "${#started[@]}" = 0 ] || kill "${started[@]}" 2>/dev/null
  wait # their fixtures clean up
  rm -rf "$logs"
  exit "${1:-1}"
}
trap 'finish 130' INT
trap 'finish 143' TERM
trap 'finish $?' EXIT

# exec: the signal is for make, which hands it on.
# shellcheck disable=SC2086 # lists of targets
make_all() { exec "${MAKE:-make}" --no-print-directory --keep-going $1; }

mkfifo "$logs/shown"
tee "$logs/first" <"$logs/shown" &
(make_all "$1") >"$logs/shown" 2>&1 &
first=$!
(make_all "$2") >"$logs/second" 2>&1 &
second=$!
started=("$first" "$second")
wait "$first"
first_code=$?
wait "$second"
second_code=$?
wait
started=()
cat "$logs/second"
echo "--- counted by $1 (exit code $first_code), and by $2 (exit code $second_code):"
grep -hE '^(=+ )?[0-9]+ (passed|failed|skipped|error)|^guest: ' "$logs/first" "$logs/second"
[ "$first_code" = 0 ] && [ "$second_code" = 0 ]
