"""The original engine: TextWorld's PDDL games on ALFWorld's domain and grammar, read from the installed packages.

It is an extra (``pip install 'sdar[textworld]'``), because two of its parts are compiled at installation and licensed
under the GPL. It is the reference for :mod:`sdar.environments.alfworld.native`, at about a hundredth of the speed.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import re
import tempfile
from functools import lru_cache
from pathlib import Path
from typing import Any

from sdar.environments.alfworld.engine import GameError, Reply
from sdar.environments.alfworld.game import Game
from sdar.errors import UserError

_MISSING = (
    "environment.engine=textworld needs packages that are not installed; install them with: "
    "pip install 'sdar[textworld]'"
)


def rules_of_installed_package() -> tuple[str, str]:
    """ALFWorld's domain (PDDL) and grammar (TWL2). Raises UserError if the package is not installed."""
    spec = importlib.util.find_spec("alfworld")  # does not import the package, which has side effects
    if spec is None or not spec.submodule_search_locations:
        raise UserError(_MISSING)
    data = Path(spec.submodule_search_locations[0]) / "data"
    try:
        return (data / "alfred.pddl").read_text(), (data / "alfred.twl2").read_text()
    except FileNotFoundError as error:
        raise UserError(
            f"environment.engine=textworld needs alfworld 0.4, but the installed one has no {error.filename}"
        ) from error


def _import_backend() -> tuple[Any, Any]:
    """The backend and ALFWorld's name generator.

    Importing ``alfworld`` would create its data folder and set ``ALFWORLD_DATA``. Both are prevented here.
    """
    before = os.environ.get("ALFWORLD_DATA")
    os.environ["ALFWORLD_DATA"] = tempfile.gettempdir()
    try:
        backend = importlib.import_module("sdar.environments.alfworld.textworld_backend")
        with backend.untouched_arguments():
            info = importlib.import_module("alfworld.info")
            names = importlib.import_module("alfworld.agents.utils.misc")
    except ImportError as error:
        raise UserError(f"{_MISSING} ({error})") from error
    finally:
        if before is None:
            del os.environ["ALFWORLD_DATA"]
        else:
            os.environ["ALFWORLD_DATA"] = before
    if tempfile.gettempdir() == vars(info)["ALFWORLD_DATA"]:
        folder = before or str(Path("~/.cache/alfworld").expanduser())  # the value that the import would have set
        for module in (info, importlib.import_module("alfworld")):
            vars(module)["ALFWORLD_DATA"] = folder
    return backend, names.Demangler


class TextWorldEngine:
    """Plays games on Fast Downward's library. Calls are serialized; use processes for parallel play.

    ``keep_games`` translated games are cached (about 1 MB each), since the episodes of a group load the same one.
    """

    def __init__(self, keep_games: int = 64) -> None:
        domain, grammar = rules_of_installed_package()
        self.backend, self.demangler = _import_backend()
        self.rulebook = self.backend.Rulebook(domain, grammar)
        self.libraries = self.backend.LibraryPool()
        self._translated = lru_cache(maxsize=keep_games)(lambda game: TextWorldGame(self, game))

    def load(self, game: Game) -> TextWorldGame:
        """Translate the game's problem. Raises :class:`GameError` with the game and the translator's message."""
        with self.backend.ENGINE_LOCK:
            return self._translated(game)


class TextWorldGame:
    """A translated game: the part that all its episodes share."""

    def __init__(self, engine: TextWorldEngine, game: Game) -> None:
        self.engine = engine
        self.game = game
        backend = engine.backend
        try:
            self.task, self.sas = backend.translate(engine.rulebook.domain, game.problem)
            engine.rulebook.add_types(self.task)
            with engine.libraries.lent() as library:
                library.load_sas(self.sas)
                self.facts = backend.initial_facts(self.task, library, engine.rulebook.types)
        except ValueError as error:
            raise GameError(f"game {game.game_id}: {error}") from error
        except KeyError as error:  # the translation of an unsolvable task is empty ("val1")
            raise GameError(f"game {game.game_id}: its goal cannot be reached ({error} is unknown)") from error
        self.kinds = {entity.name: entity.type_name for entity in self.task.objects}
        self.grammar = engine.rulebook.grammar_with_task(f"Your task is to: {game.task_text}.")
        self.entities = self._name_entities()
        self._lifted = {action.name: action for action in self.task.actions}
        self._changing = {effect.literal.predicate for action in self.task.actions for effect in action.effects}
        self._actions: dict[str, Any] = {}

    def _name_entities(self) -> dict[str, Any]:
        """Entities that occur in a fact, with ALFWorld's names ("drawer 3")."""
        info = importlib.import_module("textworld.generator.game").EntityInfo
        entities = {v.name: info(v.name, v.type) for fact in self.facts.facts for v in fact.arguments}
        names = self.engine.demangler(game_infos=entities, shuffle=False)
        for entity in entities.values():
            entity.name = names.demangle_alfred_name(entity.id)
            entity.definite, entity.indefinite = "the", "a"
        return entities

    def action(self, operator_name: str) -> Any:
        """The grounded action of an operator."""
        action = self._actions.get(operator_name)
        if action is None:
            backend = self.engine.backend
            name, *arguments = operator_name.split()
            rule = self.engine.rulebook.actions[name]
            mapping = backend.parameter_mapping(self._lifted[name], arguments)
            action = backend.Action(None, rule.feedback_rule, mapping)
            # a command whose template names no predicate that actions change is always the same
            if self._changing.isdisjoint(re.findall(r"\b(\w+)\s*\(", rule.template)):
                action.command = self.command(operator_name, action, self.facts)
            self._actions[operator_name] = action
        return action

    def command(self, operator_name: str, action: Any, facts: Any) -> str:
        """The command of an action."""
        if action.command is not None:
            return str(action.command)
        template = self.engine.rulebook.actions[operator_name.split()[0]].template
        return self.derive(template, facts, action.mapping)

    def derive(self, text: str, facts: Any, mapping: Any) -> str:
        """A text of the grammar in the current state."""
        return str(self.grammar.derive(text, self.engine.backend.Scope(facts, self.entities, mapping)))

    def start(self) -> tuple[TextWorldState, Reply]:
        """A new episode with its own library."""
        with self.engine.backend.ENGINE_LOCK:
            state = TextWorldState(self)
            return state, state.reply(self.derive("#intro#", state.facts, {}))


class TextWorldState:
    """One running episode."""

    def __init__(self, game: TextWorldGame) -> None:
        self.game = game
        self.facts = game.facts.copy()
        self.library = game.engine.libraries.lend(self)
        self.library.load_sas(game.sas)
        self._offered: dict[str, tuple[int, int, Any]] = {}
        self._last: Reply | None = None

    def step(self, command: str) -> Reply:
        """Apply a command and return the engine's answer."""
        with self.game.engine.backend.ENGINE_LOCK:
            offer = self._offered.get(command.strip())
            if offer is None:
                assert self._last is not None
                return Reply("Nothing happens.", self._last.admissible, self._last.won)
            number, num_effects, action = offer
            self._apply(number, num_effects)
            return self.reply(self.game.derive(action.feedback, self.facts, action.mapping))

    def _apply(self, number: int, num_effects: int) -> None:
        effects = (self.game.engine.backend.Atom * num_effects)()
        self.library.apply_operator(number, effects)
        for effect in effects:
            fact = effect.get_fact(self.game.kinds)
            self.facts.remove_fact(fact.negate())
            self.facts.add_fact(fact)

    def reply(self, text: str) -> Reply:
        """Text with the commands that are now admissible, according to the library."""
        operators = (self.game.engine.backend.Operator * self.library.get_applicable_operators_count())()
        self.library.get_applicable_operators(operators)
        self._offered = {}
        seen: set[str] = set()
        for operator in operators:
            name = operator.name
            if name in seen:
                continue
            seen.add(name)
            action = self.game.action(name)
            command = self.game.command(name, action, self.facts)
            self._offered.setdefault(command, (operator.id, operator.nb_effect_atoms, action))
        self._last = Reply(text, tuple(sorted(self._offered)), bool(self.library.check_goal()))
        return self._last
