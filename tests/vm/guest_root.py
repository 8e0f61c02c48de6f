"""What the guest boots: Debian's cloud kernel, an initramfs, and a disk with this machine's Python.

    cache/<key>/vmlinuz, initramfs     out of the linux-image-cloud package, with busybox
    cache/<key>/base.ext4              Python, the virtual environment, tools and their libraries
    …/checkout.ext4                    src and tests as they are now; made for every run

`key` names the kernel's version, the interpreter and the lock files: the second run is quick.
The base holds the virtual environment at the path that it has here, since its scripts and its
editable install name it.
"""

import gzip
import hashlib
import lzma
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Iterable, Iterator

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
CACHE = os.path.join(ROOT, ".cache", "vm")
META_PACKAGE = "linux-image-cloud-amd64"
MODULES = ("virtio_pci", "virtio_blk", "overlay", "veth", "bridge", "loop", "quota_v2",
           "macvlan", "ipvlan", "dummy", "8021q", "sch_tbf", "sch_netem")  # fmt: skip
# Beside busybox's applets, which lack these or have less than the tests use.
TOOLS = ("bash", "tar", "mount", "umount", "nsenter", "unshare", "setpriv", "ps", "ionice", "chrt",
         "mknod", "stat", "ldconfig", "prlimit", "setfattr", "getfattr",
         "crun", "pgrep", "mke2fs", "ip")  # fmt: skip
UNWANTED = shutil.ignore_patterns(
    "pip", "mypy", "mypyc", "*__mypyc*", "grimp", "ruff*", "idlelib", "tkinter", "turtledemo",
    "lib2to3", "ensurepip", "test", "config-3*", "*.a", "setuptools", "ast_serialize",
    "pkg_resources",
)  # fmt: skip
ETC = {
    "passwd": "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534::/:/bin/false\n",
    "group": "root:x:0:\nnogroup:x:65534:\n",
    "hosts": "127.0.0.1 localhost\n::1 localhost\n",
    "resolv.conf": "",
}
EARLY_INIT = """#!/bin/busybox sh
/bin/busybox mount -t proc proc /proc
/bin/busybox mount -t devtmpfs dev /dev
for module in $(/bin/busybox cat /modules.order); do
  /bin/busybox insmod "$module" || echo "insmod $module failed"
done
tries=0
while [ ! -b /dev/vda ] && [ $tries -lt 200 ]; do
  /bin/busybox usleep 50000; tries=$((tries + 1))
done
/bin/busybox mount -t ext4 /dev/vda /root || /bin/busybox poweroff -f
/bin/busybox mount --move /dev /root/dev
/bin/busybox umount /proc
exec /bin/busybox switch_root /root /sbin/init
"""


class Unavailable(Exception):
    """The guest cannot be made here; the message is the reason to skip."""


def boot_files() -> str:
    """Return the directory with vmlinuz, initramfs and base.ext4, made unless it is there.

    Raises Unavailable.
    """
    package = _kernel_package()
    directory = os.path.join(CACHE, _key(package))
    if os.path.isdir(directory):
        return directory
    os.makedirs(CACHE, exist_ok=True)
    for name in os.listdir(CACHE):  # of other versions: a quarter of a gigabyte each
        shutil.rmtree(os.path.join(CACHE, name), ignore_errors=True)
    staging = tempfile.mkdtemp(prefix="new-", dir=CACHE)
    try:
        with tempfile.TemporaryDirectory(dir=CACHE) as unpacked:
            _fetch_kernel(package, unpacked)
            _take_kernel(unpacked, staging)
        with tempfile.TemporaryDirectory(dir=CACHE) as tree:
            _fill_base(tree)
            make_disk(tree, os.path.join(staging, "base.ext4"), spare_mib=1024)
        os.rename(staging, directory)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return directory


def make_checkout(path: str) -> None:
    """Make the disk with the sources as they are."""
    _rewrite_tests()
    with tempfile.TemporaryDirectory() as tree:
        for name in ("src", "tests", "docs"):
            shutil.copytree(os.path.join(ROOT, name), os.path.join(tree, name), symlinks=True)
        for name in ("pyproject.toml", "Makefile"):
            shutil.copy2(os.path.join(ROOT, name), tree)
        # Compiling takes longer in there than anything else: here it is over in a moment.
        subprocess.run(
            [sys.executable, "-m", "compileall", "-q", "-s", tree, "-p", ROOT, tree],
            check=True, stdout=subprocess.DEVNULL,
        )  # fmt: skip
        make_disk(tree, path, spare_mib=32)


def _rewrite_tests() -> None:
    """Have pytest keep, beside the tests that are selected, what it makes of their assertions."""
    with open(os.path.join(ROOT, "tests/vm/selection.txt")) as file:
        words = [word for line in file if line[0] != "#" for word in line.split()]
    files = sorted({word.partition("::")[0] for word in words if word.startswith("tests/")})
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "PYTEST"))}
    for ring in ("kernel", "client", "vm"):
        subprocess.run(
            [sys.executable, "-m", "pytest", "-q", "--collect-only", "-p", "no:cacheprovider",
             *(name for name in files if name.startswith(f"tests/{ring}/"))],
            check=True, stdout=subprocess.DEVNULL, cwd=ROOT, env=environment,
        )  # fmt: skip


def make_disk(tree: str, path: str, *, spare_mib: int) -> None:
    """Make an ext4 file system of a tree, owned by root, with room for `spare_mib` more."""
    done = subprocess.run(["du", "-sm", tree], check=True, capture_output=True, text=True)
    size = int(done.stdout.split()[0]) * 5 // 4 + spare_mib
    subprocess.run(
        ["mke2fs", "-q", "-F", "-t", "ext4", "-m", "0", "-O", "^has_journal", "-d", tree, path,
         f"{size}M"],
        check=True, env={**os.environ, "PATH": os.environ["PATH"] + ":/sbin:/usr/sbin"},
    )  # fmt: skip


def _key(package: str) -> str:
    parts = [package, sys.version, sys.base_prefix, ROOT, shutil.which("docker") or ""]
    for name in ("requirements.lock", "requirements-dev.lock", "tests/vm/guest_root.py"):
        with open(os.path.join(ROOT, name)) as file:
            parts.append(file.read())
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]


def _kernel_package() -> str:
    """Return the package that the meta package stands for today."""
    if os.uname().machine != "x86_64":
        raise Unavailable("the guest is made for x86_64")
    if not shutil.which("apt-cache"):
        raise Unavailable("there is no apt here, of which the guest's kernel comes")
    done = subprocess.run(
        ["apt-cache", "depends", META_PACKAGE], capture_output=True, text=True, check=False
    )
    found = re.search(r"Depends: (linux-image-[0-9]\S+)", done.stdout)
    if done.returncode != 0 or found is None:
        raise Unavailable(f"apt knows no {META_PACKAGE}")
    return found[1]


def _fetch_kernel(package: str, directory: str) -> None:
    done = subprocess.run(
        ["apt-get", "download", "-qq", "-o", "APT::Sandbox::User=root", package],
        cwd=directory, capture_output=True, text=True, check=False,
    )  # fmt: skip
    archives = [name for name in os.listdir(directory) if name.endswith(".deb")]
    if done.returncode != 0 or not archives:
        raise Unavailable(f"{package} cannot be fetched: {done.stderr.strip()[-300:]}")
    subprocess.run(["dpkg-deb", "-x", archives[0], "."], cwd=directory, check=True)


def _take_kernel(unpacked: str, staging: str) -> None:
    boot = os.path.join(unpacked, "boot")
    (kernel,) = (name for name in os.listdir(boot) if name.startswith("vmlinuz"))
    shutil.copy(os.path.join(boot, kernel), os.path.join(staging, "vmlinuz"))
    tree = os.path.join(staging, "initramfs.d")
    for name in ("bin", "proc", "dev", "root"):
        os.makedirs(os.path.join(tree, name))
    shutil.copy(_program("busybox"), os.path.join(tree, "bin", "busybox"))
    order = _copy_modules(unpacked, tree)
    _write(os.path.join(tree, "modules.order"), "\n".join(order))
    _write(os.path.join(tree, "init"), EARLY_INIT, mode=0o755)
    with gzip.open(os.path.join(staging, "initramfs"), "wb", compresslevel=1) as file:
        file.write(_cpio(tree))
    shutil.rmtree(tree)


def _copy_modules(unpacked: str, tree: str) -> list[str]:
    """Copy MODULES and what they need; return their paths in the order of loading.

    A module names what it needs in its .modinfo section ("depends=a,b"); what is in neither place
    is part of the kernel.
    """
    found = {
        re.sub(r"\.ko(\.\w+)?$", "", name).replace("-", "_"): os.path.join(directory, name)
        for directory, _, names in os.walk(os.path.join(unpacked, "lib"))
        for name in names
        if ".ko" in name
    }
    if any(not path.endswith(".ko") for path in found.values()):
        found = {name: _decompressed(path) for name, path in found.items() if name in found}
    os.makedirs(os.path.join(tree, "modules"))
    order: list[str] = []

    def take(name: str) -> None:
        target = f"/modules/{name}.ko"
        if name not in found or target in order:
            return
        with open(found[name], "rb") as file:
            content = file.read()
        needed = re.search(rb"\0depends=([\w,-]*)\0", content)
        for other in needed[1].decode().split(",") if needed else ():
            take(other.replace("-", "_"))
        _write(tree + target, content)
        order.append(target)

    for name in MODULES:
        take(name)
    return order


def _decompressed(path: str) -> str:
    """Return the path of the module itself, for packages that compress theirs."""
    if path.endswith(".xz"):
        plain = path.removesuffix(".xz")
        with lzma.open(path) as packed, open(plain, "wb") as file:
            shutil.copyfileobj(packed, file)
        return plain
    if path.endswith(".ko"):
        return path
    raise Unavailable(f"a kernel module is compressed in a way not known here: {path}")


def _cpio(tree: str) -> bytes:
    """Return the tree as a cpio archive of the "newc" kind (initramfs-buffer-format.rst)."""
    parts: list[bytes] = []

    def add(name: str, mode: int, content: bytes) -> None:
        encoded = name.encode() + b"\0"
        numbers = (len(parts), mode, 0, 0, 1, 0, len(content), 0, 0, 0, 0, len(encoded), 0)
        head = b"070701" + b"".join(b"%08X" % number for number in numbers) + encoded
        parts.append(head + b"\0" * (-len(head) % 4) + content + b"\0" * (-len(content) % 4))

    for directory, names, files in os.walk(tree):
        for name in (*names, *files):
            path = os.path.join(directory, name)
            content = b""
            if os.path.isfile(path):
                with open(path, "rb") as file:
                    content = file.read()
            add(os.path.relpath(path, tree), os.stat(path).st_mode, content)
    add("TRAILER!!!", 0, b"")
    return b"".join(parts)


def _fill_base(tree: str) -> None:
    for name in ("proc", "sys", "dev", "run", "tmp", "var/tmp", "var/lib", "etc", "root", "bin",
                 "sbin", "usr/bin", "usr/sbin", "usr/local/bin", "checkout", "mnt", "home"):  # fmt: skip
        os.makedirs(os.path.join(tree, name))
    for name in ("tmp", "var/tmp"):
        os.chmod(os.path.join(tree, name), 0o1777)
    _add_tools(tree)
    _add_python(tree)
    _add_libraries(tree)
    for name, text in ETC.items():
        _write(os.path.join(tree, "etc", name), text)
    init = os.path.join(tree, "sbin", "init")
    if os.path.lexists(init):
        os.unlink(init)
    script = (
        "#!/bin/busybox sh\nmount -t proc proc /proc\nmount -t ext4 -o ro /dev/vdb /checkout\n"
        f"exec {sys.executable} -BIS /checkout/tests/vm/guest_init.py {ROOT}\n"
    )
    _write(init, script, mode=0o755)


def _add_tools(tree: str) -> None:
    busybox = _program("busybox")
    shutil.copy(busybox, os.path.join(tree, "bin", "busybox"))
    applets = subprocess.run([busybox, "--list-full"], check=True, capture_output=True, text=True)
    for applet in applets.stdout.split():
        path = os.path.join(tree, applet)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        if not os.path.lexists(path):
            os.symlink("/bin/busybox", path)
    tools = [found for name in TOOLS if (found := shutil.which(name))]
    for tool in tools:
        _copy_program(tool, tree)
    # The images of the tests ask for the machine's architecture, which is all that dpkg is for.
    architecture = subprocess.check_output(["dpkg", "--print-architecture"], text=True)
    dpkg = os.path.join(tree, "usr/local/bin/dpkg")
    _write(dpkg, f"#!/bin/sh\necho {architecture}", mode=0o755)
    docker = shutil.which("docker")
    if docker:
        shutil.copy(docker, os.path.join(tree, "usr/local/bin/docker"))


def _add_python(tree: str) -> None:
    for name in ("src", "tests", "docs"):
        os.makedirs(tree + os.path.join(ROOT, name))
    stdlib = sysconfig.get_path("stdlib")
    shutil.copytree(stdlib, tree + stdlib, symlinks=True, dirs_exist_ok=True,
                    ignore=lambda *found: UNWANTED(*found) | ({"site-packages"} & set(found[1])))  # fmt: skip
    shutil.copytree(sys.prefix, tree + sys.prefix, symlinks=True, ignore=UNWANTED)
    _copy_links(os.path.join(sys.prefix, "bin", "python3"), tree)


def _add_libraries(tree: str) -> None:
    for path in (*_libraries(_objects(tree)), *_seccomp()):
        target = tree + path
        if not os.path.exists(target):
            os.makedirs(os.path.dirname(target), exist_ok=True)
            shutil.copy(os.path.realpath(path), target)
    subprocess.run(["/sbin/ldconfig", "-r", tree], check=True, stderr=subprocess.DEVNULL)


def _copy_program(path: str, tree: str) -> None:
    """Copy a program to where PATH has it, in place of busybox's applet."""
    target = os.path.join(tree, "usr/local/bin", os.path.basename(path))
    shutil.copy(os.path.realpath(path), target)


def _copy_links(path: str, tree: str) -> None:
    """Copy what a link leads to, link by link: the interpreter of a virtual environment."""
    while True:
        target = tree + path
        os.makedirs(os.path.dirname(target), exist_ok=True)
        if os.path.islink(path):
            link = os.readlink(path)
            if not os.path.lexists(target):
                os.symlink(link, target)
            path = os.path.normpath(os.path.join(os.path.dirname(path), link))
        else:
            if not os.path.exists(target):
                shutil.copy(path, target)
            return


def _objects(tree: str) -> Iterator[str]:
    """Yield what has shared libraries: programs and extension modules."""
    for directory, _, names in os.walk(tree):
        for name in names:
            path = os.path.join(directory, name)
            if not os.path.islink(path) and (".so" in name or os.access(path, os.X_OK)):
                yield path


def _libraries(objects: Iterable[str]) -> set[str]:
    """Return the libraries that ldd finds on this machine for `objects`."""
    found: set[str] = set()
    done = subprocess.run(["ldd", *objects], capture_output=True, text=True, check=False)
    for line in done.stdout.splitlines():
        match = re.search(r"=> (/\S+) \(|^\s+(/\S*ld-linux\S*) \(", line)
        if match:
            found.add(match[1] or match[2])
    return found


def _seccomp() -> list[str]:
    """Loaded by name at run time, so no program names it."""
    for directory in ("/lib/x86_64-linux-gnu", "/usr/lib/x86_64-linux-gnu", "/usr/lib"):
        path = os.path.join(directory, "libseccomp.so.2")
        if os.path.exists(path):
            return [path]
    return []


def _program(name: str) -> str:
    path = shutil.which(name)
    if path is None:
        raise Unavailable(f"{name} is not installed")
    return path


def _write(path: str, content: str | bytes, *, mode: int = 0o644) -> None:
    with open(path, "wb") as file:
        file.write(content.encode() if isinstance(content, str) else content)
    os.chmod(path, mode)
