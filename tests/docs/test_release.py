"""A release is one version everywhere, with a dated section of the changelog; workflows name files that there are."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
CHANGELOG = (
    "# Changelog\n\n## Unreleased\n\n- new\n\n## 0.2.0 - 2026-02-03\n\n- second\n\n## 0.1.0 - 2026-01-01\n\n- first\n"
)


def project(folder: Path, *, version: str = "0.2.0", cited: str = "0.2.0", changelog: str = CHANGELOG) -> Path:
    (folder / "pyproject.toml").write_text(f'[project]\nname = "sdar"\nversion = "{version}"\n')
    (folder / "CITATION.cff").write_text(f"cff-version: 1.2.0\nversion: {cited}\n")
    (folder / "CHANGELOG.md").write_text(changelog)
    return folder


def check(tag: str, root: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    script = ROOT / "scripts" / "check_release.py"
    command = [sys.executable, str(script), tag, "--root", str(root), *arguments]
    return subprocess.run(command, check=False, capture_output=True, text=True, timeout=300)


def test_the_notes_of_a_release_are_its_section(tmp_path: Path) -> None:
    for version, notes in (("0.2.0", "- second\n"), ("0.1.0", "- first\n")):
        done = check(
            f"v{version}", project(tmp_path, version=version, cited=version), "--notes", str(tmp_path / "n.md")
        )
        assert done.returncode == 0, done.stderr
        assert (tmp_path / "n.md").read_text() == notes


@pytest.mark.parametrize(
    ("tag", "changed", "said"),
    [
        ("0.2.0", {}, "a tag must begin with v, got 0.2.0"),
        ("v0.2.0", {"version": "0.3.0"}, "pyproject.toml has version 0.3.0, the tag is v0.2.0"),
        ("v0.2.0", {"cited": "0.1.0"}, "CITATION.cff has version 0.1.0, the tag is v0.2.0"),
        ("v0.2.0", {"changelog": "## 0.2.0\n\n- undated\n"}, "CHANGELOG.md has no section '## 0.2.0 - YYYY-MM-DD'"),
    ],
)
def test_what_stands_against_a_release_is_named(tag: str, changed: dict[str, str], said: str, tmp_path: Path) -> None:
    done = check(tag, project(tmp_path, **changed), "--notes", str(tmp_path / "n.md"))
    assert done.returncode == 1
    assert said in done.stderr
    assert not (tmp_path / "n.md").exists()


REPOSITORY = "https://example.org/us/sdar"


def test_links_work_on_a_package_index(tmp_path: Path) -> None:
    """Every relative one, and only those; each names a file that there is."""
    for name in ("README.md", "pyproject.toml"):
        (tmp_path / name).write_bytes((ROOT / name).read_bytes())
    command = [sys.executable, str(ROOT / "scripts" / "link_for_index.py"), REPOSITORY, "v0.1.0"]
    seen = []
    for _ in range(2):
        subprocess.run([*command, "--root", str(tmp_path)], check=True, timeout=300)
        seen.append(((tmp_path / "README.md").read_text(), (tmp_path / "pyproject.toml").read_text()))
    assert seen[0] == seen[1]
    text, settings = seen[0]
    before = re.findall(r"(!?)\[[^\]]*\]\(([^)\s]+)\)", (ROOT / "README.md").read_text())
    after = re.findall(r"(!?)\[[^\]]*\]\(([^)\s]+)\)", text)
    assert len(before) == len(after) > 30
    pictures = 0
    for (picture, old), (_, new) in zip(before, after, strict=True):
        if "://" in old or old.startswith("#"):
            assert new == old
            continue
        pictures += bool(picture)
        assert new == f"{REPOSITORY}/{'raw' if picture else 'blob'}/v0.1.0/{old}"
        assert (ROOT / old.partition("#")[0]).is_file()
    assert pictures == 3
    project = tomllib.loads(settings)["project"]
    assert project["urls"]["Homepage"] == REPOSITORY
    assert project["name"] == "sdar"


def test_the_version_is_cited() -> None:
    version = re.search(r'^version = "(.+)"$', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    assert version is not None
    assert f"\nversion: {version[1]}\n" in (ROOT / "CITATION.cff").read_text()


@pytest.mark.parametrize("name", sorted(path.name for path in (ROOT / ".github" / "workflows").glob("*.yml")))
def test_a_workflow_names_files_that_there_are(name: str) -> None:
    jobs = yaml.safe_load((ROOT / ".github" / "workflows" / name).read_text())["jobs"]
    texts = [step.get("run", "") for job in jobs.values() for step in job["steps"]]
    files = re.findall(r"(?:python|bash) (\S+\.py|\.ci/\S+)|-c (\S+\.txt)", "\n".join(texts))
    assert [file for pair in files for file in pair if file and not (ROOT / file).exists()] == []
