"""Findings as `docker build --check` prints them."""

from collections.abc import Sequence
from typing import Any

from pier.build.dockerfile.excerpt import excerpt
from pier.build.lint.findings import Finding


def ordered(found: Sequence[Finding]) -> list[Finding]:
    return sorted(found, key=lambda finding: finding.first)


def as_text(found: Sequence[Finding], filename: str, source: str) -> str:
    """Return one block for each finding, without what is said of their number."""
    blocks = []
    for finding in ordered(found):
        page = f" - {finding.rule.url}" if finding.rule.url else ""
        head = f"\nWARNING: {finding.rule.name}{page}\n{finding.detail}\n"
        blocks.append(head + excerpt(filename, source, finding.first, finding.last))
    return "".join(blocks)


def as_document(found: Sequence[Finding], filename: str, source: bytes) -> dict[str, Any]:
    """Return `result.json` of the frontend's `lint` request; the source's data is bytes."""
    return {
        "warnings": [
            {
                "ruleName": finding.rule.name,
                "description": finding.rule.description,
                "url": finding.rule.url,
                "detail": finding.detail,
                "location": {
                    "ranges": [{"start": {"line": finding.first}, "end": {"line": finding.last}}]
                },
            }
            for finding in ordered(found)
        ],
        "sources": [{"fileName": filename, "language": "Dockerfile", "data": source}],
    }
