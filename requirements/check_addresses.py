"""Fails when a tracked file names a package registry or a folder of one machine.

The person who installs this chooses where packages come from and where the checkout lies; no file
may.
"""

import re
import subprocess
import sys
from pathlib import Path

# Written so that this file does not match itself.
REGISTRY = re.compile(
    rb"(py[p]i|python[h]osted|npm[j]s|registry[.]n[p]m|de[b][.]debian)[.](org|com)", re.IGNORECASE
)
MACHINE_PATH = re.compile(rb"/(root|home/[a-z]+|work|Users)/[\w.]")


def main() -> int:
    listed = subprocess.run(["git", "ls-files", "-z"], capture_output=True, check=True)  # noqa: S607
    wrong = [
        fault for path in listed.stdout.split(b"\0") if path for fault in faults(path.decode())
    ]
    sys.stdout.writelines(f"{fault}\n" for fault in wrong)
    return 1 if wrong else 0


def faults(name: str) -> list[str]:
    path = Path(name)
    if not path.is_file():
        return []  # deleted in the work tree, not yet in the index
    content = path.read_bytes()
    kinds = (
        (REGISTRY, "names a package registry"),
        (MACHINE_PATH, "names a folder of one machine"),
    )
    return [
        f"{name}:{line_of(content, match)}: {what}"
        for pattern, what in kinds
        for match in pattern.finditer(content)
    ]


def line_of(content: bytes, match: re.Match[bytes]) -> int:
    return content.count(b"\n", 0, match.start()) + 1


if __name__ == "__main__":
    sys.exit(main())
