"""Whether a tag can be released: it is the version everywhere, and the changelog has a dated section about it.

    python scripts/check_release.py v0.1.0 [--notes notes.md]

``--notes`` writes that section. Exit code 1 and a sentence for everything that is missing.
"""

from __future__ import annotations

import argparse
import re
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def main() -> None:
    """Check, and write the notes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tag")
    parser.add_argument("--notes", type=Path)
    parser.add_argument("--root", type=Path, default=ROOT)
    arguments = parser.parse_args()
    problems, notes = check(arguments.tag, arguments.root)
    if problems:
        sys.exit("\n".join(problems))
    if arguments.notes is not None:
        arguments.notes.write_text(notes, encoding="utf-8")


def check(tag: str, root: Path) -> tuple[list[str], str]:
    """What stands against releasing ``tag`` from the files below ``root``, and its section of the changelog."""
    version = tag.removeprefix("v")
    problems = []
    if tag == version:
        problems.append(f"a tag must begin with v, got {tag}")
    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
    if project != version:
        problems.append(f"pyproject.toml has version {project}, the tag is {tag}")
    cited = re.search(r"^version: (\S+)$", (root / "CITATION.cff").read_text(encoding="utf-8"), re.MULTILINE)
    if cited is None or cited[1] != version:
        problems.append(f"CITATION.cff has version {cited and cited[1]}, the tag is {tag}")
    notes = section((root / "CHANGELOG.md").read_text(encoding="utf-8"), version)
    if notes is None:
        problems.append(f"CHANGELOG.md has no section '## {version} - YYYY-MM-DD'")
    return problems, notes or ""


def section(changelog: str, version: str) -> str | None:
    """The text below ``## VERSION - DATE``, up to the next section; None where there is none."""
    heading = rf"^## {re.escape(version)} - \d{{4}}-\d\d-\d\d\n"
    found = re.search(heading + r"(.*?)(?=^## |\Z)", changelog, re.MULTILINE | re.DOTALL)
    return None if found is None else found[1].strip() + "\n"


if __name__ == "__main__":
    main()
