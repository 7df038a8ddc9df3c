"""A hook of mkdocs: links that leave ``docs/`` work on the site as they do in the repository.

Where ``extra.repository`` of mkdocs.yml is a URL they lead there. Otherwise each linked file is a page of the site,
under ``repository/``, and so are the files that it links to. Links that show the name of a page's file show its title.
"""

from __future__ import annotations

import json
import posixpath
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File

LINK = re.compile(r"(?<=\]\()(?![a-z]+:|#|/)([^)\s#]+)(#[^)\s]*)?(?=\))")
"""Target and fragment of a relative link of Markdown."""

NAMED = re.compile(r"\[([\w./]+\.md)\](?=\(([^)\s#]+\.md)[)#])")
"""A link that shows a file's name, and its target."""

TITLE = re.compile(r"^# (.+)$", re.MULTILINE)

READ = (".md", ".ipynb")
"""Files whose text is a page, and not the content of one."""

COPIES = "repository/"
"""Where the pages of files outside ``docs/`` lie."""


def on_files(files: Any, config: Any) -> Any:
    """Add a page for every file outside ``docs/`` that a page links to, unless they are linked in the repository."""
    if _url(config):
        return files
    root = Path(config.docs_dir).parent
    texts = {f"docs/{file.src_uri}": file.content_string for file in files.documentation_pages()}
    known: set[str] = set()
    while texts:
        page, text = texts.popitem()
        for path in _targets(text, page):
            if path in known or path.startswith("docs/") or not (root / path).is_file():
                continue
            known.add(path)
            content = _page(path, (root / path).read_text(encoding="utf-8"))
            if path.endswith(READ):
                texts[path] = content
            files.append(File.generated(config, _copy(path), content=content))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Any) -> str:
    """Let relative links lead where their files are on the site, or in the repository."""
    here = page.file.src_uri
    origin = _origin(here)
    if not origin.endswith(READ):
        return markdown

    def moved(link: re.Match[str]) -> str:
        path, fragment = _resolved(link[1], origin), link[2] or ""
        inside = path.startswith("docs/") and not here.startswith(COPIES)
        if inside or path.startswith("../"):
            return link[0]
        if path.startswith("docs/"):
            target = path.removeprefix("docs/")
        elif url := _url(config):
            return f"{url}/blob/HEAD/{path}{fragment}"
        else:
            target = _copy(path)
        return posixpath.relpath(target, posixpath.dirname(here)) + fragment

    def titled(link: re.Match[str]) -> str:
        target = files.get_file_from_path(_resolved(link[2], here))
        title = TITLE.search(target.content_string) if target else None
        return f"[{title[1]}]" if title and posixpath.basename(link[1]) == posixpath.basename(link[2]) else link[0]

    return NAMED.sub(titled, LINK.sub(moved, markdown))


def _url(config: Any) -> str:
    return str(config.extra.get("repository") or "").rstrip("/")


def _targets(text: str, page: str) -> Iterator[str]:
    """The paths, from the root of the repository, that a page links to."""
    return (_resolved(link[1], page) for link in LINK.finditer(text))


def _resolved(target: str, page: str) -> str:
    return posixpath.normpath(posixpath.join(posixpath.dirname(page), target))


def _copy(path: str) -> str:
    """The page that shows a file of the repository; a file that is no page gets another ending."""
    return COPIES + (path if path.endswith(".md") else f"{path}.md")


def _origin(src_uri: str) -> str:
    """The file of the repository that a page shows."""
    if not src_uri.startswith(COPIES):
        return f"docs/{src_uri}"
    path = src_uri.removeprefix(COPIES)
    return path if Path(path).stem.count(".") == 0 else path.removesuffix(".md")


def _cells(notebook: Any) -> Iterator[str]:
    """The cells of a notebook as Markdown, with what they print and draw."""
    for cell in notebook["cells"]:
        source = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            yield source
            continue
        yield f"~~~~~~python\n{source}\n~~~~~~"
        for output in cell["outputs"]:
            if text := "".join(output.get("text", "")):
                yield f"~~~~~~text\n{text}\n~~~~~~"
            if image := output.get("data", {}).get("image/png"):
                yield f"![What the cell draws](data:image/png;base64,{image.strip()})"


def _page(path: str, content: str) -> str:
    if path.endswith(".md"):
        return content
    if path.endswith(".ipynb"):
        return "\n\n".join(_cells(json.loads(content)))
    language = {".py": "python", ".yaml": "yaml", ".yml": "yaml", ".toml": "toml"}.get(Path(path).suffix, "text")
    return (
        f"---\nsearch: {{exclude: true}}\n---\n# {Path(path).name}\n\n`{path}`\n\n~~~~~~{language}\n{content}\n~~~~~~\n"
    )
