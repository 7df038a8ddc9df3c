"""WebShop: finding, configuring and buying the product of an instruction."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import ClassVar

from sdar.config.fields import AtLeastOne, checked
from sdar.environments.base import Environment, EnvironmentPool, PastTurn, Projection, PromptStyle
from sdar.environments.lucene.analysis import EnglishAnalyzer
from sdar.environments.slots import SlotPool, failed, tagged_action
from sdar.environments.webshop.catalogue import CatalogueSettings, generate_products
from sdar.environments.webshop.dataset import SourceFiles, read_products
from sdar.environments.webshop.expert import purchase_plan
from sdar.environments.webshop.goals import SPLITS, Goal, draw_prices, make_goals, split_tasks
from sdar.environments.webshop.nouns import NounSource, noun_source, nouns_file
from sdar.environments.webshop.product import Product
from sdar.environments.webshop.reward import Nouns
from sdar.environments.webshop.search_index import SearchIndex
from sdar.environments.webshop.shop import MOST_RESULTS, SEPARATOR, Session, Shop
from sdar.environments.webshop.stored import Catalogue
from sdar.environments.webshop.storing import open_catalogue
from sdar.environments.webshop.terse import terse_page
from sdar.episode import EndReason, Observation, StepOutcome, Task
from sdar.errors import UserError
from sdar.files import cache_root, expanded

SUCCESS_REWARD = 10.0
"""Reward of a purchase that scores 1; everything else gives 0 (verl-agent's WebShop, as used in the paper)."""

LONGEST_PROMPT = 13_000
"""Most characters of a window prompt with history; a longer one is written without (also as in verl-agent)."""

ROLE = "You are shopping in an online shop and act by searching and clicking. "
FORMAT = (
    "think first, briefly, between <think> and </think>, then give exactly one action between <action> and </action>. "
)
ACTIONS = (
    "Actions: search[words] finds products; click[name] follows what the page shows: a product by its code, the value "
    "of an option, a button. The texts of a page are separated by [SEP]. Choose the options that are asked for before "
    "click[buy now] ends the visit."
)
INSTRUCTIONS = f"{ROLE}In every turn {FORMAT}{ACTIONS}\n\n"
"""First part of a growing conversation in the full style."""

_TYPED = "search[<your words>]"


class WebshopEnvironment(Environment):
    """Shopping goals and their prompts.

    Args:
        data_dir: folder of the original files; None: the built-in catalogue.
        use_small: with ``data_dir``, use the 1,000 products of ``items_shuffle_1000.json`` instead of all. All are read
            once, into a catalogue on disk that is memory-mapped.
        human_goals: with ``data_dir``, use human goals (``items_human_ins.json``) instead of synthetic ones.
        nouns: source of the nouns of titles, see :mod:`sdar.environments.webshop.nouns`.
        index_dir: folder that keeps the catalogue that is made of all products; None: the cache folder
            (``$SDAR_CACHE``, or the user's). The small set and the built-in catalogue are in memory.
        price_seed: seed of prices within ranges, and of the price limits of goals.
        max_turns: turn limit of an episode (the paper uses 15).
        prompt_style: ``full`` explains actions and format to a pretrained model; ``terse`` has shortened pages, for a
            model that was warm-started on them.
        list_actions: whether each prompt lists the possible actions.
        catalogue: how the built-in catalogue is generated; ignored with ``data_dir``.
    """

    name: ClassVar[str] = "webshop"
    default_split: ClassVar[str | None] = "test"
    solved_return = SUCCESS_REWARD

    @checked
    def __init__(
        self,
        *,
        data_dir: str | Path | None = None,
        use_small: bool = True,
        human_goals: bool = False,
        nouns: NounSource = "auto",
        index_dir: str | Path | None = None,
        price_seed: int = 0,
        max_turns: AtLeastOne = 8,
        prompt_style: PromptStyle = "terse",
        list_actions: bool = False,
        catalogue: CatalogueSettings | None = None,
    ) -> None:
        if data_dir is None and human_goals:
            raise UserError(
                "environment.human_goals=true needs environment.data_dir, since the built-in goals are synthetic"
            )
        folder = None if data_dir is None else expanded(data_dir)
        self.max_turns = max_turns
        self._prompt_style = prompt_style
        self._list_actions = list_actions
        self._data_dir = data_dir
        self._built_in = data_dir is None and nouns != "spacy"
        if folder is None or use_small:
            if folder is None:
                products = generate_products(catalogue or CatalogueSettings())
            else:
                products = read_products(folder, use_small=True, human_goals=human_goals)
            rng = random.Random(price_seed)
            prices = draw_prices(products, rng)
            self._tasks: Mapping[str, Sequence[Task]] = split_tasks(
                make_goals(products, prices, rng, human=human_goals)
            )
            self.shop = open_shop(products, prices, noun_source(nouns, folder, products), by_code=folder is not None)
        else:
            files = SourceFiles.of(folder, use_small=False, human_goals=human_goals)
            of_titles = nouns_file(nouns, folder, use_small=False)
            root = cache_root(index_dir) / "webshop"
            stored = open_catalogue(files, root, price_seed=price_seed, human=human_goals, nouns=of_titles)
            self._tasks = stored.tasks()
            words = noun_source(nouns, folder, use_small=False) if of_titles is None else stored.title_nouns
            self.shop = stored_shop(stored, words)
        self._splits = tuple(split for split in SPLITS if split in self._tasks)
        if not self._splits:
            raise UserError(f"environment.data_dir must have products with goals, but {data_dir} has none")

    def splits(self) -> tuple[str, ...]:
        """The splits that have tasks: train, eval, test."""
        return self._splits

    def training_split(self) -> str:
        """``train``. UserError where there are too few goals for it."""
        if SPLITS[0] not in self._splits:
            raise UserError(
                "environment.data_dir must have more than 1500 goals to train, since training begins with the 1501st, "
                f"but {self._data_dir} has {sum(map(len, self._tasks.values()))}; set train=false to evaluate only"
            )
        return SPLITS[0]

    def tasks(self, split: str) -> Sequence[Task]:
        """All tasks of a split, in the original's order of the goals."""
        if split not in self._tasks:
            raise UserError(f"split must be one of {', '.join(self.splits())}, got {split!r}")
        return self._tasks[split]

    def open_pool(self) -> EnvironmentPool:
        """A pool of sessions in this shop."""
        return WebshopPool(self.shop)

    def self_contained(self) -> bool:
        """Whether it is the built-in catalogue: no task covers files of products, or a tagger of nouns."""
        return self._built_in

    def opening(self, task: Task, observation: Observation) -> str:
        """Instructions and the first page (full style), or the shopping instruction alone (terse style)."""
        if self._prompt_style == "terse":
            return task.description + self._actions_text(observation)
        return f"{INSTRUCTIONS}Your task is to: {task.description}\n\n{self.reply(observation)}"

    def reply(self, observation: Observation) -> str:
        """The page without the instruction, which every page repeats."""
        return self._page(observation.text) + self._actions_text(observation)

    def _actions_text(self, observation: Observation) -> str:
        if not self._list_actions or not observation.actions:
            return ""
        shown = [_TYPED if action.startswith("search[") else action for action in observation.actions]
        return "\nActions you can take now: " + ", ".join(shown) + "."

    def window_prompt(self, task: Task, past: Sequence[PastTurn], observation: Observation, step: int) -> str:
        """Role, task, number of steps, past turns, current page, actions, and the required format.

        This follows the order of the original prompt, in our own words (sdar code, env_manager.py). The terse style
        omits the role and the format. A prompt of more than 13,000 characters is written without history.
        """
        full = self._prompt_style == "full"
        parts = [ROLE.rstrip()] if full else []
        parts.append(f"Your task is to: {task.description}" if full else task.description)
        if past:
            turns = [f"{self._page(turn.observation)}\n> {turn.action}" for turn in past]
            parts += [f"Steps taken so far: {step}. The last {len(past)}, with what you saw before each:", *turns]
        parts.append(("Now you see:\n" if past else "") + self.reply(observation))
        if full:
            parts.append(f"Now {FORMAT}".rstrip() if self._list_actions else f"Now {FORMAT}{ACTIONS}")
        prompt = "\n\n".join(parts)
        return self.window_prompt(task, [], observation, step) if past and len(prompt) > LONGEST_PROMPT else prompt

    def _page(self, text: str) -> str:
        """The page without the instruction; in the full style every text is quoted, as in the release."""
        page = _without_instruction(text)
        if self._prompt_style == "terse":
            return terse_page(page)
        return text if page == [text] else SEPARATOR.join(f"'{shown}'" for shown in page)

    def project(self, response: str) -> Projection:
        """See :func:`sdar.environments.slots.tagged_action`; without action tags, the last 20 characters."""
        return tagged_action(response, 20)

    def expert(self, task: Task) -> list[str] | None:
        """Searching for the goal's product, choosing its options and buying it; None where that does not score 1."""
        return purchase_plan(self.shop, task.payload, self.max_turns)


def open_shop(products: Sequence[Product], prices: Mapping[str, float], nouns: Nouns, *, by_code: bool = False) -> Shop:
    """A shop with a search engine over its products.

    ``by_code``: products with equal scores are found in the order of their codes, as in the original, instead of in
    their own order.
    """
    asins = [product.asin for product in products]
    index = SearchIndex((product.contents for product in products), asins if by_code else None)
    return Shop(
        products={product.asin: product for product in products},
        prices=prices,
        search=_remembered(lambda query: [asins[number] for number in index.search(query, MOST_RESULTS)]),
        nouns=nouns,
    )


def stored_shop(stored: Catalogue, nouns: Nouns) -> Shop:
    """A shop of products on disk."""
    terms = EnglishAnalyzer().terms
    return Shop(
        products=stored.products(),
        prices=stored.prices(),
        search=_remembered(lambda query: stored.search(terms(query), MOST_RESULTS)),
        nouns=nouns,
    )


def _remembered(search: Callable[[str], list[str]]) -> Callable[[str], Sequence[str]]:
    """The episodes of a group search for much the same."""
    return lru_cache(maxsize=4096)(lambda query: tuple(search(query)))


class WebshopPool(SlotPool[Session]):
    """Sessions in one shop, in this process."""

    def __init__(self, shop: Shop) -> None:
        super().__init__()
        self._shop = shop

    def start(self, task: Task) -> tuple[Session, Observation] | StepOutcome:
        """A session; an error if the product of the goal is not in this shop."""
        goal = task.payload
        if not isinstance(goal, Goal) or goal.asin not in self._shop.products:
            return failed(f"the shop does not sell the product of task {task.task_id}")
        session = Session(self._shop, goal)
        return session, observe(session)

    def act(self, actions: Mapping[int, str]) -> dict[int, StepOutcome]:
        """See :class:`SlotPool`."""
        return {slot: _outcome(self.states[slot], action) for slot, action in actions.items()}


def _outcome(session: Session, action: str) -> StepOutcome:
    session.step(action)
    success = session.done and session.score == 1.0
    end = EndReason.SUCCESS if success else EndReason.FAILURE
    return StepOutcome(
        observation=observe(session),
        reward=SUCCESS_REWARD if success else 0.0,
        done=session.done,
        success=success,
        scores={"task_score": session.score},
        end=end if session.done else None,
    )


def observe(session: Session) -> Observation:
    """The page and its possible actions; the only listed search is the one for the whole instruction."""
    text = session.observation
    if session.has_search_bar:
        actions: tuple[str, ...] = (f"search[{session.goal.instruction.lower()}]",)
    else:
        actions = tuple(f"click[{name}]" for name in session.clickables)
    return Observation(text=text, actions=None if session.done else actions, anchor=text)


def _without_instruction(text: str) -> list[str]:
    """The texts of a page after the instruction."""
    texts = text.split(SEPARATOR)
    return texts[texts.index("Instruction:") + 2 :] if "Instruction:" in texts else texts
