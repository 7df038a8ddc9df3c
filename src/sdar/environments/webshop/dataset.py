"""The original's data files, read one record at a time."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TextIO

from sdar.environments.webshop.product import Product, RecordError, read_product
from sdar.errors import UserError

_CHUNK = 1 << 20
_LONGEST = 16 << 20
"""Characters; what has no end within so many is damage, not a product (the longest known has less than 1 MB)."""

log = logging.getLogger(__name__)


def file_names(*, use_small: bool, human_goals: bool) -> tuple[str, str, str | None]:
    """Names of the files with the products, their attributes and instructions, and people's instructions."""
    mark = "_1000" if use_small else ""
    return f"items_shuffle{mark}.json", f"items_ins_v2{mark}.json", "items_human_ins.json" if human_goals else None


def read_products(data_dir: Path, *, use_small: bool, human_goals: bool) -> list[Product]:
    """All products, in the order of the file; those the original leaves out (no ASIN, repeated) are left out.

    Raises:
        UserError: a file is missing, ends early, is not what it should be, or has no product.
    """
    items, attributes, orders = file_names(use_small=use_small, human_goals=human_goals)
    if not data_dir.is_dir():
        raise UserError(f"environment.data_dir={data_dir}: there is no such folder")
    missing = [name for name in (items, attributes, orders) if name is not None and not (data_dir / name).is_file()]
    if missing:
        other = file_names(use_small=not use_small, human_goals=human_goals)[0]
        hint = ""
        if items in missing and (data_dir / other).is_file():
            hint = f" (it holds {other}: environment.use_small={str(not use_small).lower()})"
        raise UserError(f"environment.data_dir={data_dir}: {', '.join(missing)} is not there{hint}")
    known = _mapping(data_dir / attributes)
    written = {} if orders is None else _mapping(data_dir / orders)
    products: dict[str, Product] = {}
    for number, record in enumerate(_records(data_dir / items)):
        asin = str(record.get("asin"))
        if asin in products:
            continue
        try:
            product = read_product(record, known.get(asin), written.get(asin, ()))
        except RecordError as error:
            raise UserError(f"environment.data_dir: {data_dir / items}, product {number}: {error}") from error
        if product is not None:
            products[asin] = product
    if not products:
        raise UserError(f"environment.data_dir: {data_dir / items} holds no product")
    log.info("%d products in %s", len(products), data_dir / items)
    return list(products.values())


def _mapping(file: Path) -> Mapping[str, Any]:
    try:
        table = json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, UnicodeDecodeError) as error:
        raise UserError(f"environment.data_dir: {file} is damaged, or its download was cut short ({error})") from error
    if not isinstance(table, dict):
        raise UserError(f"environment.data_dir: {file} is no mapping of ASINs")
    return table


def _records(file: Path) -> Iterator[Mapping[str, Any]]:
    """The objects of a JSON list, without ever holding the whole file: the full one has over 5 GB."""
    decoder = json.JSONDecoder()
    with file.open(encoding="utf-8") as lines:
        text, at = _more(lines, file).lstrip("\ufeff \t\r\n"), 1
        if not text.startswith("["):
            raise UserError(f"environment.data_dir: {file} is no list of products")
        while True:
            while at < len(text) and text[at] in ", \t\r\n":
                at += 1
            if at < len(text) and text[at] == "]":
                return
            try:
                record, at = decoder.raw_decode(text, at)
            except json.JSONDecodeError as error:
                more = _more(lines, file) if len(text) - at < _LONGEST else ""
                if not more:
                    raise UserError(
                        f"environment.data_dir: {file} is damaged, or its download was cut short ({error.msg})"
                    ) from error
                text, at = text[at:] + more, 0
                continue
            if not isinstance(record, dict):
                raise UserError(f"environment.data_dir: {file} holds {str(record)[:40]!r}, a product is needed")
            yield record


def _more(lines: TextIO, file: Path) -> str:
    try:
        return lines.read(_CHUNK)
    except UnicodeDecodeError as error:
        raise UserError(f"environment.data_dir: {file} is not UTF-8 text") from error
