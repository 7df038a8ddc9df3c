"""A player with the agent's view of the game, for the demonstrations of the warm start.

The skilled player looks in the usual places first and knows the steps. The mediocre one looks anywhere and makes
mistakes at fixed rates. Both write a short thought and an action, as an agent does. Their difference is the gap between
the plain and the skill-conditioned view of the tiny model.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sdar.environments.alfworld import world
from sdar.environments.alfworld.engine import Reply
from sdar.environments.alfworld.native import NativeState
from sdar.environments.alfworld.task_text import APPLIANCES, TaskGoal
from sdar.environments.demonstration import Step

_IMPOSSIBLE_SLIPS = 0.5
_STATES = {"clean": "clean ", "heat": "hot ", "cool": "cool "}
_WRONG_APPLIANCES = ("microwave", "fridge", "sinkbasin", "stoveburner", "coffeemachine", "countertop")


@dataclass(frozen=True)
class Habits:
    """How often a demonstrator makes each mistake; every field is a probability in [0, 1].

    ``usual_place``     look in a usual place of the object first, if one is left
    ``leave_closed``    pass a closed receptacle without opening it
    ``revisit``         go to a place that was visited before
    ``wrong_appliance`` go to an appliance that does not do the treatment, and try it there
    ``skip_treatment``  forget the treatment and put the object down
    ``slip``            do something random; slips are not imitated, the steps after them are
    """

    usual_place: float
    leave_closed: float
    revisit: float
    wrong_appliance: float
    skip_treatment: float
    slip: float


SKILLED = Habits(usual_place=1.0, leave_closed=0.0, revisit=0.0, wrong_appliance=0.0, skip_treatment=0.0, slip=0.1)
MEDIOCRE = Habits(usual_place=0.1, leave_closed=0.35, revisit=0.2, wrong_appliance=0.4, skip_treatment=0.3, slip=0.05)


class Demonstrator:
    """Plays one episode, knowing only the part of the state that it has seen."""

    def __init__(
        self, state: NativeState, reply: Reply, goal: TaskGoal, habits: Habits, rng: np.random.Generator
    ) -> None:
        self._state = state
        self._reply = reply
        self._goal = goal
        self._habits = habits
        self._rng = rng
        game = state.game
        self._names = game.names
        self._kind_of = {name: game.names[name].rsplit(" ", 1)[0] for name in game.receptacles}
        self._room = self._guess_room()
        self._visited: set[str] = set()
        self._delivered: set[str] = set()
        self._failed: set[str] = set()
        self._treated: set[str] = set()
        self._tried_wrong: set[str] = set()
        # Every thought restates the goal, so that the goal is never far back in the conversation.
        self._aim = f"{_STATES.get(goal.treatment or '', '')}{goal.obj} to {goal.target}"

    def play(self, max_turns: int) -> tuple[list[Step], bool]:
        """Steps until the game is won or the turns are used up, and whether it was won."""
        steps: list[Step] = []
        while len(steps) < max_turns and not self._reply.won:
            slips = self._rng.random() < self._habits.slip
            thought, command = self._slip() if slips else self._decide()
            steps.append(Step(self._reply.text, f"{self._aim}: {thought}", command, not slips))
            self._reply = self._state.step(command)
        return steps, self._reply.won

    def _guess_room(self) -> str:
        kinds = set(self._kind_of.values())
        markers = (("kitchen", "fridge"), ("bathroom", "toilet"), ("bedroom", "bed"))
        return next((room for room, marker in markers if marker in kinds), "livingroom")

    # What it knows -------------------------------------------------------------------------------------------

    def _here(self) -> list[str]:
        return self._state.game.receptacles_at.get(self._state.location, [])

    def _seen_inside(self, receptacle: str) -> tuple[str, ...]:
        if receptacle not in self._visited or not self._state.is_accessible(receptacle):
            return ()
        return self._state.contents.get(receptacle, ())

    def _is(self, item: str, kind: str) -> bool:
        return f"{kind}type" in self._state.game.object_types.get(item, ())

    # What it does --------------------------------------------------------------------------------------------

    def _slip(self) -> tuple[str, str]:
        """Something admissible at random, or something that cannot be done here."""
        game = self._state.game
        if self._rng.random() < _IMPOSSIBLE_SLIPS:
            receptacle = self._names[str(self._rng.choice(game.receptacles))]
            return "try it", str(self._rng.choice([f"open {receptacle}", f"take {self._goal.obj} 1 from {receptacle}"]))
        commands = [command for command in self._reply.admissible if command not in ("help", "look", "inventory")]
        command = str(self._rng.choice(commands))
        self._visited.update(name for name, text in game.go_commands.items() if text == command)
        return "try it", command

    def _decide(self) -> tuple[str, str]:
        held = self._state.held
        if held is not None and not self._is(held, self._goal.obj):
            return self._put_back()
        if held is None:
            return self._search(self._goal.obj, take=True)
        if self._goal.task_type == "look_at_obj_in_light":
            return self._search(self._goal.target, take=False)
        if self._goal.treatment is not None and held not in self._treated:
            return self._treat(held, self._goal.treatment)
        return self._deliver(held)

    def _put_back(self) -> tuple[str, str]:
        for command in self._reply.admissible:
            if command.startswith("move "):
                return "not this one", command
        closed = [command for command in self._reply.admissible if command.startswith("open ")]
        if closed:
            return "not this one", closed[0]
        receptacle = str(self._rng.choice(sorted(self._state.game.receptacles)))
        return "not this one", self._go(receptacle)

    def _go(self, receptacle: str) -> str:
        self._visited.add(receptacle)
        return f"go to {self._names[receptacle]}"

    def _search(self, kind: str, *, take: bool) -> tuple[str, str]:
        here = self._here()
        for receptacle in here:
            for item in self._seen_inside(receptacle):
                if self._is(item, kind) and item not in self._delivered:
                    if not take:
                        return "use it", f"use {self._names[item]}"
                    return "take it", f"take {self._names[item]} from {self._names[receptacle]}"
        for receptacle in here:
            closed = receptacle in self._visited and not self._state.is_accessible(receptacle)
            if closed and receptacle not in self._failed:
                if self._rng.random() >= self._habits.leave_closed:
                    return "open it", f"open {self._names[receptacle]}"
                self._failed.add(receptacle)
        for receptacle in sorted(self._visited):
            if receptacle not in here and any(
                self._is(item, kind) and item not in self._delivered for item in self._seen_inside(receptacle)
            ):
                return f"try {self._kind_of[receptacle]}", self._go(receptacle)
        receptacle = self._next_place(kind)
        return f"try {self._kind_of[receptacle]}", self._go(receptacle)

    def _next_place(self, kind: str) -> str:
        away = [name for name in self._state.game.receptacles if name not in self._here()]
        fresh = [name for name in away if name not in self._visited]
        if not fresh or self._rng.random() < self._habits.revisit:
            return str(self._rng.choice(away))
        if self._rng.random() < self._habits.usual_place:
            for usual in self._usual_places(kind):
                there = [name for name in fresh if self._kind_of[name] == usual]
                if there:
                    return str(self._rng.choice(there))
        # First the type, then the instance: the thought and the action agree.
        chosen = str(self._rng.choice(sorted({self._kind_of[name] for name in fresh})))
        return str(self._rng.choice([name for name in fresh if self._kind_of[name] == chosen]))

    def _usual_places(self, kind: str) -> list[str]:
        usual = world.USUAL_PLACES[self._room] | {"DeskLamp": world.FITS["DeskLamp"]}
        return [place.lower() for name, places in usual.items() if name.lower() == kind for place in places]

    def _treat(self, held: str, verb: str) -> tuple[str, str]:
        kinds = APPLIANCES[verb]
        name = self._names[held]
        for receptacle in self._here():
            if self._kind_of[receptacle] in kinds:
                self._treated.add(held)
                return f"{verb} it", f"{verb} {name} with {self._names[receptacle]}"
            if receptacle in self._tried_wrong:
                self._tried_wrong.discard(receptacle)
                return f"{verb} it", f"{verb} {name} with {self._names[receptacle]}"
        if self._rng.random() < self._habits.skip_treatment:
            self._treated.add(held)
            return self._deliver(held)
        wanted = kinds[0]
        if self._rng.random() < self._habits.wrong_appliance:
            present = [kind for kind in _WRONG_APPLIANCES if kind not in kinds and kind in self._kind_of.values()]
            wanted = str(self._rng.choice(present)) if present else wanted
        there = [name for name, kind in self._kind_of.items() if kind == wanted and name not in self._here()]
        if not there:
            there = [name for name, kind in self._kind_of.items() if kind in kinds]
        receptacle = str(self._rng.choice(sorted(there)))
        if self._kind_of[receptacle] not in kinds:
            self._tried_wrong.add(receptacle)
        return f"{verb} it in {self._kind_of[receptacle]}", self._go(receptacle)

    def _deliver(self, held: str) -> tuple[str, str]:
        target = self._goal.target
        thought = "put it there"
        for receptacle in self._here():
            if self._kind_of[receptacle] != target:
                continue
            if not self._state.is_accessible(receptacle):
                if self._rng.random() < self._habits.leave_closed / 2:
                    return thought, f"move {self._names[held]} to {self._names[receptacle]}"
                return thought, f"open {self._names[receptacle]}"
            self._delivered.add(held)
            return thought, f"move {self._names[held]} to {self._names[receptacle]}"
        there = [name for name, kind in self._kind_of.items() if kind == target]
        again = [name for name in there if any(item in self._delivered for item in self._seen_inside(name))]
        receptacle = again[0] if again else str(self._rng.choice(sorted(there)))
        return thought, self._go(receptacle)
