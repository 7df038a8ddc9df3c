"""Readers of the original data files, one record at a time."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from io import TextIOWrapper
from pathlib import Path
from typing import Any, Self

from sdar.environments.webshop.product import Product, RecordError, read_product
from sdar.errors import UserError
from sdar.files import GB, FileError, brief, entries, opened, packed

CHUNK = 1 << 20
"""Characters per read."""
LONGEST = 16 << 20
"""Most characters of a product; anything longer is damaged (the longest known product has less than 1 MB)."""
MAX_PRODUCTS, MAX_MAPPING = 100 * GB, 2 * GB
"""Largest files in bytes; the full set of products has over 5 GB."""

log = logging.getLogger(__name__)


def file_names(*, use_small: bool, human_goals: bool) -> tuple[str, str, str | None]:
    """Names of the files with products, attributes and synthetic instructions, and human instructions."""
    mark = "_1000" if use_small else ""
    return f"items_shuffle{mark}.json", f"items_ins_v2{mark}.json", "items_human_ins.json" if human_goals else None


@dataclass(frozen=True)
class SourceFiles:
    """The files of one set of products. ``orders``: human instructions; None: synthetic ones."""

    items: Path
    attributes: Path
    orders: Path | None

    @classmethod
    def of(cls, data_dir: Path, *, use_small: bool, human_goals: bool) -> SourceFiles:
        """The files in a folder. UserError: some are missing."""
        items, attributes, orders = file_names(use_small=use_small, human_goals=human_goals)
        try:
            there = {path.name for path in entries(data_dir)}
        except FileError as error:
            raise UserError(f"environment.data_dir={data_dir} {error.reason}") from error
        missing = [name for name in (items, attributes, orders) if name is not None and name not in there]
        if missing:
            other = file_names(use_small=not use_small, human_goals=human_goals)[0]
            hint = ""
            if items in missing and other in there:
                hint = f"; it has {other}, so set environment.use_small={str(not use_small).lower()}"
            raise UserError(f"environment.data_dir must contain {' and '.join(missing)}, got {data_dir}{hint}")
        return cls(data_dir / items, data_dir / attributes, None if orders is None else data_dir / orders)


def read_products(data_dir: Path, *, use_small: bool, human_goals: bool) -> list[Product]:
    """All products, in the order of the file, without those that the original omits (no ASIN, duplicates).

    Raises:
        UserError: a file is missing, truncated, in the wrong format, or has no product.
    """
    return list(stream_products(SourceFiles.of(data_dir, use_small=use_small, human_goals=human_goals)))


def stream_products(files: SourceFiles) -> Iterator[Product]:
    """The same, one product at a time. Of the other files, the texts of all entries are kept in memory.

    Raises:
        UserError: a file is truncated or in the wrong format, or there is no product.
    """
    known = read_entries(files.attributes)
    written = {} if files.orders is None else read_entries(files.orders)
    seen: set[str] = set()
    for number, record in enumerate(_records(files.items)):
        asin = record.get("asin")
        asin = asin if isinstance(asin, str) else ""
        if asin in seen:
            continue
        try:
            product = read_product(record, _entry(known, asin, None), _entry(written, asin, ()))
        except (RecordError, RecursionError) as error:
            raise UserError(f"environment.data_dir: {files.items}, product {number}: {error}") from error
        if product is not None:
            seen.add(asin)
            yield product
    if not seen:
        raise UserError(f"environment.data_dir: {files.items} has no product")
    log.info("%d products in %s", len(seen), files.items)


def _entry(table: Mapping[str, bytes], asin: str, default: Any) -> Any:
    found = table.get(asin)
    return default if found is None else json.loads(found)


def read_entries(file: Path, setting: str = "environment.data_dir") -> dict[str, bytes]:
    """The entries of a JSON mapping of ASINs, each as JSON text in UTF-8; of a repeated ASIN the last. It is streamed.

    Raises:
        UserError: the file cannot be read, is damaged, or has something else; the message names the setting.
    """
    found: dict[str, bytes] = {}
    try:
        with _Stream(file, MAX_MAPPING, setting) as stream:
            if stream.next() not in ("{", ""):
                raise UserError(f"{setting}: {file} must be a mapping of ASINs")
            stream.expect("{")
            while stream.next() != "}":
                if found:
                    stream.expect(",")
                if stream.next() != '"':
                    raise _DamagedError("Expecting property name enclosed in double quotes")
                name, _ = stream.value()
                stream.expect(":")
                stream.next()
                _, text = stream.value()
                found[name] = text.encode("utf-8", "surrogatepass")
            stream.expect("}")
            if stream.next():
                raise _DamagedError("Extra data")
    except _DamagedError as error:
        raise UserError(f"{setting}: {file} must be JSON, got a damaged or incomplete file ({error})") from error
    return found


def _records(file: Path) -> Iterator[Mapping[str, Any]]:
    """The objects of a JSON list, streamed: the full file has over 5 GB."""
    with _Stream(file, MAX_PRODUCTS) as stream:
        if stream.next() != "[":
            raise UserError(f"environment.data_dir: {file} must be a list of products")
        stream.skip()
        while stream.next(", \t\r\n") != "]":
            try:
                record, _ = stream.value()
            except _DamagedError as error:
                kind = "is no file of products" if error.hostile else "is damaged or incomplete"
                raise UserError(f"environment.data_dir: {file} {kind} ({error})") from error
            if not isinstance(record, dict):
                raise UserError(f"environment.data_dir: {file} must contain only products, got {brief(record)}")
            yield record


class _DamagedError(Exception):
    """Why a text is not JSON, in a clause. ``hostile``: it is, but made to be too much for a reader."""

    def __init__(self, reason: str, *, hostile: bool = False) -> None:
        super().__init__(reason)
        self.hostile = hostile


class _Stream:
    """The values of a JSON text, read in pieces."""

    def __init__(self, file: Path, limit: int, setting: str = "environment.data_dir") -> None:
        self._name = f"{setting}: {file}"
        self._decoder = json.JSONDecoder()
        self._text, self._at = "", 0
        try:
            self._lines = TextIOWrapper(opened(file, limit), encoding="utf-8-sig")
        except FileError as error:
            raise UserError(f"{setting}: {error}") from error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._lines.close()

    def next(self, passed: str = " \t\r\n") -> str:
        """The next character that is none of the ``passed``; "" at the end. It is not taken."""
        while True:
            while self._at < len(self._text):
                character = self._text[self._at]
                if character not in passed:
                    return character
                self._at += 1
            if not self._more():
                return ""

    def skip(self) -> None:
        """Take a character."""
        self._at += 1

    def expect(self, character: str) -> None:
        """Take this character. _DamagedError: the next one is another."""
        if self.next() != character:
            raise _DamagedError(f"Expecting '{character}'")
        self.skip()

    def value(self) -> tuple[Any, str]:
        """Take the next value; with its text. _DamagedError: there is none."""
        while True:
            try:
                value, end = self._decoder.raw_decode(self._text, self._at)
            except json.JSONDecodeError as error:
                if len(self._text) - self._at >= LONGEST or not self._more():
                    raise _DamagedError(error.msg) from error
                continue
            except (ValueError, RecursionError) as error:
                deep = isinstance(error, RecursionError)
                reason = "it is nested too deeply" if deep else "a number has too many digits"
                raise _DamagedError(reason, hostile=True) from error
            text, self._at = self._text[self._at : end], end
            return value, text

    def _more(self) -> bool:
        """Read on. False: there is nothing more."""
        try:
            more = self._lines.read(CHUNK)
        except UnicodeDecodeError as error:
            found = packed(error.object) or "other bytes"
            raise UserError(f"{self._name} must be UTF-8 text, got {found}") from error
        except OSError as error:
            raise UserError(f"{self._name} cannot be read ({error.strerror})") from error
        self._text, self._at = self._text[self._at :] + more, 0
        return bool(more)
