"""Facts of the environments: words, places and templates, kept as YAML beside the modules that use them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

# libyaml's parser, where PyYAML was built with it, reads the files in milliseconds
_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def facts_beside(module_file: str) -> Any:
    """The facts of a module, from the file of the same name that ends in ``.yaml``. Lists are tuples."""
    text = Path(module_file).with_suffix(".yaml").read_text(encoding="utf-8")
    return _frozen(yaml.load(text, _LOADER))


def _frozen(value: Any) -> Any:
    if isinstance(value, list):
        return tuple(map(_frozen, value))
    return {key: _frozen(part) for key, part in value.items()} if isinstance(value, dict) else value
