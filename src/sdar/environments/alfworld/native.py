"""A native engine for the ALFRED text domain: same observations, commands and outcomes as TextWorld's PDDL engine.

The domain is one fixed set of actions (ALFWorld's ``alfred.pddl``) with one fixed grammar (``alfred.twl2``), so a
state is a few small sets and a text is a template. Interface strings and the engine's known quirks are those of
alfworld 0.4.2 on textworld 1.7.0; the differential tests compare the two engines.

These quirks are kept, because agents see them:

- ``look`` in the middle of the room lists nothing after the opening, since that location has no receptacles;
- an object taken from one receptacle and put into another one at the same location is still "next to" the first;
- an object can be in two receptacles at once if the problem says so, and taking it leaves it in the other;
- only the object in hand can be examined, although the domain would also allow any object in reach;
- a lamp that was used once stays on, and no lamp is ever described as off.
"""

from __future__ import annotations

import copy
from collections import defaultdict

from sdar.environments.alfworld.engine import EngineGame, GameError, Reply
from sdar.environments.alfworld.game import Game
from sdar.environments.alfworld.goal import Goal
from sdar.environments.alfworld.names import readable_names
from sdar.environments.alfworld.problem import Fact, Problem, read_problem
from sdar.environments.facts import facts_beside

NOTHING_HAPPENS = "Nothing happens."

HELP_TEXT: str = facts_beside(__file__)["help"]


class NativeEngine:
    """Plays games in this process, without planner, compiler or worker processes."""

    def load(self, game: Game) -> NativeGame:
        """Read the game's problem. Raises :class:`GameError`, which names the game and the mistake."""
        return NativeGame(game)


class NativeGame(EngineGame):
    """The part of a game that no command changes, shared by all its states."""

    def __init__(self, game: Game) -> None:
        problem = read_problem(game.problem, game.game_id)
        self.game = game
        self.goal = Goal(problem, game.game_id)
        self.names = readable_names(problem.used_names)
        self._index(problem)

    def _index(self, problem: Problem) -> None:
        facts: dict[str, list[Fact]] = defaultdict(list)
        for fact in problem.init:
            facts[fact[0]].append(fact)

        def names_of(predicate: str) -> frozenset[str]:
            return frozenset(fact[1] for fact in facts[predicate])

        agents = {name for name, kind in problem.types.items() if kind == "agent" and name in problem.used_names}
        starts = facts["atlocation"]
        if len(agents) != 1 or len(starts) != 1:
            raise GameError(f"game {self.game.game_id}: the problem must have exactly one agent at one location")
        self.agent = starts[0][1]
        self.start_location = starts[0][2]

        self.receptacles_at: dict[str, list[str]] = defaultdict(list)
        self.location_of: dict[str, str] = {}
        for _, receptacle, location in sorted(set(facts["receptacleatlocation"])):
            if self.location_of.setdefault(receptacle, location) != location:
                raise GameError(f"game {self.game.game_id}: receptacle {receptacle!r} is at two locations")
            self.receptacles_at[location].append(receptacle)
        self.receptacles = sorted(self.location_of)
        self.receptacle_types = _grouped(facts["receptacletype"])
        self.object_types = _grouped(facts["objecttype"])
        self.openable = names_of("openable")
        self.pickupable = names_of("pickupable")
        self.cleanable = names_of("cleanable")
        self.heatable = names_of("heatable")
        self.coolable = names_of("coolable")
        self.toggleable = names_of("toggleable")
        self.sliceable = names_of("sliceable")
        self.receptacle_objects = names_of("isreceptacleobject")
        self.inside_object = {outer: tuple(sorted(inner)) for outer, inner in _inverted(facts["inreceptacleobject"])}
        contains = _grouped(facts["cancontain"])
        self.accepts = {
            receptacle: frozenset(kind for rtype in rtypes for kind in contains.get(rtype, ()))
            for receptacle, rtypes in self.receptacle_types.items()
        }
        self.go_commands = {receptacle: f"go to {self.names[receptacle]}" for receptacle in self.receptacles}

        self.initial_contents: dict[str, tuple[str, ...]] = {
            receptacle: tuple(sorted(set(objects))) for receptacle, objects in _inverted(facts["inreceptacle"])
        }
        self.initial_objects_at: dict[str, frozenset[str]] = {
            location: frozenset(objects) for location, objects in _inverted(facts["objectatlocation"])
        }
        if facts["holds"] or facts["holdsany"]:
            raise GameError(f"game {self.game.game_id}: problems that start with an object in hand are not supported")
        flags = ("opened", "isclean", "ishot", "iscool", "istoggled", "issliced", "ison")
        self.initial_flags = {flag: names_of(flag) for flag in flags}

    def start(self) -> tuple[NativeState, Reply]:
        """A new episode. The opening text ends with the task, as in ALFWorld."""
        state = NativeState(self)
        text = f"-= Welcome to TextWorld, ALFRED! =-\n\n{state.overview()}\n\nYour task is to: {self.game.task_text}."
        return state, state.reply(text)

    def article(self, names: list[str] | tuple[str, ...]) -> str:
        """A list in the grammar's form: "a mug 1, and a plate 2", or "nothing"."""
        return listed([f"a {self.names[name]}" for name in names])


def listed(items: list[str]) -> str:
    """Join items as the grammar does."""
    if not items:
        return "nothing"
    if len(items) == 1:
        return items[0]
    return ", ".join(items[:-1]) + ", and " + items[-1]


def _grouped(facts: list[Fact]) -> dict[str, frozenset[str]]:
    groups: dict[str, set[str]] = defaultdict(set)
    for _, key, value in facts:
        groups[key].add(value)
    return {key: frozenset(values) for key, values in groups.items()}


def _inverted(facts: list[Fact]) -> list[tuple[str, list[str]]]:
    groups: dict[str, list[str]] = defaultdict(list)
    for _, value, key in facts:
        groups[key].append(value)
    return list(groups.items())


class NativeState:
    """The mutable state of one episode. Copying is cheap: containers are replaced, not mutated."""

    __slots__ = ("actions", "contents", "flags", "game", "held", "location", "objects_at", "taken_from")

    def __init__(self, game: NativeGame) -> None:
        self.game = game
        self.location = game.start_location
        self.held: str | None = None
        self.contents = dict(game.initial_contents)
        self.objects_at = dict(game.initial_objects_at)
        self.taken_from: frozenset[tuple[str, str]] = frozenset()
        self.flags = dict(game.initial_flags)
        self.actions: dict[str, tuple[str, ...]] = {}

    def copy(self) -> NativeState:
        """An independent copy that shares the loaded game."""
        other = copy.copy(self)
        other.contents = dict(self.contents)
        other.objects_at = dict(self.objects_at)
        other.flags = dict(self.flags)
        return other

    # Facts -----------------------------------------------------------------------------------------------------

    def holds_fact(self, fact: Fact) -> bool:
        """Whether a dynamic fact of the domain holds."""
        predicate = fact[0]
        if predicate == "inreceptacle":
            return fact[1] in self.contents.get(fact[2], ())
        if predicate == "atlocation":
            return fact[1] == self.game.agent and fact[2] == self.location
        if predicate == "holds":
            return fact[1] == self.game.agent and self.held == fact[2]
        if predicate == "holdsany":
            return self.held is not None
        if predicate == "objectatlocation":
            return fact[1] in self.objects_at.get(fact[2], ())
        return fact[1] in self.flags[predicate]

    @property
    def won(self) -> bool:
        """Whether the goal holds now."""
        return self.game.goal.satisfied(self.holds_fact)

    def is_accessible(self, receptacle: str) -> bool:
        """Whether its contents can be reached: it is not openable, or it is open."""
        return receptacle not in self.game.openable or receptacle in self.flags["opened"]

    # Commands --------------------------------------------------------------------------------------------------

    def _offer(self) -> dict[str, tuple[str, ...]]:
        """Admissible commands and their actions, in no particular order."""
        game, names = self.game, self.game.names
        offers: dict[str, tuple[str, ...]] = {"look": ("look",), "inventory": ("inventory",), "help": ("help",)}
        here = game.receptacles_at.get(self.location, [])
        for receptacle in game.receptacles:
            if game.location_of[receptacle] != self.location:
                offers[game.go_commands[receptacle]] = ("go", receptacle)
        held = self.held
        for receptacle in here:
            name = names[receptacle]
            offers[f"examine {name}"] = ("examine_receptacle", receptacle)
            if receptacle in game.openable:
                verb = "close" if receptacle in self.flags["opened"] else "open"
                offers[f"{verb} {name}"] = (verb, receptacle)
            contents = self.contents.get(receptacle, ())
            accessible = self.is_accessible(receptacle)
            for item in contents:
                if accessible and held is None and item in game.pickupable:
                    offers[f"take {names[item]} from {name}"] = ("take", item, receptacle)
                if item in game.toggleable:
                    offers[f"use {names[item]}"] = ("use", item)
            if held is not None:
                self._offer_with_held(offers, receptacle, held, accessible)
        if held is not None:
            offers[f"examine {names[held]}"] = ("examine_object", held)
            if game.object_types.get(held, frozenset()) & {"knifetype", "butterknifetype"}:
                for item in self.objects_at.get(self.location, ()):
                    if item in game.sliceable:
                        offers[f"slice {names[item]} with {names[held]}"] = ("slice", item, held)
        return offers

    def _offer_with_held(
        self, offers: dict[str, tuple[str, ...]], receptacle: str, held: str, accessible: bool
    ) -> None:
        game, held_name, name = self.game, self.game.names[held], self.game.names[receptacle]
        kinds = game.receptacle_types.get(receptacle, frozenset())
        if accessible and game.object_types.get(held, frozenset()) & game.accepts.get(receptacle, frozenset()):
            offers[f"move {held_name} to {name}"] = ("move", held, receptacle)
        if held in game.cleanable and kinds & {"sinktype", "sinkbasintype"}:
            offers[f"clean {held_name} with {name}"] = ("clean", held, receptacle)
        if held in game.heatable and "microwavetype" in kinds:
            offers[f"heat {held_name} with {name}"] = ("heat", held, receptacle)
        if held in game.coolable and "fridgetype" in kinds:
            offers[f"cool {held_name} with {name}"] = ("cool", held, receptacle)

    def reply(self, text: str) -> Reply:
        """Text with the commands that are admissible now."""
        self.actions = self._offer()
        return Reply(text, tuple(sorted(self.actions)), self.won)

    def step(self, command: str) -> Reply:
        """Apply a command and answer as the engine does."""
        action = self.actions.get(command.strip())
        return self.reply(NOTHING_HAPPENS if action is None else self._apply(action))

    def _apply(self, action: tuple[str, ...]) -> str:
        verb, *arguments = action
        names = self.game.names
        if verb == "go":
            self.location = self.game.location_of[arguments[0]]
            return f"You arrive at {names[arguments[0]]}. {self._receptacle_text(arguments[0])}"
        if verb == "open":
            self._set("opened", arguments[0], True)
            return f"You open the {names[arguments[0]]}. {self._receptacle_text(arguments[0])}"
        if verb == "close":
            self._set("opened", arguments[0], False)
            return f"You close the {names[arguments[0]]}."
        if verb == "take":
            return self._take(*arguments)
        if verb == "move":
            return self._move(*arguments)
        if verb in ("clean", "heat", "cool"):
            return self._treat(verb, *arguments)
        if verb == "use":
            self._set("istoggled", arguments[0], True)
            self._set("ison", arguments[0], arguments[0] not in self.flags["ison"])
            return f"You turn on the {names[arguments[0]]}."
        if verb == "slice":
            self._set("issliced", arguments[0], True)
            return f"You sliced the {names[arguments[0]]} with the {names[arguments[1]]}."
        if verb == "examine_receptacle":
            return self._receptacle_text(arguments[0])
        if verb == "examine_object":
            return self._object_text(arguments[0])
        if verb == "inventory":
            if self.held is None:
                return "You are not carrying anything."
            return f"You are carrying: {self.game.article([self.held])}."
        if verb == "look":
            return self._look_text()
        return HELP_TEXT

    def _set(self, flag: str, name: str, value: bool) -> None:
        members = self.flags[flag]
        self.flags[flag] = members | {name} if value else members - {name}

    def _take(self, item: str, receptacle: str) -> str:
        self.contents[receptacle] = tuple(other for other in self.contents[receptacle] if other != item)
        self.objects_at[self.location] = self.objects_at.get(self.location, frozenset()) - {item}
        self.taken_from = self.taken_from | {(item, receptacle)}
        self.held = item
        return f"You pick up the {self.game.names[item]} from the {self.game.names[receptacle]}."

    def _move(self, item: str, receptacle: str) -> str:
        self.contents[receptacle] = tuple(sorted({*self.contents.get(receptacle, ()), item}))
        self.objects_at[self.location] = self.objects_at.get(self.location, frozenset()) | {item}
        self.taken_from = self.taken_from - {(item, receptacle)}
        self.held = None
        return f"You move the {self.game.names[item]} to the {self.game.names[receptacle]}."

    def _treat(self, verb: str, item: str, receptacle: str) -> str:
        if verb == "clean":
            self._set("isclean", item, True)
        else:
            self._set("ishot", item, verb == "heat")
            self._set("iscool", item, verb == "cool")
        return f"You {verb} the {self.game.names[item]} using the {self.game.names[receptacle]}."

    # Texts -----------------------------------------------------------------------------------------------------

    def overview(self) -> str:
        """The room as described in the opening."""
        if self.game.receptacles_at.get(self.location):
            return self._look_text()
        everything = self.game.article(self.game.receptacles)
        return f"You are in the middle of a room. Looking quickly around you, you see {everything}."

    def _look_text(self) -> str:
        here = self.game.receptacles_at.get(self.location, [])
        if not here:
            return "You are in the middle of a room. Looking quickly around you, you see nothing."
        facing = listed([self.game.names[receptacle] for receptacle in here])
        next_to = [
            item
            for item in sorted(self.objects_at.get(self.location, ()))
            for receptacle in here
            if (item, receptacle) in self.taken_from
        ]
        return f"You are facing the {facing}. Next to it, you see {self.game.article(next_to)}."

    def _receptacle_text(self, receptacle: str) -> str:
        name = self.game.names[receptacle]
        if receptacle in self.game.openable:
            if receptacle not in self.flags["opened"]:
                return f"The {name} is closed."
            return f"The {name} is open. In it, you see {self.game.article(self.contents.get(receptacle, ()))}."
        return f"On the {name}, you see {self.game.article(self.contents.get(receptacle, ()))}."

    def _object_text(self, item: str) -> str:
        name = self.game.names[item]
        if item in self.game.receptacle_objects:
            inside = self.game.article(self.game.inside_object.get(item, ()))
            return f"This is a normal {name}. In it, you see {inside}."
        clean, hot, cool = (item in self.flags[flag] for flag in ("isclean", "ishot", "iscool"))
        sliced = "sliced " if item in self.flags["issliced"] else ""
        if clean and (hot or cool):
            return f"This is a {'hot' if hot else 'cool'} and clean {sliced}{name}."
        if sliced and (clean or hot or cool):
            return f"This is a {'clean' if clean else 'hot' if hot else 'cool'} {sliced}{name}."
        if hot or clean or cool:
            return f"This is a {'hot' if hot else 'clean' if clean else 'cold'} {name}."
        if item in self.game.toggleable and item in self.flags["istoggled"]:
            return f"This {name} is on."
        if item in self.game.sliceable and sliced:
            return f"This is a sliced {name}."
        return f"There's nothing special about {name}."
