"""Code that comes with a model is never run, and nobody is asked whether it should be."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sdar.environments.search_qa.dense import HfEncoder
from sdar.errors import UserError
from sdar.policy.language_model import hf_model
from toys.models import toy_tokenizer

CODE = "from pathlib import Path\nPath(__file__).with_name('pwned').touch()\n"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A model whose classes lie beside its weights, and a user who agrees to everything."""
    toy_tokenizer().save_pretrained(tmp_path)
    classes = dict.fromkeys(("AutoConfig", "AutoModel", "AutoModelForCausalLM"), "theirs.Model")
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "theirs", "auto_map": classes}))
    (tmp_path / "theirs.py").write_text(CODE)
    monkeypatch.setattr("builtins.input", lambda prompt: "y")
    return tmp_path


def test_a_policy_is_refused(folder: Path) -> None:
    with pytest.raises(UserError, match=r"model\.name.*cannot be loaded as a causal language model \(.*custom code"):
        hf_model(str(folder))
    assert not list(folder.rglob("pwned"))


def test_an_encoder_is_refused(folder: Path) -> None:
    with pytest.raises(UserError, match=r"encoder=.*cannot be loaded"):
        HfEncoder(str(folder))
    assert not list(folder.rglob("pwned"))
