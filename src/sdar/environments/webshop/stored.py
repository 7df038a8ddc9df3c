"""The products and goals of a large catalogue on disk: memory-mapped, made once from the original's files.

The folder, under the cache folder, is named by the content of the files, the settings that draw from them, and the code
that made it. See :mod:`sdar.environments.webshop.storing` for how it is made.
"""

from __future__ import annotations

import hashlib
import json
from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from sdar.environments.cached import read_record
from sdar.environments.lucene.index import InvertedIndex
from sdar.environments.lucene.postings import Postings
from sdar.environments.slices import Slices, mapped
from sdar.environments.task_list import TaskList
from sdar.environments.webshop.goals import Goal, make_goal, make_task, split_of
from sdar.environments.webshop.product import Order, Product
from sdar.episode import Task

INDEX = "index"
RECORDS, NOUNS = "records", "nouns"
_KEPT = 1 << 14
"""Products that are kept in memory, of a few kB each."""


class Catalogue:
    """A folder of stored products and goals.

    Raises:
        OSError, ValueError, KeyError: it is damaged.
    """

    def __init__(self, folder: Path) -> None:
        record = read_record(folder)
        self.content_hash = str(record["key"])
        self.human = bool(record["human"])
        self.categories: tuple[str, ...] = tuple(record["categories"])
        self.has_nouns = bool(record["nouns"])
        self.asins, self._sorted = mapped(folder / "asins.npy"), mapped(folder / "sorted_asins.npy")
        self._by_asin = mapped(folder / "by_asin.npy")
        self._longest = self.asins.dtype.itemsize // 4
        self.ranks = mapped(folder / "ranks.npy")
        self.price_of, self.category_of = mapped(folder / "prices.npy"), mapped(folder / "categories.npy")
        self.goal_starts, self.limits = mapped(folder / "goal_starts.npy"), mapped(folder / "limits.npy")
        self.order, self.places = mapped(folder / "order.npy"), mapped(folder / "places.npy")
        self.repeated = mapped(folder / "repeated.npy")
        self._records, self._nouns = Slices.of(folder, RECORDS), Slices.of(folder, NOUNS)
        self.product = lru_cache(maxsize=_KEPT)(self._product)
        self.nouns = lru_cache(maxsize=_KEPT)(self._nouns_of)
        self.index = InvertedIndex(Postings.load(folder / INDEX), self.ranks)

    def __len__(self) -> int:
        """Number of products."""
        return len(self.asins)

    def number(self, asin: str) -> int | None:
        """The number of a product, in the order of the file."""
        if len(asin) > self._longest:
            return None  # compared with it, all codes would be copied to its length
        place = int(self._sorted.searchsorted(asin))
        return int(self._by_asin[place]) if place < len(self) and self._sorted[place] == asin else None

    def _product(self, number: int) -> Product:
        return product_of(json.loads(self._records[number]))

    def _nouns_of(self, number: int) -> tuple[str, ...]:
        return tuple(json.loads(self._nouns[number]))

    def title_nouns(self, product: Product) -> Sequence[str]:
        """The nouns of the title of one of the products, from the file of nouns. KeyError: it is of other products."""
        number = self.number(product.asin)
        if number is None:
            raise KeyError(product.asin)
        return self.nouns(number)

    def goal(self, number: int) -> Goal:
        """A goal by its number, in the order of the products."""
        product = self.product_of_goal(number)
        combination = number - int(self.goal_starts[product])
        return make_goal(self.product(product), combination, float(self.limits[number]), human=self.human)

    def product_of_goal(self, number: int) -> int:
        """The product that a goal asks for."""
        return bisect_right(self.goal_starts, number) - 1

    def products(self) -> Mapping[str, Product]:
        """The products by their codes."""
        return _Products(self)

    def prices(self) -> Mapping[str, float]:
        """The prices by the products' codes."""
        return _Prices(self)

    def tasks(self) -> dict[str, GoalTasks]:
        """The tasks of each split that has any."""
        found = {split: GoalTasks(self, split, positions) for split, positions in split_of(len(self.order)).items()}
        return {split: tasks for split, tasks in found.items() if len(tasks)}

    def search(self, terms: Sequence[str], limit: int) -> list[str]:
        """The codes of the best products for the terms of a query."""
        return [str(self.asins[number]) for number in self.index.search(terms, limit)]


class _Table(Mapping[str, Any]):
    def __init__(self, catalogue: Catalogue) -> None:
        self._catalogue = catalogue

    def _number(self, asin: str) -> int:
        found = self._catalogue.number(asin)
        if found is None:
            raise KeyError(asin)
        return found

    def __contains__(self, asin: object) -> bool:
        return isinstance(asin, str) and self._catalogue.number(asin) is not None

    def __len__(self) -> int:
        return len(self._catalogue)

    def __iter__(self) -> Iterator[str]:
        return map(str, self._catalogue.asins)


class _Products(_Table):
    def __getitem__(self, asin: str) -> Product:
        return self._catalogue.product(self._number(asin))


class _Prices(_Table):
    def __getitem__(self, asin: str) -> float:
        return float(self._catalogue.price_of[self._number(asin)])


class GoalTasks(TaskList):
    """The goals of a split in the original's order, or those of one type; repeated ones are left out.

    ``positions``: their places in that order, rising.
    """

    def __init__(self, catalogue: Catalogue, split: str, positions: range | np.ndarray) -> None:
        self._catalogue = catalogue
        self._split = split
        kept = np.arange(positions.start, positions.stop) if isinstance(positions, range) else positions
        repeated = catalogue.repeated
        self._positions = kept[~np.isin(kept, repeated)] if len(repeated) else kept

    def __len__(self) -> int:
        return len(self._positions)

    def __getitem__(self, index: Any) -> Any:
        """A task, or a list of them for a slice."""
        if isinstance(index, slice):
            return [self[place] for place in range(*index.indices(len(self)))]
        position = int(self._positions[index])
        return make_task(self._catalogue.goal(int(self._catalogue.order[position])), self._split, position)

    def by_type(self) -> Mapping[str, GoalTasks]:
        """See :class:`TaskList`."""
        return self._by_type

    @cached_property
    def _by_type(self) -> dict[str, GoalTasks]:
        catalogue = self._catalogue
        goals = catalogue.order[self._positions]
        products = np.searchsorted(catalogue.goal_starts, goals, side="right") - 1
        kinds = catalogue.category_of[products]
        return {
            catalogue.categories[kind]: GoalTasks(catalogue, self._split, self._positions[kinds == kind])
            for kind in np.unique(kinds)
        }

    def place(self, task_id: str) -> int | None:
        """See :class:`TaskList`."""
        split, _, position = task_id.rpartition("/")
        if split != self._split or not (position.isascii() and position.isdecimal()) or len(position) > 18:
            return None
        place = self._place(int(position))
        return place if place is not None and f"{split}/{self._positions[place]}" == task_id else None

    def _place(self, position: int) -> int | None:
        place = int(np.searchsorted(self._positions, position))
        return place if place < len(self) and self._positions[place] == position else None

    def same(self, task: Task) -> Task | None:
        """See :class:`TaskList`. Goals for other products differ."""
        named = self.place(task.task_id)
        if named is not None:
            return self[named]  # type: ignore[no-any-return]
        product = self._catalogue.number(task.payload.asin) if isinstance(task.payload, Goal) else None
        if product is None:
            return None
        goals = slice(*map(int, self._catalogue.goal_starts[product : product + 2]))
        places = (self._place(position) for position in self._catalogue.places[goals].tolist())
        found = (self[place] for place in places if place is not None)
        return next((own for own in found if own.content_hash == task.content_hash), None)

    @property
    def content_hash(self) -> str:
        """Of the catalogue, the split, and which of its goals these are."""
        digest = hashlib.sha256(f"{self._catalogue.content_hash}\0{self._split}\0".encode())
        digest.update(self._positions.astype("<i8").tobytes())
        return digest.hexdigest()


def record_of(product: Product) -> list[Any]:
    """A product as plain values, its fields in their order."""
    record = [getattr(product, field.name) for field in fields(product)]
    return [*record[:-1], [(order.instruction, order.attributes, order.options) for order in product.orders]]


def product_of(record: Sequence[Any]) -> Product:
    """The product of :func:`record_of`, through JSON."""
    asin, title, description, bullets, pricing, price_tag, options, attributes, category, query, path, *rest = record
    instruction, instruction_attributes, orders = rest
    return Product(
        asin=asin,
        title=title,
        description=description,
        bullets=tuple(bullets),
        pricing=tuple(pricing),
        price_tag=price_tag,
        options={name: tuple(values) for name, values in options.items()},
        attributes=tuple(attributes),
        category=category,
        query=query,
        product_category=path,
        instruction=instruction,
        instruction_attributes=tuple(instruction_attributes),
        orders=tuple(Order(text, tuple(wanted), tuple(values)) for text, wanted, values in orders),
    )
