"""What progress calls an operation that its client gave no name, as BuildKit does."""

from pier.buildkit.messages import ops


def name_of(op: ops.Op) -> str:
    if op.source is not None:
        return op.source.identifier
    if op.exec is not None:
        return " ".join(op.exec.meta.args) if op.exec.meta else ""
    if op.file is not None:
        return ", ".join(_action(action) for action in op.file.actions)
    if op.merge is not None:
        return "merge"
    return "diff" if op.diff is not None else "build"


def _action(action: ops.FileAction) -> str:
    if action.mkdir is not None:
        return f"mkdir {action.mkdir.path}"
    if action.mkfile is not None:
        return f"mkfile {action.mkfile.path}"
    if action.rm is not None:
        return f"rm {action.rm.path}"
    if action.copy is not None:
        return f"copy {action.copy.src} {action.copy.dest}"
    if action.symlink is not None:
        return f"symlink {action.symlink.oldpath} -> {action.symlink.newpath}"
    return ""
