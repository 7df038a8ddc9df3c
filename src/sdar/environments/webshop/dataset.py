"""Readers of the original data files, one record at a time."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping
from io import TextIOWrapper
from pathlib import Path
from typing import Any, TextIO

from sdar.environments.webshop.product import Product, RecordError, read_product
from sdar.errors import UserError
from sdar.files import GB, FileError, brief, entries, opened, packed, read_json

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


def read_products(data_dir: Path, *, use_small: bool, human_goals: bool) -> list[Product]:
    """All products, in the order of the file, without those that the original omits (no ASIN, duplicates).

    Raises:
        UserError: a file is missing, truncated, in the wrong format, or has no product.
    """
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
    known = _mapping(data_dir / attributes)
    written = {} if orders is None else _mapping(data_dir / orders)
    products: dict[str, Product] = {}
    for number, record in enumerate(_records(data_dir / items)):
        asin = record.get("asin")
        asin = asin if isinstance(asin, str) else ""
        if asin in products:
            continue
        try:
            product = read_product(record, known.get(asin), written.get(asin, ()))
        except (RecordError, RecursionError) as error:
            raise UserError(f"environment.data_dir: {data_dir / items}, product {number}: {error}") from error
        if product is not None:
            products[asin] = product
    if not products:
        raise UserError(f"environment.data_dir: {data_dir / items} has no product")
    log.info("%d products in %s", len(products), data_dir / items)
    return list(products.values())


def _mapping(file: Path) -> Mapping[str, Any]:
    try:
        table = read_json(file, MAX_MAPPING)
    except FileError as error:
        raise UserError(f"environment.data_dir: {error}") from error
    if not isinstance(table, dict):
        raise UserError(f"environment.data_dir: {file} must be a mapping of ASINs")
    return table


def _records(file: Path) -> Iterator[Mapping[str, Any]]:
    """The objects of a JSON list, streamed: the full file has over 5 GB."""
    decoder = json.JSONDecoder()
    try:
        lines = TextIOWrapper(opened(file, MAX_PRODUCTS), encoding="utf-8")
    except FileError as error:
        raise UserError(f"environment.data_dir: {error}") from error
    with lines:
        text, at = _more(lines, file).lstrip("\ufeff \t\r\n"), 1
        if not text.startswith("["):
            raise UserError(f"environment.data_dir: {file} must be a list of products")
        while True:
            while at < len(text) and text[at] in ", \t\r\n":
                at += 1
            if at < len(text) and text[at] == "]":
                return
            try:
                record, at = decoder.raw_decode(text, at)
            except json.JSONDecodeError as error:
                more = _more(lines, file) if len(text) - at < LONGEST else ""
                if not more:
                    raise UserError(f"environment.data_dir: {file} is damaged or incomplete ({error.msg})") from error
                text, at = text[at:] + more, 0
                continue
            except (ValueError, RecursionError) as error:
                reason = "nested too deeply" if isinstance(error, RecursionError) else "a number of many digits"
                raise UserError(f"environment.data_dir: {file} is no file of products ({reason})") from error
            if not isinstance(record, dict):
                raise UserError(f"environment.data_dir: {file} must contain only products, got {brief(record)}")
            yield record


def _more(lines: TextIO, file: Path) -> str:
    try:
        return lines.read(CHUNK)
    except UnicodeDecodeError as error:
        found = packed(error.object) or "other bytes"
        raise UserError(f"environment.data_dir: {file} must be UTF-8 text, got {found}") from error
    except OSError as error:
        raise UserError(f"environment.data_dir: {file} cannot be read ({error.strerror})") from error
