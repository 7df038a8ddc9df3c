"""The parts of TextWorld's PDDL engine that a game needs, with repeated work cached.

Import this module only through :mod:`sdar.environments.alfworld.textworld_engine`, which tells users what to install if
TextWorld is missing. Texts, commands and outcomes are those of ``textworld.envs.pddl.PddlEnv`` (textworld 1.7.0);
``scripts/differential.py --stock`` verifies this step by step. Compared with the original,

- a problem is translated once, not four times, and a reset starts from the state found at loading;
- texts are derived without re-parsing the grammar's strings and without deep copies of the context;
- the command and the parameters of a grounded action are computed once per game.
"""

from __future__ import annotations

import sys
import threading
import weakref
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from types import SimpleNamespace
from typing import Any

import fast_downward
from textworld.envs.pddl import textgen
from textworld.envs.pddl.logic import Atom, GameLogic
from textworld.logic import GameLogic as WorldLogic
from textworld.logic import Placeholder, Proposition, Rule, State, Type, Variable

ENGINE_LOCK = threading.RLock()
"""Held during every call into the engine: the translator and the parsers have module-level state."""


@contextmanager
def untouched_arguments() -> Iterator[None]:
    """Restore ``sys.argv``, which the translator overwrites."""
    arguments = sys.argv
    try:
        yield
    finally:
        sys.argv = arguments


def translate(domain: str, problem: str) -> tuple[Any, bytes]:
    """Ground a problem: Fast Downward's task and its SAS text.

    Raises ValueError with the translator's message if the problem cannot be read.
    """
    with untouched_arguments():
        try:
            task, sas = fast_downward.pddl2sas(domain, problem)
        except (Exception, SystemExit) as error:  # the translator calls sys.exit for some errors
            raise ValueError(f"{type(error).__name__}: {error}") from error
    return task, sas.encode()


class Facts(State):  # type: ignore[misc]
    """The current facts, which answer the grammar's queries."""

    def __init__(self, types: Any) -> None:
        super().__init__(WorldLogic())
        self._logic = SimpleNamespace(types=types)

    def copy(self) -> Facts:
        """An independent copy."""
        other = Facts(self._logic.types)
        for signature, facts in self._facts.items():
            other._facts[signature] = set(facts)
        for kind, variables in self._vars_by_type.items():
            other._vars_by_type[kind] = set(variables)
        other._vars_by_name = dict(self._vars_by_name)
        other._var_counts = self._var_counts.copy()
        return other


class LibraryPool:
    """Copies of Fast Downward's library, each of which holds the state of one running episode.

    A copy takes 2 to 3 MB and cannot be unloaded safely (the process would crash at exit). Copies are therefore reused:
    a copy returns to the pool when its episode is no longer referenced.
    """

    def __init__(self) -> None:
        self._free: list[Any] = []

    def __len__(self) -> int:
        """Number of copies that are not lent."""
        return len(self._free)

    def lend(self, borrower: object) -> Any:
        """A library for the lifetime of ``borrower``."""
        library = self._free.pop() if self._free else fast_downward.load_lib()
        weakref.finalize(borrower, self._free.append, library).atexit = False
        return library

    @contextmanager
    def lent(self) -> Iterator[Any]:
        """A library for the duration of a ``with`` block."""
        library = self._free.pop() if self._free else fast_downward.load_lib()
        try:
            yield library
        finally:
            self._free.append(library)


@lru_cache(maxsize=4096)
def _symbols(text: str) -> tuple[Any, ...]:
    return tuple(textgen._parse_and_convert(text, rule_name="symbols"))


@lru_cache(maxsize=1024)
def _query(expression: str) -> Any:
    return Rule.parse_conjunctive_query(expression)


@lru_cache(maxsize=1024)
def _code(expression: str) -> Any:
    return compile(expression.strip(), "<grammar>", "eval")


class Scope:
    """The context of a text: facts, and the meaning of its names."""

    __slots__ = ("entities", "facts", "mapping", "variables")

    def __init__(self, facts: Facts, entities: Mapping[str, Any], mapping: Mapping[Any, Any]) -> None:
        self.facts = facts
        self.entities = entities
        self.mapping = mapping
        self.variables = {placeholder.name: entities[variable.name] for placeholder, variable in mapping.items()}

    def matches(self, expression: str) -> Iterator[Mapping[Any, Any]]:
        """Assignments that extend this scope's and satisfy a conjunctive query."""
        return iter(self.facts.all_assignments(_query(expression), self.mapping))

    def inner(self, mapping: Mapping[Any, Any]) -> Scope:
        """The scope with more names bound."""
        scope = Scope(self.facts, self.entities, mapping)
        scope.variables = {**self.variables, **scope.variables}
        return scope


class Grammar:
    """Derives texts by the rules of a context-sensitive grammar, like ``ContextSensitiveGrammar.derive``."""

    def __init__(self, rules: Mapping[str, list[Any]]) -> None:
        self._rules = rules

    def derive(self, text: str, scope: Scope) -> str:
        """The text with all its symbols replaced."""
        return "".join(self._expand(symbol, scope) for symbol in _symbols(text))

    def _expand(self, symbol: Any, scope: Scope) -> str:
        if isinstance(symbol, textgen.TerminalSymbol):
            return str(symbol)
        if isinstance(symbol, textgen.NonterminalSymbol):
            return "".join(self._expand(part, scope) for part in self._rule(str(symbol), scope).rhs)
        if isinstance(symbol, textgen.ConditionalSymbol):
            return "".join(self._alternatives(symbol, scope))
        if isinstance(symbol, textgen.ListSymbol):
            return self._list(self._alternatives(symbol.symbol, scope), scope)
        return str(eval(_code(symbol.expression), {"__builtins__": {}}, scope.variables))

    def _rule(self, name: str, scope: Scope) -> Any:
        for rule in self._rules.get(name) or ():
            if not rule.condition or next(scope.matches(rule.condition), None) is not None:
                return rule
        raise KeyError(f"the grammar has no rule that applies for #{name}#")

    def _alternatives(self, symbol: Any, scope: Scope) -> list[str]:
        if not symbol.given:
            return [self._expand(symbol.expression, scope)]
        return [self._expand(symbol.expression, scope.inner(match)) for match in list(scope.matches(symbol.given))]

    def _list(self, items: list[str], scope: Scope) -> str:
        if not items:
            return self.derive("#list_empty#", scope)
        if len(items) == 1:
            return items[0]
        separator, last = self.derive("#list_separator#", scope), self.derive("#list_last_separator#", scope)
        return separator.join(items[:-1]) + last + items[-1]


@dataclass(slots=True)
class Action:
    """A grounded action of one game: its command if that never changes, and its parameters."""

    command: str | None
    feedback: str
    mapping: Mapping[Any, Any]


class Rulebook:
    """Actions and grammar of a domain, parsed once for all games."""

    def __init__(self, domain: str, grammar: str) -> None:
        self.domain = domain
        self._logic = GameLogic(domain=domain, grammar=grammar)
        self.types = self._logic.types
        self.actions = self._logic.actions

    def add_types(self, task: Any) -> None:
        """Register the types of a translated task."""
        for kind in task.types:
            try:
                self.types.add(Type(kind.name, kind.supertype_names))
            except ValueError:  # already registered
                continue

    def grammar_with_task(self, sentence: str) -> Grammar:
        """The grammar whose ``#task#`` is this literal sentence."""
        rules = dict(self._logic.grammar._rules)
        symbol = textgen.TerminalSymbol(sentence)
        rules["task"] = [textgen.ProductionRule(lhs="task", rhs=[symbol])]
        return Grammar(rules)


def initial_facts(task: Any, library: Any, types: Any) -> Facts:
    """Facts at the start of an episode: those of the problem and those the library derives from them."""
    kinds = {entity.name: entity.type_name for entity in task.objects}
    facts = Facts(types)
    for atom in task.init:
        if isinstance(atom, fast_downward.translate.pddl.conditions.Atom) and atom.predicate != "=":
            facts.add_fact(Proposition(atom.predicate, [Variable(name, kinds[name]) for name in atom.args]))
    atoms = (Atom * library.get_state_size())()
    library.get_state(atoms)
    for atom in atoms:
        fact = atom.get_fact(kinds)
        if not fact.is_negation:
            facts.add_fact(fact)
    return facts


def parameter_mapping(action: Any, arguments: list[str]) -> dict[Any, Any]:
    """The values of a lifted action's parameters."""
    return {
        Placeholder(parameter.name.strip("?"), parameter.type_name): Variable(name, parameter.type_name)
        for parameter, name in zip(action.parameters, arguments, strict=False)
    }


Operator = fast_downward.Operator
