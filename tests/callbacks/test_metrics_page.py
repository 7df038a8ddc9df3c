"""Promises of docs/metrics.md: it names every tag that a run writes, and none that the code does not know."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import sdar
from toys.boards import read, trained

PAGE = (Path(__file__).parents[2] / "docs" / "metrics.md").read_text(encoding="utf-8")
SOURCE = "\n".join(file.read_text(encoding="utf-8") for file in Path(sdar.__file__).parent.rglob("*.py"))
GROUPS = (
    *("at_a_glance", "cost", "curriculum", "episodes", "loss", "objective", "pictures", "rollout", "run", "skills"),
    *("teacher", "throughput", "time", "train", "val", "val_with_skills"),
)
"""What stands before the first slash of a tag."""
TENSORBOARD = re.compile("_hparams_/|custom_scalars__config__")
"""What TensorBoard itself reads, and shows under no tag."""


def documented() -> set[str]:
    """The tags of the tables' first columns; ``.../x`` goes on where the one before it began."""
    found: set[str] = set()
    for row in re.findall(r"^\| (`[^|]*`[^|]*) \|", PAGE, re.MULTILINE):
        last = ""
        for name in re.findall(r"`([^`]+)`", row):
            name = f"{last.rpartition('/')[0]}/{name[4:]}" if name.startswith(".../") else name
            name = re.sub("_mean$", name, last) if name == "_std" else name
            if name.partition("/")[0] in GROUPS and "/" in name:
                found.add(name)
                last = name
    return found


def pattern(tag: str) -> re.Pattern[str]:
    return re.compile(re.sub(r"<[^>]*>|\\\*", ".+", re.escape(tag).replace(r"\<", "<").replace(r"\>", ">")))


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    """Tags of all kinds that a run writes."""
    folder = tmp_path_factory.mktemp("run")
    trained(folder, 3)
    tags = read(folder).Tags()
    found = {tag for kind in ("scalars", "images", "histograms", "tensors") for tag in tags[kind]}
    return {tag for tag in found if not TENSORBOARD.match(tag)}


def test_every_tag_of_a_run_is_documented(written: set[str]) -> None:
    patterns = [pattern(tag) for tag in documented()]
    assert len(written) > 60
    assert [tag for tag in sorted(written) if not any(one.fullmatch(tag) for one in patterns)] == []


def test_every_documented_tag_is_written_or_named_in_the_code(written: set[str]) -> None:
    """A tag whose end is made of a name counts by its beginning."""

    def known(tag: str) -> bool:
        beginning = re.split("[<*]", tag)[0]
        deviation = re.sub("_std$", "_mean", beginning)
        return beginning in SOURCE or deviation in SOURCE or any(pattern(tag).fullmatch(one) for one in written)

    made = re.compile("val(_with_skills)?/|train/grad_norm/|time/evaluation_s")  # by evaluations, and term by term
    missing = [tag for tag in sorted(documented()) if not known(tag) and not made.match(tag)]
    assert len(documented()) > 80
    assert missing == []
