"""What the container's first process does between clone3 and execve: rooms, root, rights.

It runs in the new namespaces as a fork of the keeper, and talks to it over one socket:

    init                                keeper
      │  clone3 ──────────────────────────│
      │◀──────────── "mapped" ────────────│  uid and gid maps are written (user namespace only)
      │  …overlay, mounts…                │  …cgroup, limits…
      │◀──────────── "go" ────────────────│  the cgroup is there
      │──── "devpts" + it (+ master) ────▶│  for terminals: of ours, and of execs to come
      │──── "mounted" ───────────────────▶│  prestart and createRuntime hooks, if there are hooks
      │◀──────────── "hooked" ────────────│
      │  execve closes the socket: EOF    │  started
      │──── "error" ─────────────────────▶│  or this, and exit

Nothing here returns to the keeper's loop: `run` ends in execve or _exit.
"""

from __future__ import annotations

import fcntl
import os
import stat

from pier.kernel import mount as mnt
from pier.kernel import namespaces as ns
from pier.kernel import overlay, pty
from pier.kernel.cgroups import Cgroup, Hierarchies
from pier.kernel.lean import signal, socket, suppress
from pier.kernel.openat2 import (
    RESOLVE_BENEATH,
    RESOLVE_NO_SYMLINKS,
    RESOLVE_NO_XDEV,
    openat2,
)
from pier.kernel.process import close_range
from pier.runtime import mounts, protocol, reaper, sysctls
from pier.runtime.device_nodes import make_default_devices, make_node
from pier.runtime.gate import Gate
from pier.runtime.process import (
    StepError,
    become,
    end_imports,
    end_without_keeper,
    execute,
    filter_loader,
    rare_steps,
    reset_affinity,
    set_label,
    unmarked,
)
from pier.runtime.rootfs import O_PATH_CLOEXEC, Root

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import NoReturn

    from pier.runtime.made import Made
    from pier.runtime.spec import Device, KeeperConfig, Spec

DEVICE_TYPES = {"c": stat.S_IFCHR, "u": stat.S_IFCHR, "b": stat.S_IFBLK, "p": stat.S_IFIFO}
FIRST_FREE_FD = 3
# What ends a container that is created and not started, as it ends runc's init.
ENDING_SIGNALS = (signal.SIGHUP, signal.SIGINT, signal.SIGTERM)
RESOLVE_PLAINLY = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_XDEV


class Init:
    """The set-up of one container, seen from inside.

    `stdio` are the descriptors for 0, 1 and 2, None with a terminal, which is made in here.
    `joins` is the cgroup that we enter by ourselves when it is ready: much cheaper on cgroup v1
    than to be moved. `overlay_fd` is the root if the keeper had to mount it, else -1. `gate` is
    where it waits for its start when no keeper stays beside it. `source_fds` are the mounts, by
    their place in the list, that were made outside. `in_target` says that the working directory is
    where the root is going to be attached. `entered` are the joined namespaces in which it was born.
    `mark` is told the phases of a traced start. `unshared` are the namespaces that it has to make
    itself, `made` the file systems made ahead, since it was cloned before: `prepared`.
    """

    def __init__(  # noqa: PLR0913  # what a container is made of
        self,
        spec: Spec,
        config: KeeperConfig,
        *,
        bundle: str,
        sync: socket.socket,
        stdio: tuple[int, int, int] | None,
        seccomp_bpf: bytes | None,
        hierarchies: Hierarchies,
        joins: Cgroup | None,
        overlay_fd: int,
        loopback_is_down: bool,
        gate: Gate | None = None,
        source_fds: dict[int, int] | None = None,
        in_target: bool = False,
        entered: set[str] | None = None,
        mark: Callable[[str], None] = unmarked,
        unshared: int = 0,
        made: Made | None = None,
    ) -> None:
        self.gate = gate
        self.mark = mark
        self.unshared = unshared
        self.made = made
        self.source_fds = source_fds or {}
        self.in_target = in_target
        self.entered = entered or set()
        self.spec = spec
        self.config = config
        self.bundle = bundle
        self.sync = sync
        self.stdio = stdio
        self.seccomp_bpf = seccomp_bpf
        self.hierarchies = hierarchies
        self.joins = joins
        self.overlay_fd = overlay_fd
        self.loopback_is_down = loopback_is_down
        self.step = "clone"
        self.in_cgroup = self.dev_is_made = False
        self.linux = spec.get("linux", {})
        listed = self.linux.get("namespaces", [])
        self.new = {entry["type"] for entry in listed if not entry.get("path")}
        self.joined = {entry["type"]: entry["path"] for entry in listed if entry.get("path")}
        # Else the mounts are made in the host's namespace, over the root, until the container goes.
        self.has_mounts = "mount" in self.new or "mount" in self.joined
        # Descriptors of file systems that we mounted ourselves: what they hold can be trusted.
        self.proc_fd = self.devpts_fd = -1

    def run(self) -> NoReturn:
        """Set up everything and execute the program. Ends the process when that fails."""
        try:
            self._run()
        except Exception as exc:  # noqa: BLE001  # whatever it is, silence would look like success
            protocol.send_failure(self.sync, self.step, exc)
        finally:
            os._exit(1)

    def _begin(self, step: str) -> None:
        """Say what is done from here on: in errors, and in the trace of a start."""
        self.step = step
        self.mark(step)

    def _run(self) -> None:
        os.setsid()
        if self.unshared:
            self._begin("namespace")
            ns.unshare(self.unshared)
        if "user" in self.new:
            self._expect("mapped")
            from pier.runtime import userns  # noqa: PLC0415  # rare

            if "time" in self.new:
                # Once the user has changed, its own /proc is no longer this process's to write.
                self._make_time()

            userns.become_root()
        self._label()
        self._begin("sysctl")
        # While what is ours is still the host's.
        sysctls.check(self.linux)
        self._begin("namespace")
        self._join()
        if self.loopback_is_down:
            ns.bring_loopback_up()
        if "time" in self.new and "user" not in self.new:
            self._make_time()
        if "uts" in self.new:
            self._name()
        root = self._open_root()
        self._furnish(root)
        start_hooks = self._run_hooks(root)
        self._begin("process")
        # What is loaded lazily is so before the pivot: past it an import reads the container's files.
        steps = rare_steps(self.spec["process"], self.linux)
        load = filter_loader(self.linux, lambda: self.sync)
        end_imports()
        self._begin("pivot_root")
        if not self.has_mounts:
            root.enter()
        elif self.gate is None or self.gate.pivot:
            root.pivot()
        else:
            root.move()
        self._set_root_flags()
        self._begin("start")
        self._start(start_hooks, steps, load)

    def _label(self) -> None:
        # In a user namespace that was joined it was set before our birth: `userns.clone_through`.
        if "user" not in self.joined:
            set_label(self.spec["process"])
        if self.linux.get("mountLabel"):
            raise StepError("selinux", "SELinux labels are not supported")

    def _furnish(self, root: Root) -> None:
        """Everything that is in the root."""
        self._mount_all(root)
        self._make_devices(root)
        self._make_console(root)
        self._begin("mount")
        _make_working_directory(root, self.spec["process"].get("cwd", "/"))
        root.finish()
        # Before /proc/sys is covered read-only, and through our own procfs.
        self._set_sysctls()
        self._cover(root)

    def _run_hooks(self, root: Root) -> Callable[[dict[str, str]], None] | None:
        """Have the hooks run that come before the pivot; return what runs those that come after."""
        listed = self.spec.get("hooks")
        if not listed:
            return None
        from pier.runtime import hooks  # noqa: PLC0415  # rare, and memory of every keeper

        protocol.send(self.sync, {"mounted": True})
        self._expect("hooked")
        self._begin("hook")

        def run(kind: str, status: str, cwd: str | None, env: dict[str, str] | None) -> None:
            state = hooks.state(
                self.spec, self.config["id"], self.bundle, pid=os.getpid(), status=status
            )
            hooks.run(listed, kind, state, cwd=cwd, env=env)

        # In the root, as runc has it: what these look for is mostly there.
        run("createContainer", "creating", f"/proc/self/fd/{root.fd}", None)
        return lambda env: run("startContainer", "created", None, env)

    def _expect(self, word: str) -> None:
        """Wait for the keeper; without it there is nothing to go on for."""
        self.mark(f"waits for {word!r}")
        self.sync.setblocking(True)
        received = protocol.receive(self.sync)
        if received is None or word not in received[0]:
            os._exit(1)

    def _join(self) -> None:
        # The pid namespace was joined by the keeper, before the clone: it takes effect on children.
        # So was the user namespace, which owns the others.
        for kind in ("ipc", "uts", "network", "cgroup", "time", "mount"):
            if kind in self.joined and kind not in self.entered:
                fd = os.open(self.joined[kind], os.O_RDONLY | os.O_CLOEXEC)
                ns.setns(fd, ns.FLAGS[kind])
                os.close(fd)

    def _make_time(self) -> None:
        self._begin("timeOffsets")
        offsets = self.linux.get("timeOffsets", {})
        ns.enter_new_time(
            {clock: (o.get("secs", 0), o.get("nanosecs", 0)) for clock, o in offsets.items()}
        )

    def _name(self) -> None:
        self._begin("hostname")
        if self.spec.get("hostname"):
            socket.sethostname(self.spec["hostname"])
        if self.spec.get("domainname"):
            ns.setdomainname(self.spec["domainname"])

    def _open_root(self) -> Root:
        """Attach the root file system over the bundle's directory, or its rootfs over itself."""
        self._begin("rootfs")
        if self.has_mounts:
            # As slave, host unmounts reach us meanwhile, and nothing of ours reaches the host.
            mnt.mount("", "/", "", mnt.MS_REC | mnt.MS_SLAVE)
        layers = self.config["overlay"]
        target = root_target(self.spec, self.config, self.bundle)
        if self.in_target:
            # Named without its path, of which a user namespace's root may not pass every part.
            target = "."
        try:
            mount_fd = self._root_mount(target)
        except OSError as exc:
            if layers is None or not overlay.lacks_lowerdir_plus(exc):
                raise
            overlay.mount_overlay(
                layers["base"], layers["lower"], layers["upper"], layers["work"], target,
                volatile=layers.get("volatile", False),
            )  # fmt: skip
            return Root(os.open(target, O_PATH_CLOEXEC | os.O_DIRECTORY))
        target_fd = os.open(target, O_PATH_CLOEXEC | os.O_DIRECTORY)
        mnt.move_mount(mount_fd, target_fd)
        os.close(target_fd)
        return Root(mount_fd)

    def _root_mount(self, target: str) -> int:
        layers = self.config["overlay"]
        if layers is None:
            flags = mnt.OPEN_TREE_CLONE | mnt.AT_RECURSIVE
            return mnt.open_tree(mnt.AT_FDCWD, target, flags)
        if self.overlay_fd >= 0:
            return self.overlay_fd
        return overlay.open_overlay(
            layers["base"],
            layers["lower"],
            layers["upper"],
            layers["work"],
            volatile=layers.get("volatile", False),
        )

    def _mount_all(self, root: Root) -> None:
        for index, entry in enumerate(self.spec.get("mounts", [])):
            self._begin("mount")
            if entry["destination"] == "/dev":
                self.dev_is_made = self.made is not None and mounts.key(entry) in self.made.fds
            self.mark(f"mount {entry['destination']}")
            cgroup = None
            if entry.get("type") in ("cgroup", "cgroup2"):
                self._enter_cgroup()
                self._begin("mount")
                if "cgroup" not in self.joined:
                    cgroup = self.config["cgroup"]
            try:
                kept = mounts.attach(
                    root, entry, self.hierarchies, cgroup,
                    bundle=self.bundle, source_fd=self.source_fds.get(index, -1), made=self.made,
                )  # fmt: skip
            except OSError as exc:
                raise StepError("mount", _mount_error(entry.get("source", ""), entry["destination"], exc),
                                exc.errno or 0) from exc  # fmt: skip
            if entry.get("type") == "proc":
                self.proc_fd = kept if kept is not None else -1
            elif entry.get("type") == "devpts":
                self.devpts_fd = kept if kept is not None else -1
        self._enter_cgroup()

    def _enter_cgroup(self) -> None:
        """Join the cgroup, and then make it the root of a cgroup namespace of our own."""
        if self.in_cgroup:
            return
        self.in_cgroup = True
        self._expect("go")
        self._begin("cgroup")
        if self.joins is not None:
            self.joins.join()
        reset_affinity()
        if "cgroup" in self.new:
            ns.unshare(ns.CLONE_NEWCGROUP)

    def _make_devices(self, root: Root) -> None:
        self._begin("device")
        previous = os.umask(0)
        dev_fd = root.make_directory("/dev")
        if self._own_dev():
            if not self.dev_is_made:
                make_default_devices(dev_fd, root)
            for device in self.linux.get("devices", []):
                # The link of that name is made already, to the container's own devpts.
                if os.path.normpath(device["path"]) != "/dev/ptmx":
                    self._make_device(root, device)
        os.close(dev_fd)
        os.umask(previous)

    def _own_dev(self) -> bool:
        """Tell whether /dev is the container's own, and not bound from outside."""
        for entry in self.spec.get("mounts", []):
            if os.path.normpath(entry["destination"]) == "/dev":
                kinds = {entry.get("type", ""), *entry.get("options", [])}
                if kinds & {"bind", "rbind"}:
                    return False
        return True

    def _make_device(self, root: Root, device: Device) -> None:
        parent, name = os.path.split(os.path.normpath(device["path"]))
        parent_fd = root.make_directory(parent)
        mode = DEVICE_TYPES[device["type"]] | device.get("fileMode", 0o666)
        number = os.makedev(device.get("major", 0), device.get("minor", 0))
        make_node(root, parent_fd, name, mode, number, device["path"])
        uid, gid = device.get("uid", 0), device.get("gid", 0)
        if uid or gid:
            os.chown(name, uid, gid, dir_fd=parent_fd, follow_symlinks=False)
        os.close(parent_fd)

    def _make_console(self, root: Root) -> None:
        """Give the keeper our devpts, for the terminals of execs; with a terminal, open ours.

        Its slave is bound over /dev/console and becomes stdio and controlling terminal.
        """
        if self.devpts_fd < 0:
            if self.stdio is None:
                raise StepError("console", "a terminal needs devpts mounted in the container")
            return
        if self.stdio is not None:
            protocol.send(self.sync, {"devpts": True}, (self.devpts_fd,))
            return
        self._begin("console")
        master_fd, number = pty.open_master("ptmx", dir_fd=self.devpts_fd)
        size = self.spec["process"].get("consoleSize")
        if size and size["height"]:
            pty.set_window_size(master_fd, size["height"], size["width"])
        slave_fd = pty.open_peer(master_fd)
        console_fd = mnt.open_tree(self.devpts_fd, str(number), mnt.OPEN_TREE_CLONE)
        self._attach_console(root, console_fd)
        os.close(console_fd)
        protocol.send(self.sync, {"devpts": True}, (self.devpts_fd, master_fd))
        os.close(master_fd)
        pty.make_controlling(slave_fd)
        self.stdio = (slave_fd, slave_fd, slave_fd)

    def _attach_console(self, root: Root, console_fd: int) -> None:
        """Attach the terminal at /dev/console, which must be no link: not even one inside.

        In an image's own /dev it might lead into procfs, to be covered there (CVE-2025-52565).
        """
        dev_fd = root.make_directory("/dev")
        try:
            with suppress(FileExistsError):
                flags = os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
                os.close(os.open("console", flags, 0o620, dir_fd=dev_fd))
            target_fd = os.open("console", O_PATH_CLOEXEC | os.O_NOFOLLOW, dir_fd=dev_fd)
        finally:
            os.close(dev_fd)
        try:
            if stat.S_ISLNK(os.fstat(target_fd).st_mode):
                raise StepError("console", "/dev/console must be no symbolic link")
            root.attach_at(console_fd, target_fd, "/dev/console")
        finally:
            os.close(target_fd)

    def _cover(self, root: Root) -> None:
        """Masked and read-only paths."""
        self._begin("mask")
        covered = self.made.covered if self.made is not None else ()
        masked = [path for path in self.linux.get("maskedPaths", []) if path not in covered]
        if masked:
            null_fd = os.open("/dev/null", O_PATH_CLOEXEC)
            if os.fstat(null_fd).st_rdev != os.makedev(1, 3):
                raise StepError("mask", "the host's /dev/null is not the null device")
            empty_fd = mounts.make_empty()
            attached = False
            for path in masked:
                attached = root.mask(path, null_fd, empty_fd, attached=attached)
            os.close(null_fd)
            os.close(empty_fd)
        for path in self.linux.get("readonlyPaths", []):
            if path not in covered:
                root.make_readonly(path)

    def _set_sysctls(self) -> None:
        self._begin("sysctl")
        for key, value in self.linux.get("sysctl", {}).items():
            if self.proc_fd < 0:
                raise StepError("sysctl", "sysctls need /proc mounted in the container")
            try:
                # Confined to our own procfs, and to nothing mounted over it (CVE-2025-52881).
                fd = openat2(self.proc_fd, sysctls.path(key), os.O_WRONLY, resolve=RESOLVE_PLAINLY)
                os.write(fd, value.encode())
                os.close(fd)
            except OSError as exc:
                text = f"write sysctl {key}={value}: {os.strerror(exc.errno or 0)}"
                raise StepError("sysctl", text, exc.errno or 0) from exc

    def _set_root_flags(self) -> None:
        propagation = self.linux.get("rootfsPropagation", "")
        if propagation:
            flags = mounts.PROPAGATIONS.get(propagation.removeprefix("r"), 0)
            mnt.mount("", "/", "", flags | (mnt.MS_REC if propagation[0] == "r" else 0))
        if self.spec["root"].get("readonly"):
            fd = os.open("/", O_PATH_CLOEXEC | os.O_DIRECTORY)
            mnt.mount_setattr(fd, mnt.MOUNT_ATTR_RDONLY)
            os.close(fd)

    def _start(
        self,
        start_hooks: Callable[[dict[str, str]], None] | None,
        steps: list[Callable[[], None]],
        load: Callable[[bytes], object],
    ) -> None:
        stdio = self.stdio or (0, 1, 2)
        process = self.spec["process"]
        if self.gate is None:
            kept = take_stdio(stdio, [self.sync])
        else:
            kept = take_stdio(stdio, [self.sync, self.gate.listener], self.gate.preserve_fds)
            self.gate.listener = kept[1]
        self.sync = kept[0]
        path, args, env = become(
            process,
            self.config["user"],
            self.config["groups"],
            self.seccomp_bpf,
            wait=None if self.gate is None else self._wait,
            dies_with_parent=self.gate is None,
            steps=steps,
            load=load,
            mark=self.mark,
        )
        if start_hooks is not None:
            # As the container's user and with its rights: these programs are the image's.
            start_hooks(env)
        if self.gate is None:
            end_without_keeper(self.sync)
        if self.config["init"]:
            reaper.fork_program(self.sync)
        execute(path, args, env)

    def _wait(self) -> None:
        assert self.gate is not None
        # The first process of a pid namespace gets no signal that it has no handler for.
        for number in ENDING_SIGNALS:
            signal.signal(number, _end)
        self.sync = self.gate.wait(self.sync)
        for number in ENDING_SIGNALS:
            signal.signal(number, signal.SIG_DFL)


def _end(number: int, _frame: object) -> None:
    os._exit(128 + number)


def root_target(spec: Spec, config: KeeperConfig, bundle: str) -> str:
    """Return where the root is attached: at the bundle if it is an overlay, else over itself."""
    return bundle if config["overlay"] else os.path.join(bundle, spec["root"]["path"])


def take_stdio(
    stdio: tuple[int, int, int], sockets: list[socket.socket], preserve_fds: int = 0
) -> list[socket.socket]:
    """Make `stdio` 0, 1 and 2 and close every other descriptor but the sockets.

    Returns the sockets under their new numbers; the given ones are used up. No descriptor of the
    host's survives (CVE-2024-21626), but the `preserve_fds` after stdio that the user asked for.
    """
    for target, source in enumerate(stdio):
        os.dup2(source, target, inheritable=True)
    first = FIRST_FREE_FD + preserve_fds
    # By way of numbers that are none of the targets: the order of the sockets may be any.
    away = [fcntl.fcntl(s.detach(), fcntl.F_DUPFD_CLOEXEC, first + len(sockets)) for s in sockets]
    for target, source in enumerate(away, first):
        os.dup2(source, target, inheritable=False)
    close_range(first + len(sockets))
    return [socket.socket(fileno=first + index) for index in range(len(sockets))]


def _make_working_directory(root: Root, cwd: str) -> None:
    """Docker makes a working directory that the image lacks; errors show when it is entered.

    Before the root is read-only, and never through /proc/N/root or the like: with the host's
    processes in sight an image's "/proc/1/root/etc/x" would be made on the host.
    """
    with suppress(OSError):
        os.close(root.make_directory(cwd))


def _mount_error(source: str, destination: str, exc: OSError) -> str:
    text = os.strerror(exc.errno or 0)
    said = exc.strerror or text
    # Of a call that failed the reason is enough; words of the kernel's own, or of ours, are kept.
    detail = text if said.endswith(text) else said
    return (
        f'error mounting "{source}" to rootfs at "{destination}": {detail[:1].lower()}{detail[1:]}'
    )
