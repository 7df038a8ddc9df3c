"""``model.dtype`` is one of two names, and another one is refused before anything is loaded."""

from __future__ import annotations

import pytest

from sdar.errors import UserError
from sdar.run.validate import compose

MODELS = (("model=hf", "model.name=no/such-model"), ("model=tiny", "model.path=no-such-model"))


@pytest.mark.parametrize("model", MODELS, ids=["hf", "tiny"])
@pytest.mark.parametrize("name", ["fp16", "float16", "half", "bf16", "fp32", "auto"])
def test_another_name_is_refused_as_it_was_given(model: tuple[str, ...], name: str) -> None:
    with pytest.raises(UserError) as caught:
        compose([*model, f"model.dtype={name}"])
    assert str(caught.value) == f"model.dtype must be 'float32' or 'bfloat16', got '{name}'"


@pytest.mark.parametrize("model", MODELS, ids=["hf", "tiny"])
@pytest.mark.parametrize("name", ["float32", "bfloat16"])
def test_the_two_names_are_taken(model: tuple[str, ...], name: str) -> None:
    assert compose([*model, f"model.dtype={name}"]).config["model"]["dtype"] == name
