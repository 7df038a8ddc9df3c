"""The release's ALFWorld folder gives every published game the text that the release gives it."""

from __future__ import annotations

import json
import lzma
import os
from collections import Counter
from pathlib import Path

import pytest

from sdar.environments.alfworld.dataset import GAME_FILE
from sdar.episode import Task
from sdar.skills.library import SkillLibrary
from sdar.skills.retrieval import TaskTypeRetrieval
from sdar.teacher.skills import SkillPart

GAMES = Path(os.environ.get("SDAR_TEST_DATA", "no-test-data")) / "alfworld" / "games.jsonl.xz"

FILES = ("general_skills", "pick_and_place", "look_at_obj_in_light", "clean", "heat", "cool")
KEYS = {
    "pick_and_place": "pick_and_place",
    "pick_two_obj_and_place": "pick_and_place",
    "look_at_obj_in_light": "look_at_obj_in_light",
    "pick_heat_then_place_in_recep": "heat",
    "pick_cool_then_place_in_recep": "cool",
    "pick_clean_then_place_in_recep": "clean",
}
"""Names of the release's skills and its keys of task types, in its order (ZJU-REAL/SDAR at 8b85c23, skills/alfworld).

The texts are not the release's. $SDAR_RELEASE_SKILLS may name a folder that has them.
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    if "SDAR_RELEASE_SKILLS" in os.environ:
        return Path(os.environ["SDAR_RELEASE_SKILLS"])
    mapping = {"skill_files": {name: f"{name}.md" for name in FILES}, "task_to_skill": KEYS}
    (tmp_path / "skill_mapping.json").write_text(json.dumps(mapping))
    for name in FILES:
        (tmp_path / f"{name}.md").write_text(f"\n# Skill: {name}\n\n1. Look for the {name}.\n\n")
    return tmp_path


def as_the_release(folder: Path, game_file: str) -> str:
    """Its SkillProvider.get_privileged_info: the first key that is part of the game's path."""
    mapping = json.loads((folder / "skill_mapping.json").read_text())
    texts = {name: (folder / file).read_text().strip() for name, file in mapping["skill_files"].items()}
    chosen = [skill for key, skill in mapping["task_to_skill"].items() if key in game_file][:1]
    return "\n\n".join(texts[name] for name in ("general_skills", *chosen))


@pytest.mark.skipif(not GAMES.is_file(), reason="SDAR_TEST_DATA names no folder with the published games")
def test_every_published_game_has_the_text_of_the_release(folder: Path) -> None:
    part = SkillPart(SkillLibrary.load(folder), TaskTypeRetrieval())
    types: Counter[str] = Counter()
    with lzma.open(GAMES, "rt", encoding="utf-8") as lines:
        for line in lines:
            path = json.loads(line)["path"]
            task_type = path.split("/")[-3].split("-")[0]
            task = Task(path.removesuffix(f"/{GAME_FILE}"), task_type, "put some things somewhere", "train", path)
            read = "\n\n".join(item.text for item in part.arrange(part.items(task, 0)))
            assert read == as_the_release(folder, path), path
            types[task_type] += 1
    assert types.total() == 3693
    assert len(types) == 6
