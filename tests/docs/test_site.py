"""The documentation as a site: every page is in it once, it builds without a warning, and what pages name is there."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import yaml
from omegaconf import OmegaConf

from sdar.commands import front
from sdar.compare.plan import make_plan
from sdar.compare.request import read_request
from sdar.config.compose import compose_config
from sdar.config.sources import config_folder, groups
from sdar.run.validate import compose
from toys.episodes import line, write_episodes

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = ("quickstart.md", "faq.md", "glossary.md", "paper_index.md", "coming_from.md")
"""Short pages about what other pages explain; whatever they name is looked up here."""
TEXTS = {name: (DOCS / name).read_text(encoding="utf-8") for name in PAGES}


class Configuration(yaml.SafeLoader):
    """mkdocs.yml, whose tags of mkdocs and of Python stand for nothing here."""


Configuration.add_multi_constructor("", lambda loader, suffix, node: None)


@pytest.fixture(scope="module")
def configuration() -> dict[str, Any]:
    return dict(yaml.load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"), Configuration))


def pages_of(nav: Any) -> Iterator[str]:
    """The files that a part of the navigation names."""
    if isinstance(nav, str):
        yield nav
    for item in nav.values() if isinstance(nav, dict) else nav if isinstance(nav, list) else ():
        yield from pages_of(item)


def test_the_navigation_names_every_page_once(configuration: dict[str, Any]) -> None:
    named = Counter(pages_of(configuration["nav"]))
    assert named == Counter(page.relative_to(DOCS).as_posix() for page in DOCS.rglob("*.md"))


def test_the_index_names_every_page() -> None:
    index = (DOCS / "README.md").read_text(encoding="utf-8")
    linked = set(re.findall(r"\]\(([\w/]+\.md)\)", index))
    assert linked == {page.name for page in DOCS.glob("*.md") if page.name != "README.md"} | {"api/README.md"}


def test_nothing_is_fetched_from_elsewhere(configuration: dict[str, Any]) -> None:
    """The theme's fonts come from Google, its figures of a repository from GitHub, its offline search from a CDN."""
    assert configuration["theme"]["font"] is False
    assert "repo_url" not in configuration
    plugins = [plugin if isinstance(plugin, str) else next(iter(plugin)) for plugin in configuration["plugins"]]
    assert "offline" not in plugins
    assert not {"analytics", "consent"} & configuration["extra"].keys()


def test_every_name_of_the_api_is_there() -> None:
    named = [name for page in (DOCS / "api").glob("*.md") for name in re.findall(r"^::: (\S+)", page.read_text(), re.M)]
    assert len(named) > 80
    assert not [name for name, times in Counter(named).items() if times > 1]
    for name in named:
        module, _, attribute = name.rpartition(".")
        assert hasattr(import_module(module), attribute), name


@pytest.mark.slow
@pytest.mark.skipif(not all(map(find_spec, ("material", "mkdocstrings"))), reason="needs the extra docs")
@pytest.mark.parametrize("repository", ["", "https://example.org/sdar"])
def test_the_site_builds_without_a_warning(repository: str, tmp_path: Path) -> None:
    environment = {**os.environ, "REPOSITORY_URL": repository, "NO_MKDOCS_2_WARNING": "1"}
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, env=environment, check=False, capture_output=True, text=True, timeout=600)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")
    outside = f'href="{repository}/blob/HEAD/SECURITY.md"' if repository else 'href="repository/SECURITY.html"'
    assert outside in (tmp_path / "models.html").read_text(encoding="utf-8")
    assert (tmp_path / "repository" / "SECURITY.html").exists() is (not repository)
    for page in tmp_path.rglob("*.html"):
        text = page.read_text(encoding="utf-8")
        loaded = re.findall(r'<(?:script|img|link|iframe)[^>]*(?:src|href)="(https?:[^"]*)"', text)
        assert not loaded, page
    gate = (tmp_path / "api" / "objective.html").read_text(encoding="utf-8")
    assert "<code>threshold</code>" in gate
    assert ":class:" not in gate


# What the short pages name.

COMMANDS = [
    pytest.param(words, id=f"{name}: {words[:60]}")
    for name, text in TEXTS.items()
    for words in dict.fromkeys(
        re.findall(r"^ {4,}(sdar .*)$", text.replace("\\\n", " "), re.M) + re.findall(r"`(sdar [a-z-]+ [^`]+)`", text)
    )
]


@pytest.mark.parametrize("words", COMMANDS)
def test_a_command_of_the_short_pages_is_accepted(
    words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    write_episodes(tmp_path / "run", [line()])
    (tmp_path / "last.ckpt").touch()
    for placeholder, value in {"RUN": "run", "PATH": "last.ckpt", "NAME": "arithmetic", "MODEL": "arithmetic"}.items():
        words = re.sub(rf"\b{placeholder}\b", value, words)
    _, command, *arguments = shlex.split(words, comments=True)
    if command == "compare":
        request = read_request(arguments)
        assert len(make_plan(request).jobs) == len(request.methods) * len(request.seeds) > 1
    else:
        code, said = front.main([command, *arguments]), capsys.readouterr().err
        # An empty file is no checkpoint, which is found out when all else is right.
        assert code == 0 or (command == "export" and said.startswith("error: ckpt_path=last.ckpt")), said


VARIANTS = (
    [],
    ["model=hf", "model.name=x", "model.lora={rank: 16, alpha: 32, dropout: 0.0, target_modules: all-linear}"],
    ["algorithm=gigpo", "divergence=reverse_kl", "schedule=warm_down"],
    ["algorithm=rlsd"],
    ["environment=search_qa", "search_engine=http", "retrieval=bm25"],
    ["environment.engine=native", "trainer=ddp"],
)
"""Together they have every setting that the short pages name."""
GROUPS = groups(config_folder())
TAGS = "rollout|curriculum|train|objective|val|val_with_skills|skills|pictures|at_a_glance|time|loss"


@pytest.fixture(scope="module")
def settings() -> set[str]:
    """The dotted names of all settings."""
    return {name for overrides in VARIANTS for name in dotted(OmegaConf.to_container(compose_config(overrides)))}


def dotted(node: Any, prefix: str = "") -> Iterator[str]:
    if isinstance(node, dict):
        for name, value in node.items():
            yield f"{prefix}{name}"
            yield from dotted(value, f"{prefix}{name}.")


def spans(page: str) -> list[str]:
    """The words in code on a page; of a table that begins with another library's names, those of ours alone."""
    text = re.sub(r"^( {4,}.*|```.*)$", "", TEXTS[page], flags=re.M)
    if page == "coming_from.md":
        rows = [row.split(" | ") for row in re.findall(r"^\| (.+)$", text, re.M)]
        text = "\n".join(cells[1] for cells in rows if len(cells) > 2)
    return [word for span in re.findall(r"`([^`]+)`", text) for word in span.split() if not span.startswith("sdar ")]


@pytest.mark.parametrize("page", PAGES)
def test_settings_and_choices_that_a_short_page_names_are_there(page: str, settings: set[str]) -> None:
    checked = 0
    for word in spans(page):
        name, is_set, value = word.partition("=")
        if name in GROUPS and is_set and re.fullmatch(r"[a-z0-9_/]+", value):
            assert value in GROUPS[name], word
        elif name.split(".")[0] in GROUPS and re.fullmatch(r"\w+(\.\w+)+", name):
            assert name in settings, word
        elif is_set and re.fullmatch(r"[a-z_]+", name):
            assert name in settings | GROUPS.keys() | {"out", "task"} or value.isupper(), word
        else:
            continue
        checked += 1
    assert checked > 1


@pytest.mark.parametrize("page", PAGES)
def test_tags_that_a_short_page_names_are_documented(page: str) -> None:
    metrics = (DOCS / "metrics.md").read_text(encoding="utf-8")
    for word in spans(page):
        if re.fullmatch(rf"({TAGS})/[\w/]*\*?", word):
            assert f"`{word.rstrip('*')}" in metrics, word


def test_tests_that_the_paper_index_names_are_there() -> None:
    code = "\n".join(file.read_text(encoding="utf-8") for file in (ROOT / "tests").rglob("test_*.py"))
    names = set(re.findall(r"`(test_\w+)`", TEXTS["paper_index.md"]))
    assert len(names) > 15
    assert {name for name in names if f"def {name}(" not in code} == set()


@pytest.mark.parametrize("page", [*sorted(DOCS.rglob("*.md")), *sorted(ROOT.glob("*.md"))], ids=lambda page: page.name)
def test_prose_keeps_to_120_columns(page: Path) -> None:
    """All but tables and code."""
    lines = page.read_text(encoding="utf-8").splitlines()
    assert [text for text in lines if len(text) > 120 and not text.startswith(("|", "    "))] == []


def test_experiments_of_the_paper_index_compose(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All nine, as the page says, beside those in its commands."""
    from sdar import processes
    from sdar.run.rules import processes as parallel

    for module in (processes, parallel):
        monkeypatch.setattr(module, "available_gpus", lambda: 1)
    for name in ("ALFWORLD_DATA", "WEBSHOP_DATA", "SEARCH_QA_DATA"):
        monkeypatch.setenv(name, str(tmp_path))
    for environment in ("alfworld", "webshop", "search_qa"):
        for model in ("qwen2_5_3b", "qwen2_5_7b", "qwen3_1_7b"):
            assert compose([f"experiment=paper/{environment}_{model}", f"run_dir={tmp_path / 'run'}"]).seed == 0
