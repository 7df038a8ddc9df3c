"""An episode that is being played, by a policy or by an agent without a model."""

from __future__ import annotations

from sdar.episode import EndReason, Episode, Observation, StepOutcome, Task


class LiveEpisode:
    """An episode, what its agent sees, and whether it goes on. An episode that cannot start has already ended."""

    def __init__(self, task: Task, member: int, start: Observation | StepOutcome) -> None:
        self.episode = Episode(task, member, turns=[], end=EndReason.FAILURE, success=False)
        self.live = True
        self.observation = start.observation if isinstance(start, StepOutcome) else start
        if isinstance(start, StepOutcome):
            self.finish(start.end or EndReason.ERROR_ENVIRONMENT, start)

    def take(self, outcome: StepOutcome, max_turns: int) -> None:
        """Apply the environment's outcome of the last turn."""
        self.episode.turns[-1].reward = outcome.reward
        self.observation = self.episode.last_observation = outcome.observation
        if outcome.done:
            self.finish(outcome.end or EndReason.FAILURE, outcome)
        elif len(self.episode.turns) >= max_turns:
            self.finish(EndReason.TURN_LIMIT, outcome)

    def finish(self, end: EndReason, outcome: StepOutcome | None = None) -> None:
        """End the episode; an outcome sets success, scores and error."""
        self.live = False
        self.episode.end = end
        if outcome is not None:
            self.episode.success = outcome.success and not end.is_error
            self.episode.scores = dict(outcome.scores)
            self.episode.error = outcome.error
