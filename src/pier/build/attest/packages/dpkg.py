"""dpkg's database: `var/lib/dpkg/status`, a paragraph a package, or a file each in `status.d/`, as
images without dpkg have it (deb-control(5), dpkg-query(1)).
"""

from collections.abc import Iterator

from pier.build.attest.packages.package import Package, parse_fields


def parse_status(text: str, found_in: str) -> Iterator[Package]:
    """Yield what is installed; what was removed and left its configuration is not."""
    for paragraph in text.split("\n\n"):
        fields = parse_fields(paragraph.lstrip("\n"))
        name, version = fields.get("Package", ""), fields.get("Version", "")
        status = fields.get("Status", "install ok installed")
        if not name or not version or not status.endswith(" installed"):
            continue
        source = fields.get("Source", "").partition(" (")[0]
        yield Package(
            kind="deb",
            name=name,
            version=version,
            found_in=found_in,
            architecture=fields.get("Architecture", ""),
            supplier=fields.get("Maintainer", ""),
            homepage=fields.get("Homepage", ""),
            source=source,
        )
