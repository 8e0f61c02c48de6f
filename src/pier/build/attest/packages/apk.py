"""apk's database: `lib/apk/db/installed`, records of one-letter fields (apk-tools, apk-v2(5))."""

from collections.abc import Iterator

from pier.build.attest.packages.package import Package


def parse_installed(text: str, found_in: str) -> Iterator[Package]:
    for record in text.split("\n\n"):
        fields: dict[str, str] = {}
        for line in record.splitlines():
            key, colon, value = line.partition(":")
            # F: and what follows are files, whose letters mean other things.
            if key == "F":
                break
            if colon:
                fields.setdefault(key, value)
        if fields.get("P") and fields.get("V"):
            yield Package(
                kind="apk",
                name=fields["P"],
                version=fields["V"],
                found_in=found_in,
                architecture=fields.get("A", ""),
                license=fields.get("L", ""),
                supplier=fields.get("m", ""),
                homepage=fields.get("U", ""),
                source=fields.get("o", ""),
            )
