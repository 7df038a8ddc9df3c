"""Search-QA: questions that are answered with a search engine, in a generated closed world or on your own data."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import ClassVar

from sdar.config.fields import AtLeastOne, Positive, TaskCount, checked
from sdar.environments.base import Environment, EnvironmentPool, PastTurn, Projection, PromptStyle
from sdar.environments.search_qa import protocol, scoring
from sdar.environments.search_qa.closed_world import ClosedWorld
from sdar.environments.search_qa.protocol import Answer, Search
from sdar.environments.search_qa.questions import Question, QuestionFiles
from sdar.environments.search_qa.retriever import RetrievalFailure, Retriever
from sdar.environments.search_qa.world import WorldSettings
from sdar.environments.slots import SlotPool, failed
from sdar.episode import EndReason, Observation, StepOutcome, Task
from sdar.errors import UserError

INSTRUCTIONS = (
    "Answer the question. In every turn, think first, between <think> and </think>. Then either look something up in "
    "the search engine: give a query between <search> and </search>, and what it finds comes back between "
    "<information> and </information>. Or, when you know enough, give the answer, as short as possible, between "
    "<answer> and </answer>. Do only one of the two in a turn.\n\n"
)
"""First part of a prompt in the full style."""


class SearchQAEnvironment(Environment):
    """Questions, a retriever, and their prompts.

    Args:
        search_engine: answers ``<search>``; None: BM25 over the pages of the closed world. Required with ``data_dir``.
        data_dir: folder of questions, ``<split>.jsonl`` or ``<split>.parquet`` (Search-R1's layout); None: the closed
            world's.
        max_turns: turn limit of an episode (4 in the paper).
        top_k: passages per search (3 in the paper).
        success_reward: reward of an answer that matches exactly; everything else gives 0. The paper's code gives 1 and
            subtracts 0.01 for an invalid turn. 10 and 0.1, as in the other environments, differ from it in scale only.
        prompt_style: ``full`` explains the protocol to a pretrained model; ``terse`` is for a model that was
            warm-started on it.
        list_actions: no effect; model files set it for every environment.
        num_tasks: questions of the closed world per split, in the order train, valid.
        world: how the closed world is generated; ignored with ``data_dir``.
    """

    name: ClassVar[str] = "search_qa"

    @checked
    def __init__(
        self,
        *,
        search_engine: Retriever | None = None,
        data_dir: str | Path | None = None,
        max_turns: AtLeastOne = 4,
        top_k: AtLeastOne = 3,
        success_reward: Positive = 10.0,
        prompt_style: PromptStyle = "terse",
        list_actions: bool = False,
        num_tasks: Sequence[TaskCount] = (960, 240),
        world: WorldSettings | None = None,
    ) -> None:
        self.max_turns = max_turns
        self._top_k = top_k
        self._reward = self.solved_return = success_reward
        self._full = prompt_style == "full"
        self._search_engine = search_engine
        self._source: ClosedWorld | QuestionFiles
        if data_dir is None:
            self._source = ClosedWorld(world or WorldSettings(), num_tasks)
        elif search_engine is None:
            raise UserError(
                f"environment.data_dir={data_dir} needs a search engine over a corpus; set search_engine=bm25 and "
                "environment.search_engine.corpus=PATH, or search_engine=http or dense"
            )
        else:
            self._source = QuestionFiles(data_dir)
        self._tasks: dict[str, list[Task]] = {}

    @cached_property
    def retriever(self) -> Retriever:
        """The retriever of all searches. That of the closed world is built on first use."""
        if self._search_engine is not None:
            return self._search_engine
        assert isinstance(self._source, ClosedWorld)
        return self._source.retriever

    def splits(self) -> tuple[str, ...]:
        """The splits that have questions."""
        return self._source.splits

    def training_split(self) -> str:
        """``train``. UserError for a folder of questions without it."""
        return self._source.training_split() if isinstance(self._source, QuestionFiles) else self.splits()[0]

    def tasks(self, split: str) -> Sequence[Task]:
        """All questions of a split. They are generated or read on first use."""
        if split not in self.splits():
            raise UserError(f"split must be one of {', '.join(self.splits())}, got {split!r}")
        if split not in self._tasks:
            self._tasks[split] = [question.task(split) for question in self._source.questions(split)]
        return self._tasks[split]

    def check_ready(self) -> None:
        """Ask the search engine once."""
        if self._search_engine is not None:
            self._search_engine.check_ready()

    def open_pool(self) -> EnvironmentPool:
        """A pool on this environment's retriever."""
        return SearchPool(self.retriever, self._top_k, self._reward)

    def self_contained(self) -> bool:
        """Whether it is the closed world with its own search engine: no task covers a corpus or a server."""
        return self._search_engine is None

    def opening(self, task: Task, observation: Observation) -> str:
        """The question, after the instructions in the full style."""
        return (f"{INSTRUCTIONS}Question: " if self._full else "") + observation.text

    def reply(self, observation: Observation) -> str:
        """The result of the search."""
        return observation.text

    def window_prompt(self, task: Task, past: Sequence[PastTurn], observation: Observation, step: int) -> str:
        """The question, the past steps as "Step i: search information", and the request for an action (full style).

        The information of a step is the observation after it. A prompt without history shows only the last one.
        """
        parts = [self.opening(task, Observation(task.description, None, ""))]
        if past:
            seen = [*(turn.observation for turn in past[1:]), observation.text]
            first = step - len(past) + 1
            steps = [f"Step {first + i}: {turn.action} {seen[i]}" for i, turn in enumerate(past)]
            parts += [f"Steps taken so far: {step}.", *steps] if self._full else steps
        elif step > 0:
            parts.append(observation.text)
        if self._full and step > 0:
            parts.append("Now think, then search again or answer.")
        return "\n\n".join(parts) if self._full else "\n".join(parts)

    def project(self, response: str) -> Projection:
        """See :func:`sdar.environments.search_qa.protocol.project`."""
        return protocol.project(response)

    def expert(self, task: Task) -> list[str] | None:
        """In the closed world, the searches that are needed and the answer; None for other questions."""
        question: Question = task.payload
        plan = list(question.solution)
        return plan if 0 < len(plan) <= self.max_turns else None

    def baselines(self) -> Mapping[str, Callable[[Task], list[str]]]:
        """No search: the most frequent training answer for each kind of closed-world question."""
        if not isinstance(self._source, ClosedWorld):
            return {}
        frequent = self._source.frequent_answer
        return {"closed book (no search)": lambda task: [f"<answer>{frequent(task.payload.kind)}</answer>"]}


class SearchPool(SlotPool[Question]):
    """Episodes with batched search: one call of the retriever per step, without duplicate queries.

    Closing the pool leaves the retriever open, since other pools share it.
    """

    batched: ClassVar[bool] = True

    def __init__(self, retriever: Retriever, top_k: int, success_reward: float) -> None:
        super().__init__()
        self._retriever = retriever
        self._top_k = top_k
        self._reward = success_reward

    def start(self, task: Task) -> tuple[Question, Observation] | StepOutcome:
        """The question of the task; an error if it has none."""
        if not isinstance(task.payload, Question):
            return failed(f"task {task.task_id} has no question")
        return task.payload, _seen(task.payload.text)

    def act(self, actions: Mapping[int, str]) -> dict[int, StepOutcome]:
        """Apply one search or answer in each given slot."""
        asked = {slot: protocol.parse(action) for slot, action in actions.items()}
        found = self._search({slot: what.query for slot, what in asked.items() if isinstance(what, Search)})
        outcomes: dict[int, StepOutcome] = {}
        for slot, what in asked.items():
            if isinstance(what, Answer):
                outcomes[slot] = self._judge(self.states[slot], what.text)
            elif slot in found:
                outcomes[slot] = found[slot]
            else:
                outcomes[slot] = _running(protocol.tagged(protocol.NOTHING_DONE))
        return outcomes

    def _search(self, queries: Mapping[int, str]) -> dict[int, StepOutcome]:
        """Outcomes of queries, by slot."""
        different = sorted({query for query in queries.values() if query})
        answers = dict(zip(different, self._retriever.search(different, self._top_k), strict=True)) if different else {}
        outcomes: dict[int, StepOutcome] = {}
        for slot, query in queries.items():
            answer = answers.get(query)
            if answer is None:
                outcomes[slot] = _running(protocol.tagged(protocol.EMPTY_QUERY))
            elif isinstance(answer, RetrievalFailure):
                outcomes[slot] = failed(f"the retriever failed: {answer.reason}", EndReason.ERROR_TOOL)
            else:
                outcomes[slot] = _running(protocol.information(answer))
        return outcomes

    def _judge(self, question: Question, answer: str) -> StepOutcome:
        judged = scoring.scores(answer, question.golden_answers)
        right = judged["exact_match"] == 1.0
        end = EndReason.SUCCESS if right else EndReason.FAILURE
        return StepOutcome(_seen(""), self._reward if right else 0.0, True, right, judged, end)


def _seen(text: str) -> Observation:
    return Observation(text=text, actions=None, anchor=text)


def _running(text: str) -> StepOutcome:
    return StepOutcome(_seen(text), 0.0, False, False, scoring.NO_ANSWER)
