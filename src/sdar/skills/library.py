"""Skills and the folders they are kept in: one markdown file per skill, its facts in the front matter.

    ---
    name: heat
    kind: task                  # general: for every task; task: for the tasks it matches
    task_types: [pick_heat_then_place_in_recep]
    keywords: [hot, heat]       # whole words or phrases of the task's description; none: the default of the library
    ---
    Find the object first ...

The front matter is read by python-frontmatter: it is maintained, typed, needs nothing but PyYAML (which is here
already), loads YAML safely, and knows the corners that ten lines of splitting get wrong (byte order marks, rulers
inside the text, line ends).
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

import frontmatter
import yaml
from frontmatter.default_handlers import YAMLHandler

from sdar.errors import UserError
from sdar.skills.original import MAPPING, MappingError, read_original

SHIPPED = Path(__file__).parent / "libraries"
"""Folder of the libraries that come with the package, one folder each."""


class SkillKind(StrEnum):
    """Whether a skill is for every task or for some."""

    GENERAL = "general"
    TASK = "task"


@dataclass(frozen=True)
class Skill:
    """One piece of advice.

    ``name``        unique in its library
    ``kind``        general or task
    ``task_types``  the types a task skill is meant for, in the environment's names; empty for a general skill
    ``keywords``    words or phrases that select a task skill; a task skill without any is its library's default
    ``text``        what the teacher reads, without surrounding white space
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
    """Skills in a stable order: general ones first, then by name."""

    def __init__(self, skills: tuple[Skill, ...]) -> None:
        """UserError when two skills share a name."""
        names = [skill.name for skill in skills]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise UserError(f"The skill name {twice[0]!r} is used twice in a library, allowed is once.")
        self.skills = tuple(sorted(skills, key=lambda skill: (skill.kind is not SkillKind.GENERAL, skill.name)))

    @classmethod
    def load(cls, folder: str | Path) -> SkillLibrary:
        """Read every ``*.md`` file of a folder, or of a shipped library named by one word (``alfworld``).

        A folder with a ``skill_mapping.json`` is read as the paper's release does: see :mod:`sdar.skills.original`.

        UserError when there is no such folder or library, when it holds no skill, and when files are wrong: one
        clause per wrong file, naming the file, the field, its value and what is allowed.
        """
        path = _resolve(folder)
        if (path / MAPPING).exists():
            return cls(_originals(path, folder))
        skills: dict[str, tuple[Path, Skill]] = {}
        wrong: list[str] = []
        for file in sorted(path.glob("*.md")):
            try:
                skill = _read(file)
            except _WrongFileError as error:
                wrong.append(f"{file.name}: {error}")
                continue
            first, _ = skills.setdefault(skill.name, (file, skill))
            if first != file:
                wrong.append(f"{file.name}: name is {skill.name!r}, as in {first.name}, allowed is one of its own")
        if wrong:
            raise UserError(f"The skill library {str(folder)!r} cannot be used: " + "; ".join(wrong) + ".")
        if not skills:
            raise UserError(f"The skill library {str(folder)!r} holds no *.md file, at least one is needed.")
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

    @property
    def content_hash(self) -> str:
        """SHA-256 (hex) of all skills: equal for libraries that teach the same."""
        return hashlib.sha256(repr(self.skills).encode()).hexdigest()


def skills_hash(settings: Any) -> str | None:
    """SHA-256 (hex) of the libraries that a run of these settings reads now; None where it reads none.

    Settings name a folder; what its files say is no setting, and may change between two runs.

    Raises:
        UserError: a library cannot be read.
    """
    folders = sorted(set(_folders(settings)))
    if not folders:
        return None
    contents = "".join(SkillLibrary.load(folder).content_hash for folder in folders)
    return hashlib.sha256(contents.encode()).hexdigest()


def _folders(settings: Any) -> Iterator[str]:
    """What the settings of teachers load, wherever it stands in them."""
    if isinstance(settings, Mapping):
        if settings.get("_target_") == f"{SkillLibrary.__module__}.SkillLibrary.load":
            yield str(settings["folder"])
        for value in settings.values():
            yield from _folders(value)


class _WrongFileError(Exception):
    """What is wrong with one file, as a clause without its name."""


_FIELDS = ("name", "kind", "task_types", "keywords")


def _resolve(folder: str | Path) -> Path:
    shipped = sorted(path.name for path in SHIPPED.glob("*") if path.is_dir() and not path.name.startswith("_"))
    if isinstance(folder, str) and folder in shipped:
        return SHIPPED / folder
    path = Path(folder).expanduser()
    if not path.is_dir():
        names = ", ".join(shipped) or "none"
        raise UserError(
            f"skills={folder}: there is no such library, allowed are a folder or a shipped library ({names})"
        )
    return path


def _originals(path: Path, folder: str | Path) -> tuple[Skill, ...]:
    """The skills of a folder in the release's format."""
    try:
        found = read_original(path)
    except MappingError as error:
        raise UserError(f"The skill library {str(folder)!r} cannot be used: {MAPPING}: {error}.") from error
    return tuple(
        Skill(name, SkillKind.GENERAL if general else SkillKind.TASK, task_types, keywords, text)
        for name, general, task_types, keywords, text in found
    )


def _read(file: Path) -> Skill:
    """One skill from one file; _WrongFileError says what is wrong with it."""
    try:
        metadata, text = frontmatter.parse(file.read_text(encoding="utf-8-sig"), handler=YAMLHandler())
    except UnicodeDecodeError as error:
        raise _WrongFileError("it is not UTF-8 text") from error
    except OSError as error:
        raise _WrongFileError(f"it cannot be read ({error.strerror})") from error
    except (yaml.YAMLError, ValueError) as error:  # ValueError: what looks like a date and is none
        where = re.sub(r"\s+", " ", str(error))
        raise _WrongFileError(f"its front matter is not YAML ({where})") from error
    if not metadata:
        raise _WrongFileError(f"it has no front matter, allowed are the fields {', '.join(_FIELDS)} between --- lines")
    unknown = sorted(str(key) for key in metadata if key not in _FIELDS)
    if unknown:
        raise _WrongFileError(f"it has the field {unknown[0]!r}, allowed are {', '.join(_FIELDS)}")
    name = metadata.get("name")
    if not isinstance(name, str) or not name.strip():
        raise _WrongFileError(f"name is {name!r}, allowed is a text that is not empty")
    kinds = [kind.value for kind in SkillKind]
    if metadata.get("kind") not in kinds:
        raise _WrongFileError(f"kind is {metadata.get('kind')!r}, allowed are {' and '.join(kinds)}")
    kind = SkillKind(str(metadata["kind"]))
    task_types, keywords = _texts(metadata, "task_types"), _texts(metadata, "keywords")
    if kind is SkillKind.GENERAL and (task_types or keywords):
        raise _WrongFileError("kind is general, which allows neither task_types nor keywords")
    if kind is SkillKind.TASK and not task_types:
        raise _WrongFileError("kind is task, which needs at least one of task_types")
    if not text:
        raise _WrongFileError("it has no text after its front matter")
    return Skill(name.strip(), kind, task_types, keywords, text)


def _texts(metadata: Mapping[str, Any], field: str) -> tuple[str, ...]:
    """Read a list of texts; YAML takes an unquoted yes, no, on, off or number for something else, which is refused."""
    value = metadata.get(field)
    if value is None:
        return ()
    if not isinstance(value, list):
        raise _WrongFileError(f"{field} is {value!r}, allowed is a list of texts")
    for item in value:
        if not isinstance(item, str) or not item.strip():
            raise _WrongFileError(f"{field} holds {item!r}, allowed are texts (quoted where YAML sees none)")
    return tuple(item.strip() for item in value)
