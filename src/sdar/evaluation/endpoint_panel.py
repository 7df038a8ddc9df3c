"""Plays tasks with a chat endpoint as the policy: the environment's own texts, rules and projection.

Episodes advance turn by turn, as rollouts do: all live ones are asked at once, a bounded number at a time, and the
environment takes their actions together. An episode whose request is not answered ends by an error, which is no
failure of the agent.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

from sdar.environments.base import Environment, Projection
from sdar.episode import EndReason, Episode, Observation, Preface, StepOutcome, Task, Tool, Turn
from sdar.evaluation.chat_messages import Message, Told, messages_of
from sdar.evaluation.chat_wire import ConversationTooLongError, EndpointError, Reply
from sdar.evaluation.endpoint import Endpoint
from sdar.randomness import keyed_generator
from sdar.rollout.answers import checked_preface, checked_projection, checked_prompt
from sdar.rollout.guard import GuardedPool, error_outcome
from sdar.rollout.live import LiveEpisode
from sdar.rollout.prompting import last_turns
from sdar.rollout.settings import RolloutSettings
from sdar.rollout.waves import waves

_MOST_SEED = 1 << 31


@dataclass(frozen=True)
class ChatPlayer:
    """A model behind an endpoint, and how it plays.

    ``rollout``     context, history, sampling, episodes at a time, the environment's deadline
    ``seed``, ``name``  of the evaluation; with task and turn they decide the ``seed`` of a request
    ``privileged``  a text that the model reads besides the task's, such as its skills; None: none
    ``system``      whether that text is a system message, instead of the beginning of the user's
    """

    endpoint: Endpoint
    model: str
    rollout: RolloutSettings
    seed: int = 0
    name: str = "val"
    privileged: Callable[[Task], str] | None = None
    system: bool = False

    def play(
        self,
        environment: Environment,
        tasks: Sequence[Task],
        played: Callable[[Sequence[Episode]], None] = lambda _: None,
    ) -> list[Episode]:
        """Play every task once; ``played`` is called with the episodes of each wave."""
        episodes: list[Episode] = []
        workers = ThreadPoolExecutor(self.endpoint.settings.concurrency, thread_name_prefix="ask")
        try:
            with GuardedPool(environment, self.rollout.environment_timeout_s) as pool:
                for wave in waves(len(tasks), self.rollout.max_concurrent_episodes):
                    found = _Wave(self, environment, pool, workers).play([tasks[index] for index in wave])
                    played(found)
                    episodes += found
        finally:
            workers.shutdown(wait=False, cancel_futures=True)
        return episodes

    def messages(self, task: Task, preface: Preface, said: Sequence[tuple[Told, str]], told: Told) -> list[Message]:
        """The conversation that goes on with ``told``, after what was told and the responses to it."""
        block = self.privileged(task) if self.privileged is not None else ""
        everything = [*(before for before, _ in said), told]
        system = preface.system or ""
        if self.system:
            system = f"{system}\n\n{block}" if system and block else system or block
        else:
            everything[0] = Told(block + everything[0].text, everything[0].results)
        return messages_of(system, everything, [response for _, response in said], tools=bool(preface.tools))

    def ask(
        self, task: Task, messages: Sequence[Message], turn: int, tools: Sequence[Tool] = ()
    ) -> Reply | EndpointError | None:
        """The response; None: the conversation is too long."""
        key = (self.name, task.task_id, turn)
        seed = int(keyed_generator(self.seed, "val", *key, "endpoint").integers(_MOST_SEED))
        try:
            return self.endpoint.ask(self.model, messages, self.rollout.sampling, seed, tools)
        except EndpointError as error:
            return error
        except ConversationTooLongError:
            return None


class _Game(LiveEpisode):
    """A live episode, and what was told and said in it."""

    def __init__(self, task: Task, start: Observation | StepOutcome) -> None:
        super().__init__(task, 0, start)
        self.said: list[tuple[Told, str]] = []


class _Wave:
    """Episodes that are played together; slots are positions of their tasks."""

    def __init__(
        self, player: ChatPlayer, environment: Environment, pool: GuardedPool, workers: ThreadPoolExecutor
    ) -> None:
        self.player, self.environment, self.pool, self.workers = player, environment, pool, workers
        self.window = player.rollout.context == "window"

    def play(self, tasks: Sequence[Task]) -> list[Episode]:
        games = [_Game(task, start) for task, start in zip(tasks, self.pool.reset(tasks), strict=True)]
        self._ask_prefaces({slot: game for slot, game in enumerate(games) if game.live})
        while live := {slot: game for slot, game in enumerate(games) if game.live}:
            self._respond(live)
            self._act({slot: game for slot, game in live.items() if game.live})
        return [game.episode for game in games]

    def _ask_prefaces(self, live: Mapping[int, _Game]) -> None:
        asked = {slot: partial(checked_preface, self.environment.preface, live[slot].episode.task) for slot in live}
        for slot, preface in self.pool.ask("preface", asked).items():
            if isinstance(preface, StepOutcome):
                live[slot].finish(EndReason.ERROR_ENVIRONMENT, preface)
            else:
                live[slot].episode.preface = preface

    def _respond(self, live: Mapping[int, _Game]) -> None:
        """A new turn, without its action yet, in every game that goes on.

        In window mode a prompt that is too long is written again with one past turn less.
        """
        begun = any(game.episode.turns for game in live.values())
        method = "window_prompt" if self.window else "reply" if begun else "opening"
        waiting = {slot: self._texts(game) for slot, game in live.items()}
        dropped = 0
        while waiting:
            for slot in [slot for slot, texts in waiting.items() if dropped >= len(texts)]:
                live[slot].finish(EndReason.CONTEXT_FULL)
                del waiting[slot]
            asked = {slot: partial(checked_prompt, texts[dropped]) for slot, texts in waiting.items()}
            written: dict[int, str] = {}
            for slot, text in self.pool.ask(method, asked).items():
                if isinstance(text, StepOutcome):
                    live[slot].finish(EndReason.ERROR_ENVIRONMENT, text)
                    del waiting[slot]
                else:
                    written[slot] = text
            for slot, reply in self._asked(live, written).items():
                if reply is not None:
                    self._take(live[slot], written[slot], reply, dropped)
                    del waiting[slot]
            dropped += 1

    def _texts(self, game: _Game) -> list[Callable[[], str]]:
        """Ways to write the next user message, as in :mod:`sdar.rollout.collector`: the preferred one first."""
        task, seen, turns = game.episode.task, game.observation, game.episode.turns
        if not self.window:
            ways = partial(self.environment.reply, seen) if turns else partial(self.environment.opening, task, seen)
            return [ways]
        past = last_turns(turns, self.player.rollout.history_turns)
        write = self.environment.window_prompt
        return [partial(write, task, past[number:], seen, len(turns)) for number in range(len(past) + 1)]

    def _asked(self, live: Mapping[int, _Game], written: Mapping[int, str]) -> dict[int, Reply | EndpointError | None]:
        """What the endpoint says to each; all are asked before one is waited for."""
        futures = {}
        for slot, text in written.items():
            game = live[slot]
            if not game.episode.turns:
                game.episode.opening = text
            episode, told = game.episode, Told(text, game.observation.results)
            said = [] if self.window else game.said
            messages = self.player.messages(episode.task, episode.preface, said, told)
            ask = partial(self.player.ask, episode.task, messages, len(episode.turns), episode.preface.tools)
            futures[slot] = self.workers.submit(ask)
        return {slot: future.result() for slot, future in futures.items()}

    def _take(self, game: _Game, text: str, reply: Reply | EndpointError, dropped: int) -> None:
        if isinstance(reply, EndpointError):
            game.finish(EndReason.ERROR_TOOL, error_outcome(f"endpoint: {reply}", EndReason.ERROR_TOOL))
            return
        game.said.append((Told(text, game.observation.results), reply.text))
        game.episode.turns.append(
            Turn([], [], reply.text, "", False, game.observation, truncated=reply.truncated, dropped_turns=dropped)
        )

    def _act(self, live: Mapping[int, _Game]) -> None:
        """Project the responses, and step the environment."""
        asked = {slot: partial(self._projected, game.episode.turns[-1].response_text) for slot, game in live.items()}
        for slot, projection in self.pool.ask("project", asked).items():
            if isinstance(projection, StepOutcome):
                live[slot].finish(EndReason.ERROR_ENVIRONMENT, projection)
            else:
                turn = live[slot].episode.turns[-1]
                turn.action, turn.valid = projection.action, projection.valid
        actions = {slot: game.episode.turns[-1].action for slot, game in live.items() if game.live}
        for slot, outcome in self.pool.step(actions).items():
            game = live[slot]
            game.take(outcome, self.environment.max_turns)
            if game.live:
                game.episode.scores = dict(outcome.scores)

    def _projected(self, response: str) -> Projection:
        return checked_projection(self.environment.project(response))
