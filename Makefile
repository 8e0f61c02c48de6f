# Every target does its own set-up on a fresh Debian or Ubuntu, as root, and is quick the second
# time: Debian packages are installed only when missing, the virtual environment is made again only
# when a lock file or the interpreter changes.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := test
.PHONY: test lint unit kernel client crash vm demo bench venv clean

PYTEST := .venv/bin/pytest -q --timeout 180

# One after another: the rings share two cores and the machine's cgroups. But a guest that is
# emulated has use for one of the cores only, and has cgroups of its own.
.NOTPARALLEL:

test: lint unit client
	MAKE="$(MAKE)" tools/rings.sh "kernel crash" vm

venv:
	@tools/venv.sh

# mypy takes the typed parts of tests/, each ring as its own program: several have a conftest.py.
lint: venv
	.venv/bin/ruff check
	.venv/bin/ruff format --check
	.venv/bin/mypy
	MYPYPATH=src .venv/bin/mypy tests/*.py
	MYPYPATH=src:tests .venv/bin/mypy tests/client/conftest.py tests/client/test_docker_*.py
	MYPYPATH=src:tests:tests/client .venv/bin/mypy bench
	MYPYPATH=src:tests/vm .venv/bin/mypy tests/vm/conftest.py tests/vm/guest*.py
	.venv/bin/lint-imports

unit: venv
	$(PYTEST) --numprocesses 2 --dist worksteal tests/unit

kernel: venv
	@tools/packages.sh busybox-static e2fsprogs libnftables1 libseccomp2 util-linux procps uidmap
	$(PYTEST) tests/kernel

client: venv
	@tools/packages.sh busybox-static e2fsprogs iproute2 iptables libnftables1 nftables passt libseccomp2 util-linux procps mmdebstrap skopeo python3-yaml docker-registry openssl curl crun tini git openssh-client
	@# Docker's own packages bring a runc, and conflict with Debian's.
	@command -v runc >/dev/null || tools/packages.sh runc
	@tools/packages.sh qemu-user-static || echo "client: qemu-user-static cannot be installed" >&2
	PATH="$$(tools/docker_cli.sh):$$PATH" PIER_ENGINES_ROOT="$$(tools/engines_root.sh)" \
	  PIER_DOCKER_PLUGINS="$$(tools/docker_plugins.sh)" \
	  $(PYTEST) --numprocesses 2 --dist loadfile --no-loadscope-reorder tests/client

crash: venv
	@tools/packages.sh busybox-static iproute2 libnftables1 nftables libseccomp2 util-linux procps
	PATH="$$(tools/docker_cli.sh):$$PATH" PIER_DOCKER_PLUGINS="$$(tools/docker_plugins.sh)" \
	  $(PYTEST) tests/crash

# A guest in software emulation, with cgroup v2 alone. Where qemu cannot be had the ring says so.
vm: venv
	@tools/packages.sh busybox-static libseccomp2 util-linux procps e2fsprogs iproute2 crun
	@tools/packages.sh qemu-system-x86 || echo "vm: qemu-system-x86 cannot be installed" >&2
	PATH="$$(tools/docker_cli.sh):$$PATH" $(PYTEST) tests/vm --ignore tests/vm/inside

demo: venv
	@tools/packages.sh curl iproute2 libnftables1 libseccomp2 util-linux procps mmdebstrap
	@tools/demo.sh

# The peers come from Debian sid into .cache/peers, unless PIER_PEERS_ROOT names a root with them.
bench: venv
	@tools/packages.sh busybox-static bubblewrap iperf3 libnftables1 libseccomp2 util-linux procps mmdebstrap docker-registry skopeo
	@.venv/bin/pip --quiet --disable-pip-version-check install --require-hashes -r requirements-bench.lock
	PATH="$$(tools/docker_cli.sh):$$PATH" .venv/bin/python bench/run.py

clean:
	rm -rf .venv .cache .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis
