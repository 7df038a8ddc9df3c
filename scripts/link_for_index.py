"""Makes a README readable away from its repository, before a distribution is built.

    python scripts/link_for_index.py https://github.com/OWNER/NAME v0.1.0

A package index shows the README alone: its links and pictures are pointed at the repository's files at that tag, and
``pyproject.toml`` gets the project's addresses. Both files are changed in place, and a second run changes nothing.
"""

from __future__ import annotations

import argparse
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
_LINK = re.compile(r"(?P<picture>!?)\[(?P<text>[^\]]*)\]\((?P<target>[^)\s]+)\)")


def main() -> None:
    """Rewrite both files."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("repository", help="its address, without a slash at the end")
    parser.add_argument("tag")
    parser.add_argument("--root", type=Path, default=ROOT)
    arguments = parser.parse_args()
    for name, rewrite in (("README.md", linked), ("pyproject.toml", addressed)):
        file = arguments.root / name
        file.write_text(rewrite(file.read_text(encoding="utf-8"), arguments.repository, arguments.tag), "utf-8")


def linked(text: str, repository: str, tag: str) -> str:
    """The text with links to files of the repository in full; those within the text, and to elsewhere, stay."""

    def full(found: re.Match[str]) -> str:
        target = found["target"]
        if target.startswith("#") or "://" in target or target.startswith("mailto:"):
            return found[0]
        kind = "raw" if found["picture"] else "blob"
        return f"{found['picture']}[{found['text']}]({repository}/{kind}/{tag}/{target})"

    return _LINK.sub(full, text)


def addressed(text: str, repository: str, tag: str) -> str:
    """The project's settings with a table of its addresses, where there is none."""
    if "[project.urls]" in text:
        return text
    urls = {
        "Homepage": repository,
        "Documentation": f"{repository}/blob/{tag}/docs/README.md",
        "Changelog": f"{repository}/blob/{tag}/CHANGELOG.md",
        "Issues": f"{repository}/issues",
    }
    return text.rstrip() + "\n\n[project.urls]\n" + "".join(f'{name} = "{url}"\n' for name, url in urls.items())


if __name__ == "__main__":
    main()
