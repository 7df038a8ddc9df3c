"""As much of Gymnasium as the adapter uses, for machines without it, and toy games for the real one and this one."""

from __future__ import annotations

import re
from types import SimpleNamespace
from typing import Any


class Text:
    def __init__(self, max_length: int, *, min_length: int = 1, charset: str = "") -> None:
        self.max_length, self.min_length, self.charset = max_length, min_length, set(charset)

    def contains(self, text: str) -> bool:
        return self.min_length <= len(text) <= self.max_length and set(text) <= self.charset


class Discrete:
    def __init__(self, n: int, start: int = 0) -> None:
        self.n, self.start = n, start


class Box:
    pass


class Error(Exception):
    pass


class FakeGymnasium(SimpleNamespace):
    """A module ``gymnasium``: ``register``, ``spec``, ``make``, spaces and errors."""

    Env = object
    error = SimpleNamespace(Error=Error)
    spaces = SimpleNamespace(Text=Text, Discrete=Discrete, Box=lambda *bounds: Box())

    def __init__(self) -> None:
        super().__init__(registry={})

    def register(self, id: str, entry_point: Any) -> None:
        self.registry[id] = SimpleNamespace(entry_point=entry_point)

    def spec(self, id: str) -> Any:
        if id not in self.registry:
            raise Error(f"No registered env with id: {id}")
        return self.registry[id]

    def make(self, id: str, disable_env_checker: bool, **kwargs: Any) -> Any:
        return self.spec(id).entry_point(**kwargs)


LETTERS = "abcdefghijklmnopqrstuvwxyz .!"


def hunt(gym: Any) -> Any:
    """A game of a Gymnasium (or the fake one): a number is found by higher and lower, in three tries.

    ``fault`` names the method that raises in tasks with an even seed, ``shown`` what observations look like, and
    ``said`` whether ``info`` has the last word on success.
    """

    class Hunt(gym.Env):  # type: ignore[misc, name-defined]
        metadata = {"render_modes": ["ansi"]}  # noqa: RUF012
        alive = 0

        def __init__(
            self,
            fault: str = "",
            shown: str = "text",
            said: bool | None = None,
            space: str = "discrete",
            render_mode: str | None = None,
        ) -> None:
            self.fault, self.shown, self.said, self.render_mode = fault, shown, said, render_mode
            spaces = gym.spaces
            self.action_space: Any = {
                "discrete": spaces.Discrete(3, start=1),
                "text": spaces.Text(4, charset=LETTERS),
                "box": spaces.Box(0, 1),
            }[space]
            self.observation_space = spaces.Text(99, charset=LETTERS)
            Hunt.alive += 1

        def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
            assert seed is not None
            self.seed, self.tries = seed, 0
            self.number = seed % 3 + 1
            self.trip("reset")
            return self.look(f"Round {seed % 7}."), {}

        def step(self, action: Any) -> Any:
            self.trip("step")
            self.tries += 1
            guess = len(action) if isinstance(action, str) else int(action)
            won, late = guess == self.number, self.tries == 3
            word = "right" if won else "higher" if guess < self.number else "lower"
            info = {} if self.said is None else {"success": self.said}
            reward = float("nan") if self.fault == "nan" else 1.0 if won else -0.5
            return self.look(word), reward, won, late and not won, info

        def look(self, word: str) -> Any:
            self.word = word
            return {"text": word, "mapping": {"text": word}, "number": 7}[
                self.shown if self.shown != "ansi" else "number"
            ]

        def render(self) -> str:
            return f"[{self.word}]"

        def close(self) -> None:
            Hunt.alive -= 1

        def trip(self, method: str) -> None:
            if self.fault == method and self.seed % 2 == 0:
                raise RuntimeError(f"{method} is broken\nfor good")
            if self.fault == "exit":
                raise SystemExit(3)

    return Hunt


def as_file() -> str:
    """A module's text that registers a game for the tiny model of ALFWorld: a coin in one of several drawers."""
    return re.sub(
        r"^    ",
        "",
        """
    import re

    import gymnasium


    class Drawers(gymnasium.Env):
        action_space = gymnasium.spaces.Text(60, charset="abcdefghijklmnopqrstuvwxyz0123456789 ")
        observation_space = gymnasium.spaces.Text(500)

        def __init__(self, count=4):
            self.count = count

        def reset(self, *, seed=None, options=None):
            super().reset(seed=seed)
            self.coin = int(self.np_random.integers(1, self.count + 1))
            drawers = ", ".join(f"a drawer {n}" for n in range(1, self.count + 1))
            return f"You are in the middle of a room. Looking quickly around you, you see {drawers}.", {}

        def step(self, action):
            found = re.search("drawer ([0-9]+)$", action)
            won = found is not None and int(found[1]) == self.coin
            text = "You see a coin." if won else f"The drawer {found[1]} is empty." if found else "Nothing happens."
            return text, float(won), won, False, {}


    gymnasium.register("Drawers-v0", entry_point="rooms:Drawers")
    """,
        flags=re.MULTILINE,
    )
