"""Skills and skill libraries: folders with one markdown file per skill, whose properties are in the front matter.

    ---
    name: heat
    kind: task                  # general: for every task; task: for the tasks it matches
    task_types: [pick_heat_then_place_in_recep]
    keywords: [hot, heat]       # whole words or phrases of the task's description; empty: the library's default
    ---
    Find the object first ...

python-frontmatter separates the front matter. The YAML is plain values: no tags, and no aliases, of which a few lines
can stand for more than fits into memory.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

import frontmatter
from frontmatter.default_handlers import YAMLHandler

from sdar.errors import UserError
from sdar.files import FileError, brief, entries, expanded, parse_yaml, read_text
from sdar.skills.original import MAPPING, SKILL_BYTES, MappingError, read_original

SHIPPED = Path(__file__).parent / "libraries"
"""Folder of the shipped libraries, one subfolder each."""


class SkillKind(StrEnum):
    """Whether a skill is for all tasks or for some."""

    GENERAL = "general"
    TASK = "task"


@dataclass(frozen=True)
class Skill:
    """One piece of advice.

    ``name``        unique in its library
    ``kind``        general or task
    ``task_types``  task types of a task skill, in the environment's names; empty for a general skill
    ``keywords``    words or phrases that select a task skill; a task skill without any is the library's default
    ``text``        text for the teacher, without surrounding whitespace
    """

    name: str
    kind: SkillKind
    task_types: tuple[str, ...]
    keywords: tuple[str, ...]
    text: str

    @property
    def is_task(self) -> bool:
        """Whether it is a task skill."""
        return self.kind is SkillKind.TASK


class SkillLibrary:
    """Skills in a stable order: general ones first, then by name.

    ``type_keys``: (key, skill name), in order, of a library in the release's format: see :meth:`for_type`.
    """

    def __init__(self, skills: tuple[Skill, ...], type_keys: tuple[tuple[str, str], ...] = ()) -> None:
        """Raises UserError if two skills have the same name."""
        names = [skill.name for skill in skills]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise UserError(f"skill names must be unique in a library, got {twice[0]!r} twice")
        self.skills = tuple(sorted(skills, key=lambda skill: (skill.kind is not SkillKind.GENERAL, skill.name)))
        self.type_keys = type_keys

    @classmethod
    def load(cls, folder: str | Path) -> SkillLibrary:
        """Read every ``*.md`` file of a folder, or of a shipped library by its name (``alfworld``).

        A folder with a ``skill_mapping.json`` is read in the format of the paper's release, see
        :mod:`sdar.skills.original`.

        Raises UserError if the folder or library does not exist, has no skill, or has wrong files. The message names
        every wrong file with the field, what it must be and what it is.
        """
        path = _resolve(folder)
        try:
            files = entries(path)
        except FileError as error:
            raise UserError(f"skills={folder} {error.reason}") from error
        if path / MAPPING in files:
            return cls(*_originals(path, folder))
        skills: dict[str, tuple[Path, Skill]] = {}
        wrong: list[str] = []
        for file in files:
            if file.suffix != ".md":
                continue
            try:
                skill = _read(file)
            except _WrongFileError as error:
                wrong.append(f"{file.name}: {error}")
                continue
            first, _ = skills.setdefault(skill.name, (file, skill))
            if first != file:
                wrong.append(f"{file.name}: name must be unique, got {brief(skill.name)} as in {first.name}")
        if wrong:
            raise UserError(f"skills={folder} has wrong files: {'; '.join(wrong)}")
        if not skills:
            raise UserError(f"skills={folder} must contain at least one *.md file, got none")
        return cls(tuple(skill for _, skill in skills.values()))

    def __iter__(self) -> Iterator[Skill]:
        """Skills in the library's order."""
        return iter(self.skills)

    def __len__(self) -> int:
        """Number of skills."""
        return len(self.skills)

    @property
    def general(self) -> list[Skill]:
        """The general skills."""
        return [skill for skill in self.skills if skill.kind is SkillKind.GENERAL]

    @property
    def task(self) -> list[Skill]:
        """The task skills."""
        return [skill for skill in self.skills if skill.kind is SkillKind.TASK]

    def for_type(self, task_type: str) -> list[Skill]:
        """The task skills for a type of task: those that list it.

        In the release's format the first key that is part of the type's name decides, as ``pick_and_place`` is of
        ``pick_and_place_simple``; the release looks for its keys in the path of a game.
        """
        named = next((name for key, name in self.type_keys if key in task_type), None)
        if named is not None:
            return [skill for skill in self.task if skill.name == named]
        return [skill for skill in self.task if task_type in skill.task_types]

    @property
    def content_hash(self) -> str:
        """SHA-256 (hex) of all skills, the same for libraries with the same content."""
        content = (self.skills, self.type_keys) if self.type_keys else self.skills
        return hashlib.sha256(repr(content).encode()).hexdigest()


def skills_hash(settings: Any) -> str | None:
    """SHA-256 (hex) of the libraries that a run with these settings reads; None if it reads none.

    Settings name only the folder; the content of its files may change between two runs.

    Raises:
        UserError: a library cannot be read.
    """
    folders = sorted(set(_folders(settings)))
    if not folders:
        return None
    contents = "".join(SkillLibrary.load(folder).content_hash for folder in folders)
    return hashlib.sha256(contents.encode()).hexdigest()


def _folders(settings: Any) -> Iterator[str]:
    """Folders of all libraries in the settings."""
    if isinstance(settings, Mapping):
        if settings.get("_target_") == f"{SkillLibrary.__module__}.SkillLibrary.load":
            yield str(settings["folder"])
        for value in settings.values():
            yield from _folders(value)


class _WrongFileError(Exception):
    """A mistake in one file. The text is a clause without its name."""


class _FrontMatter(YAMLHandler):
    """Front matter in plain YAML."""

    def load(self, fm: str, **kwargs: object) -> Any:  # noqa: ARG002 - frontmatter names it
        return parse_yaml(fm)


_FIELDS = ("name", "kind", "task_types", "keywords")


def _resolve(folder: str | Path) -> Path:
    shipped = sorted(path.name for path in SHIPPED.glob("*") if path.is_dir() and not path.name.startswith("_"))
    if isinstance(folder, str) and folder in shipped:
        return SHIPPED / folder
    path = expanded(folder)
    if not os.path.isdir(path):  # noqa: PTH112 - a path that cannot be asked for is none either
        names = ", ".join(shipped) or "none"
        raise UserError(f"skills must be a directory or a shipped library ({names}), got {folder}")
    return path


def _originals(path: Path, folder: str | Path) -> tuple[tuple[Skill, ...], tuple[tuple[str, str], ...]]:
    """The skills of a folder in the release's format, and its keys of task types."""
    try:
        found, type_keys = read_original(path)
    except MappingError as error:
        raise UserError(f"skills={folder} has a wrong file: {MAPPING}: {error}") from error
    skills = tuple(
        Skill(name, SkillKind.GENERAL if general else SkillKind.TASK, task_types, keywords, text)
        for name, general, task_types, keywords, text in found
    )
    return skills, type_keys


def _read(file: Path) -> Skill:
    """One skill from one file. Raises _WrongFileError with the mistake."""
    try:
        metadata, text = frontmatter.parse(read_text(file, SKILL_BYTES), handler=_FrontMatter())
    except FileError as error:
        raise _WrongFileError(f"it {error.reason}") from error
    except ValueError as error:
        raise _WrongFileError(f"its front matter is not plain YAML ({error})") from error
    if not metadata:
        raise _WrongFileError(f"it has no front matter; it must begin with {', '.join(_FIELDS)} between --- lines")
    unknown = sorted(str(key) for key in metadata if key not in _FIELDS)
    if unknown:
        raise _WrongFileError(f"the fields must be among {', '.join(_FIELDS)}, got {brief(unknown[0])}")
    name = metadata.get("name")
    if not isinstance(name, str) or not name.strip():
        raise _WrongFileError(f"name must be a non-empty string, got {brief(name)}")
    kinds = [kind.value for kind in SkillKind]
    if metadata.get("kind") not in kinds:
        raise _WrongFileError(f"kind must be {' or '.join(kinds)}, got {brief(metadata.get('kind'))}")
    kind = SkillKind(str(metadata["kind"]))
    task_types, keywords = _texts(metadata, "task_types"), _texts(metadata, "keywords")
    if kind is SkillKind.GENERAL and (task_types or keywords):
        raise _WrongFileError("a general skill must have neither task_types nor keywords")
    if kind is SkillKind.TASK and not task_types:
        raise _WrongFileError("a task skill must have at least one of task_types")
    if not text:
        raise _WrongFileError("it has no text after its front matter")
    return Skill(name.strip(), kind, task_types, keywords, text)


def _texts(metadata: Mapping[str, Any], field: str) -> tuple[str, ...]:
    """A list of strings. Values that YAML converts (unquoted yes, no, on, off, numbers) are refused."""
    value = metadata.get(field)
    if value is None:
        return ()
    if not isinstance(value, list):
        raise _WrongFileError(f"{field} must be a list of strings, got {brief(value)}")
    for item in value:
        if not isinstance(item, str) or not item.strip():
            raise _WrongFileError(
                f"{field} must contain only non-empty strings, got {brief(item)} (quote it if YAML converts it)"
            )
    return tuple(item.strip() for item in value)
