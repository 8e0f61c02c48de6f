"""What a container was told, as flags of `pier run` and as keys of a Compose file."""

import shlex

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    Json = dict[str, Any]
    # A flag with its values (True for a switch), and the Compose key with its value; "" for none.
    Wish = tuple[str, "list[str] | bool", str, Any]

_NANO = 1_000_000_000
# HostConfig's field, the flag, Compose's key: lists, texts, numbers, switches as they are.
_PLAIN = (
    ("VolumesFrom", "volumes-from", "volumes_from"),
    ("CapAdd", "cap-add", "cap_add"),
    ("CapDrop", "cap-drop", "cap_drop"),
    ("Dns", "dns", "dns"),
    ("DnsOptions", "dns-option", "dns_opt"),
    ("DnsSearch", "dns-search", "dns_search"),
    ("ExtraHosts", "add-host", "extra_hosts"),
    ("GroupAdd", "group-add", "group_add"),
    ("SecurityOpt", "security-opt", "security_opt"),
    ("DeviceCgroupRules", "device-cgroup-rule", "device_cgroup_rules"),
    ("PidMode", "pid", "pid"),
    ("UTSMode", "uts", "uts"),
    ("UsernsMode", "userns", "userns_mode"),
    ("CgroupParent", "cgroup-parent", "cgroup_parent"),
    ("CpusetCpus", "cpuset-cpus", "cpuset"),
    ("CpusetMems", "cpuset-mems", ""),
    ("CpuShares", "cpu-shares", "cpu_shares"),
    ("CpuPeriod", "cpu-period", "cpu_period"),
    ("CpuQuota", "cpu-quota", "cpu_quota"),
    ("CpuRealtimePeriod", "cpu-rt-period", "cpu_rt_period"),
    ("CpuRealtimeRuntime", "cpu-rt-runtime", "cpu_rt_runtime"),
    ("BlkioWeight", "blkio-weight", ""),
    ("Memory", "memory", "mem_limit"),
    ("MemoryReservation", "memory-reservation", "mem_reservation"),
    ("MemorySwap", "memory-swap", "memswap_limit"),
    ("MemorySwappiness", "memory-swappiness", "mem_swappiness"),
    ("OomScoreAdj", "oom-score-adj", "oom_score_adj"),
    ("PidsLimit", "pids-limit", "pids_limit"),
    ("VolumeDriver", "volume-driver", ""),
    ("OomKillDisable", "oom-kill-disable", "oom_kill_disable"),
    ("Privileged", "privileged", "privileged"),
    ("PublishAllPorts", "publish-all", ""),
    ("ReadonlyRootfs", "read-only", "read_only"),
    ("Init", "init", "init"),
    ("AutoRemove", "rm", ""),
)
_RATES = (
    ("BlkioDeviceReadBps", "device-read-bps"),
    ("BlkioDeviceWriteBps", "device-write-bps"),
    ("BlkioDeviceReadIOps", "device-read-iops"),
    ("BlkioDeviceWriteIOps", "device-write-iops"),
)
_SHM_DEFAULT = 64 << 20
_HEALTH = (
    ("Interval", "health-interval", "interval"),
    ("Timeout", "health-timeout", "timeout"),
    ("StartPeriod", "health-start-period", "start_period"),
    ("StartInterval", "health-start-interval", "start_interval"),
)


def wishes(container: "Json", image: "Json") -> "Iterator[Wish]":
    """Yield what a container was told, but for what it has from its image or by default."""
    config, host = container["Config"], container["HostConfig"]
    name = container["Name"].lstrip("/")
    yield "name", [name], "container_name", name
    yield from _of_config(container, image)
    yield from _of_health(config.get("Healthcheck"), image["Config"].get("Healthcheck"))
    for field, flag, key in _PLAIN:
        value = host.get(field)
        if not value or (field == "MemorySwap" and value == 2 * host.get("Memory", 0)):
            continue
        values = True if value is True else _texts(value)
        yield flag, values, key, value
    if host.get("NanoCpus"):
        cpus = f"{host['NanoCpus'] / _NANO:g}"
        yield "cpus", [cpus], "cpus", float(cpus)
    yield from _of_limits(host)
    yield from _of_storage(container)
    yield from _of_network(container)
    if (mode := host.get("IpcMode")) and mode != "private":
        yield "ipc", [mode], "ipc", mode
    if (mode := host.get("CgroupnsMode")) and mode != "private":
        yield "cgroupns", [mode], "cgroup", mode
    policy = host.get("RestartPolicy") or {}
    if policy.get("Name") not in (None, "", "no"):
        count = policy.get("MaximumRetryCount")
        text = policy["Name"] + (f":{count}" if count else "")
        yield "restart", [text], "restart", text
    if host.get("Runtime") not in (None, "", "runc"):
        yield "runtime", [host["Runtime"]], "runtime", host["Runtime"]
    log = host["LogConfig"]
    if log["Config"] or log["Type"] != "json-file":
        options = [f"{key}={value}" for key, value in sorted(log["Config"].items())]
        yield (
            "log-driver",
            [log["Type"]],
            "logging",
            {"driver": log["Type"], "options": log["Config"]},
        )
        yield "log-opt", options, "", None


def _of_config(container: "Json", image: "Json") -> "Iterator[Wish]":
    config, given = container["Config"], image["Config"]
    inherited = given.get("Env") or ()
    own = [entry for entry in config.get("Env") or () if entry not in inherited]
    if own:
        yield "env", own, "environment", own
    labels = {
        key: value
        for key, value in (config.get("Labels") or {}).items()
        if (given.get("Labels") or {}).get(key) != value
    }
    if labels:
        yield "label", [f"{key}={value}" for key, value in labels.items()], "labels", labels
    for field, flag, key in (
        ("User", "user", "user"),
        ("WorkingDir", "workdir", "working_dir"),
        ("StopSignal", "stop-signal", "stop_signal"),
        ("Domainname", "domainname", "domainname"),
    ):
        if config.get(field) and config[field] != given.get(field):
            yield flag, [config[field]], key, config[field]
    yield from _of_manner(container)
    exposed = given.get("ExposedPorts") or {}
    published = container["HostConfig"].get("PortBindings") or {}
    ports = [p for p in config.get("ExposedPorts") or () if p not in exposed and p not in published]
    if ports:
        yield "expose", ports, "expose", ports


def _of_manner(container: "Json") -> "Iterator[Wish]":
    """What an image cannot bring along."""
    config = container["Config"]
    if config.get("StopTimeout") is not None:
        seconds = str(config["StopTimeout"])
        yield "stop-timeout", [seconds], "stop_grace_period", f"{seconds}s"
    if config["Hostname"] != container["Id"][:12] and _has_hostname(container["HostConfig"]):
        yield "hostname", [config["Hostname"]], "hostname", config["Hostname"]
    if config.get("Tty"):
        yield "tty", True, "tty", True
    if config.get("OpenStdin"):
        yield "interactive", True, "stdin_open", True
    annotations = container["HostConfig"].get("Annotations") or {}
    if annotations:
        texts = [f"{key}={value}" for key, value in annotations.items()]
        yield "annotation", texts, "annotations", annotations


def _has_hostname(host: "Json") -> bool:
    """Whether the name is its own, and not the host's or another container's."""
    return not (host.get("UTSMode") or host["NetworkMode"] == "host" or ":" in host["NetworkMode"])


def _of_health(own: "Json | None", inherited: "Json | None") -> "Iterator[Wish]":
    if not own or own == inherited:
        return
    test = own.get("Test") or []
    if test == ["NONE"]:
        yield "no-healthcheck", True, "healthcheck", {"disable": True}
        return
    service: Json = {"test": test} if test else {}
    if test[:1] in (["CMD-SHELL"], ["CMD"]):
        text = test[1] if test[0] == "CMD-SHELL" else shlex.join(test[1:])
        yield "health-cmd", [text], "", None
    elif test:
        yield f"health-{test[0].lower()}", [test[1]], "", None
    for field, flag, key in _HEALTH:
        if own.get(field):
            text = f"{own[field] / _NANO:g}s"
            service[key] = text
            yield flag, [text], "", None
    if own.get("Retries"):
        service["retries"] = own["Retries"]
        yield "health-retries", [str(own["Retries"])], "", None
    yield "", [], "healthcheck", service


def _of_limits(host: "Json") -> "Iterator[Wish]":
    if host.get("ShmSize", _SHM_DEFAULT) != _SHM_DEFAULT:
        yield "shm-size", [str(host["ShmSize"])], "shm_size", host["ShmSize"]
    if limits := host.get("Ulimits"):
        texts = [f"{u['Name']}={u['Soft']}:{u['Hard']}" for u in limits]
        service = {u["Name"]: {"soft": u["Soft"], "hard": u["Hard"]} for u in limits}
        yield "ulimit", texts, "ulimits", service
    if sysctls := host.get("Sysctls"):
        yield "sysctl", [f"{key}={value}" for key, value in sysctls.items()], "sysctls", sysctls
    if devices := host.get("Devices"):
        texts = [":".join((d["PathOnHost"], d["PathInContainer"], d["CgroupPermissions"])) for d in devices]  # fmt: skip
        yield "device", texts, "devices", texts
    for request in host.get("DeviceRequests") or ():
        if request["Driver"] == "cdi":
            yield "device", request["DeviceIDs"], "devices", request["DeviceIDs"]
        else:
            count = "all" if request["Count"] == -1 else str(request["Count"])
            yield "gpus", [count], "gpus", count if count == "all" else [{"count": int(count)}]
    for field, flag in _RATES:
        if items := host.get(field):
            yield flag, [f"{item['Path']}:{item['Rate']}" for item in items], "", None
    if items := host.get("BlkioWeightDevice"):
        yield "blkio-weight-device", [f"{i['Path']}:{i['Weight']}" for i in items], "", None


def _of_storage(container: "Json") -> "Iterator[Wish]":
    host = container["HostConfig"]
    volumes = list(host.get("Binds") or ())
    bound = {bind.split(":")[1] for bind in volumes if ":" in bind}
    mounted = {mount["Target"] for mount in host.get("Mounts") or ()}
    declared = container["Config"].get("Volumes") or {}
    anonymous = [
        mount["Destination"]
        for mount in container["Mounts"]
        if mount["Type"] == "volume"
        and mount["Destination"] in declared
        and mount["Destination"] not in bound | mounted
    ]
    if volumes or anonymous:
        yield "volume", [*volumes, *anonymous], "", None
    service: list[Any] = [*volumes, *anonymous]
    for mount in host.get("Mounts") or ():
        yield "mount", [_mount(mount)], "", None
        entry = {"type": mount["Type"], "target": mount["Target"]}
        if mount.get("Source"):
            entry["source"] = mount["Source"]
        if mount.get("ReadOnly"):
            entry["read_only"] = True
        service.append(entry)
    if service:
        yield "", [], "volumes", service
    if tmpfs := host.get("Tmpfs"):
        texts = [f"{path}:{options}" if options else path for path, options in tmpfs.items()]
        yield "tmpfs", texts, "tmpfs", texts
    if options := host.get("StorageOpt"):
        yield "storage-opt", [f"{k}={v}" for k, v in options.items()], "storage_opt", options


def _mount(mount: "Json") -> str:
    """A mount as `--mount` has it."""
    parts = [f"type={mount['Type']}"]
    if mount.get("Source"):
        parts.append(f"source={mount['Source']}")
    parts.append(f"target={mount['Target']}")
    if mount.get("ReadOnly"):
        parts.append("readonly")
    parts += [*_bind_and_volume(mount), *_tmpfs_and_image(mount)]
    # --mount is a line of CSV.
    return ",".join('"' + p.replace('"', '""') + '"' if set(p) & {",", '"'} else p for p in parts)


def _bind_and_volume(mount: "Json") -> "list[str]":
    bind, volume = mount.get("BindOptions") or {}, mount.get("VolumeOptions") or {}
    parts = []
    if bind.get("Propagation"):
        parts.append(f"bind-propagation={bind['Propagation']}")
    if bind.get("NonRecursive"):
        parts.append("bind-recursive=disabled")
    if volume.get("NoCopy"):
        parts.append("volume-nocopy")
    if volume.get("Subpath"):
        parts.append(f"volume-subpath={volume['Subpath']}")
    driver = volume.get("DriverConfig") or {}
    if driver.get("Name"):
        parts.append(f"volume-driver={driver['Name']}")
    parts += [f"volume-opt={k}={v}" for k, v in (driver.get("Options") or {}).items()]
    parts += [f"volume-label={k}={v}" for k, v in (volume.get("Labels") or {}).items()]
    return parts


def _tmpfs_and_image(mount: "Json") -> "list[str]":
    tmpfs, image = mount.get("TmpfsOptions") or {}, mount.get("ImageOptions") or {}
    parts = []
    if tmpfs.get("SizeBytes"):
        parts.append(f"tmpfs-size={tmpfs['SizeBytes']}")
    if tmpfs.get("Mode"):
        parts.append(f"tmpfs-mode={tmpfs['Mode']:o}")
    if image.get("Subpath"):
        parts.append(f"image-subpath={image['Subpath']}")
    return parts


def _of_network(container: "Json") -> "Iterator[Wish]":
    host, networks = container["HostConfig"], container["NetworkSettings"]["Networks"]
    mode = host["NetworkMode"]
    short = container["Id"][:12]
    if mode in ("host", "none") or ":" in mode:
        yield "network", [mode], "network_mode", mode
    elif list(networks) not in ([], ["bridge"]) or mode not in ("bridge", "default"):
        flags, service = [], {}
        for name, settings in networks.items():
            flag, entry = _endpoint(name, settings, short)
            flags.append(flag)
            service[name] = entry
        yield "network", flags, "networks", service
    elif mac := container["Config"].get("MacAddress"):
        yield "mac-address", [mac], "mac_address", mac
    published = []
    for port, bindings in (host.get("PortBindings") or {}).items():
        for binding in bindings or ():
            address = binding["HostIp"]
            front = f"[{address}]:" if ":" in address else f"{address}:" if address else ""
            middle = f"{binding['HostPort']}:" if binding["HostPort"] or front else ""
            published.append(f"{front}{middle}{port}")
    if published:
        yield "publish", published, "ports", published
    if links := host.get("Links"):
        texts = [_link(link) for link in links]
        yield "link", texts, "external_links", texts


def _endpoint(name: str, settings: "Json", short: str) -> "tuple[str, Json]":
    """A network as the flag and as Compose have it, with what was asked of it."""
    asked = settings.get("IPAMConfig") or {}
    aliases = [alias for alias in settings.get("Aliases") or () if alias != short]
    entry: Json = {}
    parts = [f"name={name}", *(f"alias={alias}" for alias in aliases)]
    if aliases:
        entry["aliases"] = aliases
    for field, flag, key in (
        ("IPv4Address", "ip", "ipv4_address"),
        ("IPv6Address", "ip6", "ipv6_address"),
    ):
        if asked.get(field):
            parts.append(f"{flag}={asked[field]}")
            entry[key] = asked[field]
    for key, value in (settings.get("DriverOpts") or {}).items():
        parts.append(f"driver-opt={key}={value}")
        entry.setdefault("driver_opts", {})[key] = value
    if settings.get("GwPriority"):
        parts.append(f"gw-priority={settings['GwPriority']}")
        entry["gw_priority"] = settings["GwPriority"]
    return (name if len(parts) == 1 else ",".join(parts)), entry


def _link(link: str) -> str:
    """Return a link as it was written, out of "/target:/name/alias"."""
    target, _, place = link.partition(":")
    return f"{target.lstrip('/')}:{place.rpartition('/')[2]}"


def _texts(value: "Any") -> list[str]:
    return [str(item) for item in value] if isinstance(value, list) else [str(value)]
