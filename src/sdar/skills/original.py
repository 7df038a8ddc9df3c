"""Skill folders in the format of the paper's release: ``skill_mapping.json`` and markdown without front matter.

    {"skill_files":   {"general_skills": "general_skills.md", "heat": "heat.md", ...},
     "task_to_skill": {"pick_heat_then_place_in_recep": "heat", ...},
     "task_keywords": {"heat": ["heat"], ...}}                         # may be missing

Source: ZJU-REAL/SDAR at 8b85c23, ``verl/trainer/ppo/rlsd_utils.py: SkillProvider``. The texts are not modified. A key
of ``task_to_skill`` is for every task type whose name contains it, and the first one decides, as in the release, which
looks for the keys in the path of a game. Keywords differ: the release matches them as parts of words in the whole
prompt.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sdar.files import KB, MB, FileError, brief, read_json, read_text

MAPPING = "skill_mapping.json"
MAPPING_BYTES = 10 * MB
SKILL_BYTES = 256 * KB
"""Largest file of a skill: far more than a prompt has room for."""
GENERAL = "general_skills"
"""The release's name of the skill for every task."""

DATA_SETS = {
    "nq": "direct_retrieval",
    "triviaqa": "direct_retrieval",
    "popqa": "entity_attribute_lookup",
    "hotpotqa": "multi_hop_reasoning",
    "2wikimultihopqa": "multi_hop_reasoning",
    "musique": "multi_hop_reasoning",
    "bamboogle": "multi_hop_reasoning",
}
"""The skill for the questions of each data set, which is in the release's code, not in the folder."""

log = logging.getLogger(__name__)


class MappingError(Exception):
    """A mistake in the folder. The text is a clause."""


Found = tuple[str, bool, tuple[str, ...], tuple[str, ...], str]
"""Name of a skill, whether it is general, task types, keywords, text."""


def read_original(folder: Path) -> tuple[list[Found], tuple[tuple[str, str], ...]]:
    """Every skill, and the keys of ``task_to_skill`` with their skills, in their order.

    A task skill without task types is for the type of its own name. Data sets of questions that the folder does not
    name have the skill of ``DATA_SETS``. Keywords of a task type without a skill are ignored with a warning. Raises
    MappingError, which names the field, if the folder cannot be read.
    """
    mapping = _mapping(folder / MAPPING)
    files, types, keywords = (_field(mapping, name) for name in ("skill_files", "task_to_skill", "task_keywords"))
    for task_type, name in types.items():
        if not isinstance(name, str) or name not in files:
            raise MappingError(f"task_to_skill[{brief(task_type)}] must be a name in skill_files, got {brief(name)}")
    sets = [(data_set, name) for data_set, name in DATA_SETS.items() if name in files and data_set not in types]
    words: dict[str, list[str]] = {name: [] for name in files}
    for task_type, found in keywords.items():
        name = types.get(task_type, task_type)
        if not isinstance(found, list) or not all(isinstance(word, str) and word.strip() for word in found):
            raise MappingError(f"task_keywords[{brief(task_type)}] must be a list of strings, got {brief(found)}")
        if name in words:
            words[name] += [word for word in found if word not in words[name]]
        elif found:
            log.warning("%s: the keywords of %r belong to no skill and are ignored", folder / MAPPING, task_type)
    skills = []
    for name, file in files.items():
        general = name == GENERAL
        own = tuple(kind for kind, skill in types.items() if skill == name) or (name,)
        own += tuple(data_set for data_set, skill in sets if skill == name)
        text = _text(folder, name, file)
        skills.append((name, general, () if general else own, () if general else tuple(words[name]), text))
    return skills, tuple(types.items())


def _mapping(path: Path) -> Mapping[str, Any]:
    try:
        mapping = read_json(path, MAPPING_BYTES)
    except FileError as error:
        raise MappingError(f"it {error.reason}") from error
    if not isinstance(mapping, dict):
        raise MappingError("it must be a mapping")
    return mapping


def _field(mapping: Mapping[str, Any], name: str) -> dict[str, Any]:
    value = mapping.get(name, {} if name != "skill_files" else None)
    if not isinstance(value, dict):
        raise MappingError(f"{name} must be a mapping, got {brief(value)}")
    return value


def _text(folder: Path, name: str, file: Any) -> str:
    path = folder / str(file)
    if path.parent != folder or not isinstance(file, str):
        raise MappingError(f"skill_files[{brief(name)}] must be the name of a file in the folder, got {brief(file)}")
    try:
        text = read_text(path, SKILL_BYTES).strip()
    except FileError as error:
        raise MappingError(f"skill_files[{brief(name)}]={brief(file)} {error.reason}") from error
    if not text:
        raise MappingError(f"skill_files[{brief(name)}] must be a non-empty file, got {brief(file)}")
    return text
