"""The privileged context: what the teacher reads and the student does not."""

from __future__ import annotations

from enum import StrEnum

from sdar.episode import Task
from sdar.errors import UserError
from sdar.skills.library import SkillLibrary
from sdar.skills.retrieval import Retrieval


class TeacherSource(StrEnum):
    """Whose weights the teacher has."""

    OLD = "old"
    """The student's own weights before the iteration's first update, without gradient."""


class SkillTeacher:
    """A teacher that reads skills.

    The text depends on the task alone, so that it is the same for all members of a group and in every turn. It is
    tokenised alone and spliced into the student's ids; the blank line at its end keeps it apart from what follows.
    """

    def __init__(
        self,
        library: SkillLibrary,
        retrieval: Retrieval,
        source: str = TeacherSource.OLD,
        header: str = "[Privileged Skill Information]",
    ) -> None:
        """``header``: first line of the text. UserError when ``source`` is none of :class:`TeacherSource`."""
        allowed = [name.value for name in TeacherSource]
        if source not in allowed:
            raise UserError(f"teacher.source is {source!r}, allowed is {' or '.join(allowed)}.")
        self.library = library
        self.retrieval = retrieval
        self.source = TeacherSource(source)
        self.header = header

    def privileged_text(self, task: Task) -> str:
        """Header line, then the texts of the retrieved skills, a blank line after each; "" where none is retrieved.

        Source of the form: arXiv 2605.15155 and its released code (header, skills, blank line, prompt).
        """
        texts = [skill.text for skill in self.retrieval.select(self.library, task)]
        return f"{self.header}\n" + "\n\n".join(texts) + "\n\n" if texts else ""
