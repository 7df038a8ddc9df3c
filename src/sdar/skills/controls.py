"""Control strategies that retrieve a random skill or a wrong one, to measure how robust a method is to its skills."""

from __future__ import annotations

from sdar.config.fields import Fraction, checked
from sdar.episode import Task
from sdar.randomness import keyed_generator
from sdar.skills.library import Skill, SkillLibrary
from sdar.skills.retrieval import Choice, Draw, KeywordRetrieval, Retrieval, reading_order


class RandomRetrieval(Retrieval):
    """One task skill, drawn uniformly for every episode by (seed, iteration, task, member).

    The paper does not specify how it draws (section 2.1, "Random").
    """

    def choose(self, library: SkillLibrary, task: Task, draw: Draw) -> list[Choice]:
        """See the class."""
        if not library.task:
            return []
        generator = keyed_generator(draw.seed, "random skill", draw.iteration, task.task_id, draw.member)
        return [Choice(library.task[int(generator.integers(len(library.task)))], "drawn at random")]

    def possible(self, library: SkillLibrary, task: Task) -> list[list[Skill]]:  # noqa: ARG002
        """Any one task skill."""
        return one_of(library, library.task, self.general)


class AdversarialRetrieval(Retrieval):
    """One task skill that is wrong for the task, drawn by (seed, task), so that a task keeps it for the whole run.

    A skill is wrong if it is neither for the task's type nor has a matching keyword. If there is none, none is chosen.
    """

    @checked
    def __init__(self, general: bool = True, probability: Fraction = 1.0) -> None:
        """``probability``: of a wrong skill, in [0, 1]; the other tasks get those of :class:`KeywordRetrieval`."""
        super().__init__(general)
        self.probability = probability

    def choose(self, library: SkillLibrary, task: Task, draw: Draw) -> list[Choice]:
        """See the class."""
        if keyed_generator(draw.seed, "wrong or right", task.task_id).random() >= self.probability:
            return KeywordRetrieval().choose(library, task, draw)
        wrong = self._wrong(library, task)
        if not wrong:
            return []
        index = int(keyed_generator(draw.seed, "wrong skill", task.task_id).integers(len(wrong)))
        return [Choice(wrong[index], f"wrong on purpose: for {', '.join(wrong[index].task_types)}")]

    def possible(self, library: SkillLibrary, task: Task) -> list[list[Skill]]:
        """Any one wrong skill, and the right ones unless all are wrong."""
        wrong = one_of(library, self._wrong(library, task), self.general)
        if self.probability == 1:
            return wrong
        return [*wrong, KeywordRetrieval(self.general).select(library, task)]

    def _wrong(self, library: SkillLibrary, task: Task) -> list[Skill]:
        right = [choice.skill for choice in KeywordRetrieval().choose(library, task, Draw())]
        right += library.for_type(task.task_type)
        return [skill for skill in library.task if skill not in right]


def one_of(library: SkillLibrary, skills: list[Skill], general: bool) -> list[list[Skill]]:
    """All selections of one of the skills, each with the general skills if ``general``."""
    others = library.general if general else []
    return [reading_order([skill, *others]) for skill in skills] or [others]
