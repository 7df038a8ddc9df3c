"""The built-in catalogue: the original's schema, the facts of the world, and reproducibility."""

import hashlib
import json
from collections import Counter

import pytest

from sdar.environments.webshop.catalogue import CatalogueSettings, generate_products, generate_records
from sdar.environments.webshop.dataset import read_products
from sdar.environments.webshop.environment import WebshopEnvironment
from sdar.environments.webshop.world import CATEGORIES
from sdar.errors import UserError

PRODUCTS = generate_products(CatalogueSettings())


def test_it_is_the_same_for_everyone_and_another_for_another_seed():
    text = json.dumps(generate_records(CatalogueSettings()), sort_keys=True)
    assert hashlib.sha256(text.encode()).hexdigest()[:16] == "e4227ab57e65c785"
    assert generate_records(CatalogueSettings(seed=1)) != generate_records(CatalogueSettings())
    assert generate_products(CatalogueSettings(), "other") != PRODUCTS


def test_its_records_read_back_from_files_in_the_originals_format(tmp_path):
    records = generate_records(CatalogueSettings())
    (tmp_path / "items_shuffle_1000.json").write_text(json.dumps([record for record, _ in records]))
    (tmp_path / "items_ins_v2_1000.json").write_text(json.dumps({r["asin"]: a for r, a in records}))
    assert read_products(tmp_path, use_small=True, human_goals=False) == PRODUCTS
    written, built_in = WebshopEnvironment(data_dir=tmp_path, nouns="words"), WebshopEnvironment()
    assert all(written.tasks(split) == built_in.tasks(split) for split in built_in.splits())


def test_several_hundred_products_with_titles_and_codes_of_their_own():
    assert len(PRODUCTS) == 480
    assert len({product.title for product in PRODUCTS}) == len({product.asin for product in PRODUCTS}) == 480
    assert Counter(product.category for product in PRODUCTS) == dict.fromkeys(CATEGORIES, 80)


def test_most_products_have_what_their_maker_is_known_for_and_some_have_not():
    known = [
        product.attributes[0] == CATEGORIES[product.category].makers[product.title.split()[0].lower()]
        for product in PRODUCTS
    ]
    assert 0.85 < sum(known) / len(known) < 0.95
    always = generate_products(CatalogueSettings(typical_fraction=1.0))
    assert all(p.attributes[0] in CATEGORIES[p.category].makers.values() for p in always)


def test_the_quality_stands_where_only_a_reader_of_the_features_finds_it():
    for product in PRODUCTS:
        assert product.attributes[0] in product.bullets[1]
        assert product.attributes[0] not in product.contents


def test_prices_of_every_form_occur():
    forms = Counter(len(product.pricing) for product in PRODUCTS)
    assert forms[1] > 300
    assert forms[2] > 20
    assert any(product.price_tag == "$100.0" for product in PRODUCTS)


def test_a_kind_is_sold_in_one_category_and_a_quality_has_one_maker_there():
    kinds = [kind for category in CATEGORIES.values() for kind in category.kinds]
    assert len(kinds) == len(set(kinds))
    for category in CATEGORIES.values():
        assert all(len(category.makers_of(quality)) == 1 for quality in category.makers.values())


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"typical_fraction": 1.5}, "typical_fraction must be a number >= 0 and <= 1, got 1.5"),
        ({"styled_fraction": -1}, "styled_fraction must be a number >= 0 and <= 1, got -1"),
        ({"values_per_option": 9}, "values_per_option must be a whole number >= 2 and <= 3, got 9"),
    ],
)
def test_settings_out_of_range_are_refused(settings, said):
    with pytest.raises(UserError, match=said):
        CatalogueSettings(**settings)
