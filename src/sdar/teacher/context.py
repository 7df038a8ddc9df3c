"""The privileged context: what the teacher reads and the student does not."""

from __future__ import annotations

from sdar.episode import Task
from sdar.policy.language_model import LanguageModel
from sdar.skills.library import SkillLibrary
from sdar.skills.retrieval import Retrieval
from sdar.teacher.base import Teacher
from sdar.teacher.weights import TeacherSource, TeacherWeights, check_source


class SkillTeacher(Teacher):
    """A teacher that reads skills.

    The text depends on the task alone, so that it is the same for all members of a group and in every turn. It is
    tokenised alone and spliced into the student's ids; the blank line at its end keeps it apart from what follows.
    """

    def __init__(
        self,
        library: SkillLibrary,
        retrieval: Retrieval,
        source: str = TeacherSource.OLD,
        ema_decay: float = 0.99,
        other: LanguageModel | None = None,
        keep_hidden: bool = False,
        header: str = "[Privileged Skill Information]",
    ) -> None:
        """``header``: first line of the text; the rest: see :class:`sdar.teacher.weights.TeacherWeights`.

        UserError for settings of the weights that do not go together.
        """
        check_source(source, has_other=other is not None, keep_hidden=keep_hidden)
        self.library = library
        self.retrieval = retrieval
        self.header = header
        self.weights = TeacherWeights(TeacherSource(source), ema_decay, other, keep_hidden)

    def privileged_text(self, task: Task, member: int = 0) -> str:  # noqa: ARG002 - all members read the same
        """Header line, then the texts of the retrieved skills, a blank line after each; "" where none is retrieved.

        Source of the form: arXiv 2605.15155 and its released code (header, skills, blank line, prompt).
        """
        texts = [skill.text for skill in self.retrieval.select(self.library, task)]
        return f"{self.header}\n" + "\n\n".join(texts) + "\n\n" if texts else ""
