"""A player with full information: a short solution of a game from its true state.

The best order of steps is known for each task type. Only the object, the receptacle and the appliance vary. All choices
are played on copies of the state, and the shortest that wins is returned.
"""

from __future__ import annotations

from itertools import permutations

from sdar.environments.alfworld.native import NativeState
from sdar.environments.alfworld.task_text import APPLIANCES, TaskGoal, parse_task_text


def solve(state: NativeState, task_text: str) -> list[str] | None:
    """Commands that win from ``state`` (which is not modified), or None if no solution is found.

    ``state.reply`` must have been called at least once, as is the case for every state returned by an engine.
    """
    goal = parse_task_text(task_text)
    if goal is None:
        return None
    solutions = [plan for plan in map(_Player(state, goal).play, _choices(state, goal)) if plan is not None]
    return min(solutions, key=len, default=None)


Choice = tuple[tuple[str, ...], str, str | None]
"""Objects in the order they are fetched, the final receptacle (or lamp), and the appliance."""


def _choices(state: NativeState, goal: TaskGoal) -> list[Choice]:
    game = state.game
    objects = [name for name, kinds in game.object_types.items() if f"{goal.obj}type" in kinds]
    appliances: list[str | None] = [None]
    if goal.treatment is not None:
        wanted = {f"{kind}type" for kind in APPLIANCES[goal.treatment]}
        appliances = [name for name in game.receptacles if game.receptacle_types.get(name, frozenset()) & wanted]
    if goal.task_type == "look_at_obj_in_light":
        ends = [name for name, kinds in game.object_types.items() if f"{goal.target}type" in kinds]
    else:
        ends = [name for name in game.receptacles if f"{goal.target}type" in game.receptacle_types.get(name, ())]
    return [
        (chosen, end, appliance)
        for chosen in permutations(sorted(objects), goal.count)
        for end in ends
        for appliance in appliances
    ]


class _Player:
    def __init__(self, start: NativeState, goal: TaskGoal) -> None:
        self._start = start
        self._goal = goal

    def play(self, choice: Choice) -> list[str] | None:
        """The commands of this choice, or None if one of them is not admissible or the game is not won."""
        objects, end, appliance = choice
        self._state = self._start.copy()
        self._state.reply("")
        self._commands: list[str] = []
        self._won = False
        if self._goal.task_type == "look_at_obj_in_light":
            self._light(objects[0], end)
        else:
            all(self._deliver(item, end, appliance) for item in objects)
        return self._commands if self._won else None

    def _do(self, command: str) -> bool:
        """Apply a command. False if it is not admissible, or if the game is already won.

        A game can be won before the last step: an object in two receptacles stays in one of them when it is taken.
        """
        if self._won or command not in self._state.actions:
            return False
        self._commands.append(command)
        self._won = self._state.step(command).won
        return True

    def _reach(self, receptacle: str, *, inside: bool = True) -> bool:
        names, game = self._state.game.names, self._state.game
        if game.location_of[receptacle] != self._state.location and not self._do(f"go to {names[receptacle]}"):
            return False
        return not inside or self._state.is_accessible(receptacle) or self._do(f"open {names[receptacle]}")

    def _fetch(self, item: str, end: str) -> bool:
        """Take the item. If it is in two receptacles, take it from the one that is not its destination."""
        if self._state.held == item:
            return True
        found = [receptacle for receptacle, contents in self._state.contents.items() if item in contents]
        if not found:
            return False
        receptacle = next((receptacle for receptacle in found if receptacle != end), end)
        names = self._state.game.names
        return self._reach(receptacle) and self._do(f"take {names[item]} from {names[receptacle]}")

    def _deliver(self, item: str, end: str, appliance: str | None) -> bool:
        names = self._state.game.names
        if item in self._state.contents.get(end, ()) and appliance is None:
            return True
        if not self._fetch(item, end):
            return False
        if appliance is not None:
            treat = f"{self._goal.treatment} {names[item]} with {names[appliance]}"
            if not (self._reach(appliance, inside=False) and self._do(treat)):
                return False
        return self._reach(end) and self._do(f"move {names[item]} to {names[end]}")

    def _light(self, item: str, lamp: str) -> bool:
        if not self._fetch(item, lamp):
            return False
        for receptacle, contents in self._state.contents.items():
            if lamp in contents:
                return self._reach(receptacle, inside=False) and self._do(f"use {self._state.game.names[lamp]}")
        return False
