#!/usr/bin/env bash
# Shows Pier at work, with an engine of its own in a temporary directory and a network namespace of
# its own (a bridge, nftables and ip_forward outlive pierd, not the namespace): nothing stays behind.
set -euo pipefail
cd "$(dirname "$0")/.."

export PATH=$PWD/.venv/bin:$PATH
unset DOCKER_HOST DOCKER_CONTEXT
work=$(mktemp -d /var/tmp/pier-demo-XXXXXX)
export PIER_HOST=unix://$work/pier.sock
image=demo/debian
engine=
registry=

clean_up() {
  status=$?
  trap - EXIT
  if [ -n "$registry" ]; then
    kill "$registry" 2>/dev/null || true
    wait "$registry" 2>/dev/null || true
  fi
  if [ -n "$engine" ] && kill -0 "$engine" 2>/dev/null; then
    left=$(pier ps -aq 2>/dev/null || true)
    # shellcheck disable=SC2086 # one identifier a word
    [ -z "$left" ] || pier rm -f $left >/dev/null 2>&1 || true
    kill "$engine" 2>/dev/null || true
    wait "$engine" 2>/dev/null || true
  fi
  if [ "$status" != 0 ]; then
    echo "the demo failed; pierd said:" >&2
    tail -n 30 "$work/pierd.log" >&2 || true
  fi
  rm -rf "$work"
  exit "$status"
}
trap clean_up EXIT
trap 'exit 130' INT TERM

bold() { printf '\n\033[1m%s\033[0m\n' "$*"; }
# Shows a command as one would type it, then runs it.
show() { printf '\033[2m$ %s\033[0m\n' "$*"; "$@"; }

bold "1. An engine of our own, and a Debian out of Debian's packages"
unshare --net -- sh -c 'ip link set lo up && exec "$@"' sh \
  pierd -H "$PIER_HOST" --data-root "$work/data" --exec-root "$work/exec" \
  --pidfile "$work/pierd.pid" >"$work/pierd.log" 2>&1 &
engine=$!
for _ in $(seq 200); do
  [ ! -S "$work/pier.sock" ] || break
  kill -0 "$engine"
  sleep 0.05
done
[ -s .cache/debian-apt.tar ] || show tools/debian_root.sh .cache/debian-apt.tar
show pier import --change 'ENV PATH=/usr/sbin:/usr/bin:/sbin:/bin' --change 'CMD ["bash"]' \
  .cache/debian-apt.tar "$image"
show pier images

bold "2. Detached: it runs, it logs, it is looked into"
show pier run -d --name clock "$image" bash -c 'for n in {1..600}; do echo "tick $n"; sleep 0.1; done'
sleep 0.5
show pier ps
show pier logs --tail 3 -t clock
show pier exec clock sh -c 'echo "I am $(id -un), process $$ beside: $(cat /proc/1/comm)"'
show pier top clock -o pid,ppid,comm

bold "3. Interactive, on a terminal"
# script(1) is the terminal, 30 by 100: what stands on its input is what somebody types.
printf 'tty; stty size; cat /etc/debian_version\nexit\n' |
  script -qec "stty rows 30 cols 100; pier run -it --rm -e TERM=dumb $image bash --norc" /dev/null

bold "4. Its layers, its namespaces"
pid=$(pier inspect -f '{{.State.Pid}}' clock)
show pier inspect -f '{{.GraphDriver.Name}}
  lower {{.GraphDriver.Data.LowerDir}}
  upper {{.GraphDriver.Data.UpperDir}}' clock
for name in mnt pid uts ipc net cgroup; do
  printf '%-7s container %-22s host %s\n' "$name" \
    "$(readlink "/proc/$pid/ns/$name")" "$(readlink "/proc/self/ns/$name")"
done
show pier stop -t 0 clock

bold "5. Limits take hold: a memory hog with 64 MB"
code=0
show pier run --name hog --memory 64m --memory-swap 64m "$image" tail /dev/zero || code=$?
echo "exit code $code"
[ "$code" = 137 ]
show pier inspect -f 'OOMKilled={{.State.OOMKilled}} ExitCode={{.State.ExitCode}}' hog
[ "$(pier inspect -f '{{.State.OOMKilled}}' hog)" = true ]

bold "6. How long one run takes"
for _ in 1 2 3; do pier run --rm --network none "$image" true; done
TIMEFORMAT='%3R seconds from the command to its end'
printf '\033[2m$ time pier run --rm --network none %s true\033[0m\n' "$image"
{ time pier run --rm --network none "$image" true; } 2>&1

bold "7. The whole workflow: build, run, push, pull, change, replace; the registry is Pier's own"
# Everything on the engine's network is reached from inside its namespace.
inside() { nsenter --net --target "$engine" -- "$@"; }
get() { inside curl -fs --retry 20 --retry-connrefused "http://127.0.0.1:$1"; }
fail() { echo "demo: $*" >&2; exit 1; }
# (No tee to /dev/stderr: where that is a file, opening it anew empties it.)
shows() {
  printf '\033[2m$ curl http://127.0.0.1:8080/\033[0m\n'
  local page
  page=$(get 8080/)
  echo "$page"
  [ "$page" = "$1" ] || fail "$1 is not served"
}
name=localhost:5000/demo/site
nsenter --net --target "$engine" -- pier registry serve --store "$work/registry" --quiet >>"$work/registry.log" 2>&1 &
registry=$!
mkdir "$work/site"
cat >"$work/site/serve.pl" <<'PERL'
use IO::Socket::INET;
my $listener = IO::Socket::INET->new(LocalPort => 8080, Listen => 5, ReuseAddr => 1) or die $!;
while (my $client = $listener->accept) {
    1 while defined($_ = <$client>) && /\S/;
    open my $page, "<", "/srv/page" or die $!;
    my $text = join "", <$page>;
    printf $client "HTTP/1.0 200 OK\r\nContent-Length: %d\r\n\r\n%s", length $text, $text;
    close $client;
}
PERL
echo "the first page" >"$work/site/page"
cat >"$work/site/Dockerfile" <<DOCKERFILE
FROM $image
RUN mkdir /srv/logs && echo "made in a step" >/srv/logs/readme
COPY serve.pl /srv/
COPY page /srv/
EXPOSE 8080
CMD ["perl", "/srv/serve.pl"]
DOCKERFILE
get 5000/v2/ >/dev/null
show cat "$work/site/Dockerfile"
show pier build -t "$name:1" "$work/site"
show pier run -d --name site -p 8080:8080 "$name:1"
shows "the first page"
show pier push "$name:1"

echo "the second page" >"$work/site/page"
show pier build -t "$name:2" "$work/site" | tee "$work/rebuilt"
show pier push "$name:2" | tee "$work/pushed"
pushed=$(grep -c ': Pushed$' "$work/pushed")
[ "$pushed" = 1 ] || fail "one layer has changed, $pushed were pushed"
pier rmi "$name:2" >/dev/null
show pier pull "$name:2" | tee "$work/pulled"
pulled=$(grep -c ': Pull complete$' "$work/pulled")
[ "$pulled" -le 1 ] || fail "one layer has changed, $pulled were pulled"
show pier rm -f site
show pier run -d --name site -p 8080:8080 "$name:2"
shows "the second page"
show pier rm -f site
kill "$registry"
wait "$registry" || true
registry=

bold "8. Nothing stays behind"
show pier rm clock hog
show pier rmi "$name:1" "$name:2"
show pier builder prune -f >/dev/null
show pier rmi "$image"
kill "$engine"
wait "$engine"
engine=
if grep -F "$work" /proc/self/mountinfo; then
  echo "a mount was left" >&2
  exit 1
fi
echo "no container, no mount, no process: the directory goes as well"
