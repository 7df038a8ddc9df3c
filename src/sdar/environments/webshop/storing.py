"""Makes the folder of a large catalogue, in one pass over the original's files and with bounded memory."""

from __future__ import annotations

import hashlib
import json
import logging
import random
import unicodedata
from array import array
from collections.abc import Callable, Iterable, Mapping
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np

import sdar.environments.lucene as lucene
from sdar.environments.cached import is_whole, write_folder
from sdar.environments.lucene.analysis import EnglishAnalyzer
from sdar.environments.lucene.postings import PostingsWriter
from sdar.environments.slices import Slices, SlicesWriter
from sdar.environments.webshop.dataset import MAX_PRODUCTS, SourceFiles, read_entries, stream_products
from sdar.environments.webshop.goals import draw_limits, make_goal, shuffled
from sdar.environments.webshop.nouns import nouns_of
from sdar.environments.webshop.product import Product
from sdar.environments.webshop.search_index import ranks
from sdar.environments.webshop.stored import INDEX, NOUNS, RECORDS, Catalogue, product_of, record_of
from sdar.errors import UserError
from sdar.files import FileError, opened

log = logging.getLogger(__name__)


def open_catalogue(
    files: SourceFiles, root: Path, *, price_seed: int, human: bool, nouns: Path | None = None
) -> Catalogue:
    """The catalogue of the files, from the folder under ``root`` that was made of them, or makes it.

    Of several processes one makes it, and the others wait.

    Args:
        files: the original's.
        root: folder of all such catalogues.
        price_seed: of prices and limits, see :mod:`sdar.environments.webshop.goals`.
        human: whether the goals are the human instructions.
        nouns: file with the nouns of titles; None: there is none.

    Raises:
        UserError: a file cannot be read, or the folder cannot be written.
    """
    key = _key(files, nouns, price_seed, human)
    folder = root / key[:32]
    if not is_whole(folder):
        try:
            _make(folder, files, nouns, key, price_seed, human)
        except OSError as error:
            raise UserError(
                f"environment.index_dir must be a writable directory with enough space, but {root} cannot be written "
                f"({error})"
            ) from error
    try:
        return Catalogue(folder)
    except (OSError, ValueError, KeyError, TypeError, FileError) as error:
        raise UserError(
            f"environment.index_dir has a damaged catalogue in {folder} ({error}); remove that folder"
        ) from error


def _key(files: SourceFiles, nouns: Path | None, price_seed: int, human: bool) -> str:
    """SHA-256 (hex) of the files' contents, the settings, and the code and tables that make the folder."""
    digest = hashlib.sha256(f"{price_seed} {human} {unicodedata.unidata_version}".encode())
    for path in (files.items, files.attributes, files.orders, nouns):
        digest.update(b"-" if path is None else _content(path))
    return hashlib.sha256(digest.digest() + _code()).hexdigest()


def _code() -> bytes:
    """SHA-256 of the modules and tables that decide what is in the folder."""
    here, analysis = Path(__file__).parent, Path(lucene.__file__).parent
    modules = [here / f"{name}.py" for name in ("dataset", "goals", "product", "search_index", "stored", "storing")]
    digest = hashlib.sha256()
    for path in (*modules, *sorted(analysis.glob("*.py")), analysis / "words.yaml"):
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.digest()


def _content(path: Path) -> bytes:
    try:
        with opened(path, MAX_PRODUCTS) as file:
            return hashlib.file_digest(file, "sha256").digest()
    except FileError as error:
        raise UserError(f"environment.data_dir: {error}") from error
    except OSError as error:
        raise UserError(f"environment.data_dir: {path} cannot be read ({error.strerror})") from error


def _make(folder: Path, files: SourceFiles, nouns: Path | None, key: str, price_seed: int, human: bool) -> None:
    def fill(partial: Path) -> Mapping[str, Any]:
        log.warning("%s is read once, which takes minutes for a million products; kept in %s", files.items, folder)
        entry = None if nouns is None else _entries(nouns)
        return {"key": key, **_fill(partial, stream_products(files), entry, price_seed, human)}

    write_folder(folder, fill)


def _fill(
    folder: Path, products: Iterable[Product], nouns: Callable[[str], bytes] | None, price_seed: int, human: bool
) -> Mapping[str, Any]:
    """Write all files of the folder; what is to be recorded of it."""
    rng = random.Random(price_seed)
    analyzer = EnglishAnalyzer()
    (folder / INDEX).mkdir()
    index = PostingsWriter(folder / INDEX)
    asins: list[str] = []
    prices, kinds = array("d"), array("i")
    categories: dict[str, int] = {}
    with SlicesWriter(folder, RECORDS) as records, SlicesWriter(folder, NOUNS) as words:
        for product in products:
            asins.append(product.asin)
            kinds.append(categories.setdefault(product.category, len(categories)))
            # as goals.draw_prices
            prices.append(product.pricing[0] if len(product.pricing) == 1 else rng.uniform(*product.pricing))
            records.write(json.dumps(record_of(product)).encode())
            words.write(b"" if nouns is None else nouns(product.asin))
            index.add(analyzer.terms(product.contents))
    index.finish()
    codes = np.array(asins)
    np.save(folder / "asins.npy", codes)
    by_code = np.argsort(codes, kind="stable")
    np.save(folder / "sorted_asins.npy", codes[by_code])
    np.save(folder / "by_asin.npy", by_code.astype(np.int32))
    np.save(folder / "ranks.npy", ranks(asins))
    np.save(folder / "prices.npy", np.array(prices))
    np.save(folder / "categories.npy", np.array(kinds, np.int32))
    _fill_goals(folder, prices, rng, human)
    return {"human": human, "categories": list(categories), "nouns": nouns is not None, "products": len(asins)}


def _entries(file: Path) -> Callable[[str], bytes]:
    """The entries of a file of nouns, as JSON text, by ASIN. UserError, also of the function: it lacks a product."""
    table = read_entries(file, "environment.nouns")

    def entry(asin: str) -> bytes:
        text = table.get(asin, b"null")
        nouns_of(json.loads(text), file, asin, use_small=False)
        return text

    return entry


def _fill_goals(folder: Path, prices: array[float], rng: random.Random, human: bool) -> None:
    """Number the goals in the order of the products, and shuffle them."""
    counts, limits, twins = array("q"), array("f"), list[tuple[int, int]]()
    for number, text in enumerate(Slices.of(folder, RECORDS)):
        product = product_of(json.loads(text))
        drawn = draw_limits(product, prices[number], rng, human=human)
        twins += _twins(product, drawn, len(limits), human=human)
        counts.append(len(drawn))
        limits.extend(drawn)
    order = np.array(shuffled(len(limits)), np.int64)
    places = np.empty_like(order)
    places[order] = np.arange(len(order))
    np.save(folder / "goal_starts.npy", np.array([0, *accumulate(counts)], np.int64))
    np.save(folder / "limits.npy", np.array(limits, np.float32))
    np.save(folder / "order.npy", order)
    np.save(folder / "places.npy", places)
    np.save(folder / "repeated.npy", _repeated(twins, places))


def _twins(product: Product, limits: list[float], first: int, *, human: bool) -> list[tuple[int, int]]:
    """Goals of a product that are equal to an earlier one, with the first of their kind. Most products have none."""
    if not human and all(len(set(values)) == len(values) for values in product.options.values()):
        return []
    found: list[tuple[int, int]] = []
    seen: dict[object, int] = {}
    for number, limit in enumerate(limits):
        goal = make_goal(product, number, limit, human=human)
        earlier = seen.setdefault(goal, number)
        if earlier != number:
            found.append((first + number, first + earlier))
    return found


def _repeated(twins: list[tuple[int, int]], places: np.ndarray) -> np.ndarray:
    """Places [n] int64, rising, of goals that an equal one precedes in the shuffled order."""
    of_kind: dict[int, list[int]] = {}
    for goal, earlier in twins:
        of_kind.setdefault(earlier, [int(places[earlier])]).append(int(places[goal]))
    return np.array(sorted(place for kind in of_kind.values() for place in sorted(kind)[1:]), np.int64)
