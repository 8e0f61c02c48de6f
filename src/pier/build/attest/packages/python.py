"""What pip and its like installed: `*.dist-info/METADATA`, `*.egg-info/PKG-INFO` (PEP 376, 566)."""

from collections.abc import Iterator

from pier.build.attest.packages.package import Package, parse_fields


def parse_metadata(text: str, found_in: str) -> Iterator[Package]:
    fields = parse_fields(text)
    name, version = fields.get("Name", ""), fields.get("Version", "")
    if not name or not version:
        return
    license_ = fields.get("License-Expression", "") or fields.get("License", "")
    supplier = fields.get("Author", "") or fields.get("Author-email", "")
    yield Package(
        kind="pypi",
        name=name,
        version=version,
        found_in=found_in,
        license="" if license_ == "UNKNOWN" else license_.partition("\n")[0],
        supplier="" if supplier == "UNKNOWN" else supplier.partition("\n")[0],
        homepage=fields.get("Home-page", "").replace("UNKNOWN", ""),
    )
