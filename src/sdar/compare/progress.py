"""Which runs of a comparison wait, run, are done or have failed, and how long it will take."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sdar.callbacks.progress import duration
from sdar.compare.job import STATE_FOLDER
from sdar.run.folder import STATE_FILE, read_record


class Progress:
    """Follows the state files that the jobs write, wherever they run; prints a line whenever one changes.

    Args:
        folder: of the comparison.
        labels: job number -> how the run is called.
        at_a_time: how many run side by side; None: not known (a cluster), then no time is estimated.
        every: seconds between two lines with the estimate.
    """

    def __init__(self, folder: Path, labels: Mapping[int, str], *, at_a_time: int | None, every: float = 120.0) -> None:
        self.folder = folder
        self.labels = labels
        self.at_a_time = at_a_time
        self.every = every
        self._shown: dict[int, str] = {}
        self._spoke = time.time()

    def states(self) -> dict[int, dict[str, Any]]:
        """The state of every job that has begun."""
        found = {number: read_record(self.folder / STATE_FOLDER / f"{number}.json") for number in self.labels}
        return {number: state for number, state in found.items() if state is not None}

    def look(self) -> None:
        """Say what has changed since the last look, and from time to time what is left."""
        states = self.states()
        for number, state in states.items():
            if self._shown.get(number) == state["state"]:
                continue
            self._shown[number] = state["state"]
            self._say(_event(self.labels[number], state) + self._left(states))
        if time.time() - self._spoke >= self.every:
            running = sum(state["state"] == "running" for state in states.values())
            self._say(f"{running} running" + self._left(states))

    def _say(self, text: str) -> None:
        self._spoke = time.time()
        print(text, flush=True)

    def _left(self, states: Mapping[int, Mapping[str, Any]]) -> str:
        ended = sum(state["state"] != "running" for state in states.values())
        words = f"; {ended} of {len(self.labels)} ended"
        seconds = self.estimate(states)
        return words if not seconds else f"{words}, about {duration(seconds)} left"

    def estimate(self, states: Mapping[int, Mapping[str, Any]]) -> float | None:
        """Seconds until the last run ends, from the runs of this call so far; None while nothing can be said."""
        if self.at_a_time is None:
            return None
        now = time.time()
        whole: list[float] = []
        for state in states.values():
            if state["state"] == "done":
                whole.append(float(state["ended"] - state["started"]))
            elif state["state"] == "running":
                share = _share_done(Path(state["run_dir"]))
                if share:
                    whole.append((now - state["started"]) / share)
        if not whole:
            return None
        mean = sum(whole) / len(whole)
        rest: list[float] = [
            max(0.0, mean - (now - state["started"])) for state in states.values() if state["state"] == "running"
        ]
        work = sum(rest) + mean * (len(self.labels) - len(states))
        return max([work / self.at_a_time, *rest])


def _event(label: str, state: Mapping[str, Any]) -> str:
    if state["state"] == "running":
        return f"{label}: {'continues' if state['resumed'] else 'starts'}, {state['log']}"
    took = duration(state["ended"] - state["started"])
    if state["state"] == "done":
        return f"{label}: done after {took}"
    return f"{label}: FAILED with exit code {state['code']} after {took}, see {state['log']}"


def _share_done(folder: Path) -> float:
    """The share of its iterations that a run has behind it, from its own state file; 0: not known."""
    state = read_record(folder / STATE_FILE) or {}
    return state["iteration"] / state["of"] if state.get("of") else 0.0


def last_line(log: Path) -> str:
    """The last thing a run said, which is the reason where it failed; empty where it said nothing."""
    try:
        lines = [line.strip() for line in log.read_text(encoding="utf-8", errors="replace").splitlines()]
    except OSError:
        return ""
    return next((line[:300] for line in reversed(lines) if line), "")
