"""What we say that we can do: names of capabilities (buildkit frontend/gateway/pb and solver/pb, caps.go).

Clients refuse on their own side to send what is not named here.
"""

from pier.buildkit.messages.gateway import APICap

FRONTEND = (
    "frontend.caps",
    "frontend.inputs",
    "gateway.evaluate",
    "gateway.solve.evaluate",
    "gateway.solve.metadata",
    "gateway.warnings",
    "importcaches",
    "proto.refarray",
    "readdir",
    "readfile",
    "reference.output",
    "resolveimage",
    "resolveimage.resolvemode",
    "return",
    "returnmap",
    "solve.base",
    "statfile",
)
# Of definitions of its own a client sends none yet: these are what building a Dockerfile needs.
LLB = (
    "constraints",
    "exec.meta.base",
    "exec.meta.cgroup.parent",
    "exec.meta.network",
    "exec.meta.proxyenv",
    "exec.meta.security",
    "exec.meta.setsdefaultpath",
    "exec.meta.ulimit",
    "exec.mount.bind",
    "exec.mount.cache",
    "exec.mount.cache.sharing",
    "exec.mount.secret",
    "exec.mount.selector",
    "exec.mount.ssh",
    "exec.mount.tmpfs",
    "exec.mount.tmpfs.size",
    "exec.secretenv",
    "exporter.image.annotations",
    "exporter.image.attestations",
    "exporter.multiple",
    "exporter.session",
    "exporter.sourcedateepoch",
    "file.base",
    "file.copy.includeexcludepatterns",
    "gc.freespacefilter",
    "history.filter",
    "meta.description",
    "meta.exportcache",
    "meta.ignorecache",
    "platform",
    "source.git",
    "source.http",
    "source.image",
    "source.local",
    "source.local.excludepatterns",
    "source.local.followpaths",
    "source.local.includepatterns",
    "source.local.sessionid",
    "source.local.sharedkeyhint",
    "source.local.unique",
)


def caps(names: tuple[str, ...]) -> list[APICap]:
    return [APICap(ID=name, Enabled=True) for name in names]
