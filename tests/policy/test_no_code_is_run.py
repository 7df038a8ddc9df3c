"""Wherever code may lie beside a model, it is not run, and nobody is asked whether it should be."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable
from pathlib import Path

import pytest

from sdar.environments.search_qa.dense import HfEncoder
from sdar.errors import UserError
from sdar.policy.language_model import hf_model
from toys.models import save_tiny, toy_tokenizer


@pytest.fixture
def ran(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What the code would leave behind. The user would agree, and every question is written to ``asked``."""

    def agree(prompt: str = "") -> str:
        (tmp_path / "asked").write_text(prompt)
        return "y"

    monkeypatch.setattr("builtins.input", agree)
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "modules"))
    monkeypatch.syspath_prepend(str(tmp_path / "modules"))
    return tmp_path / "ran"


def add_code(folder: Path, ran: Path, file: str, classes: dict[str, str | list[str | None]]) -> None:
    """Let an entry of a file name classes in a module that leaves a trace when it is imported."""
    module = f"theirs_{uuid.uuid4().hex[:8]}"  # an imported module is not imported again
    (folder / f"{module}.py").write_text(f"open({str(ran)!r}, 'w').close()\n")
    named = json.loads(json.dumps(classes).replace("theirs", module))
    config = json.loads((folder / file).read_text()) if (folder / file).exists() else {}
    (folder / file).write_text(json.dumps(config | {"auto_map": named}))


def model_with_code(folder: Path, ran: Path) -> Path:
    folder.mkdir()
    toy_tokenizer().save_pretrained(folder)
    (folder / "config.json").write_text(json.dumps({"model_type": "theirs"}))
    add_code(folder, ran, "config.json", dict.fromkeys(("AutoConfig", "AutoModel", "AutoModelForCausalLM"), "theirs.M"))
    return folder


def tokenizer_with_code(folder: Path, ran: Path) -> Path:
    save_tiny(folder)
    config = json.loads((folder / "tokenizer_config.json").read_text()) | {"tokenizer_class": "TheirTokenizer"}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    add_code(folder, ran, "tokenizer_config.json", {"AutoTokenizer": [None, "theirs.TheirTokenizer"]})
    return folder


def adapters_on_a_model_with_code(folder: Path, ran: Path) -> Path:
    base = model_with_code(folder.with_name("base"), ran)
    folder.mkdir()
    named = {"peft_type": "LORA", "base_model_name_or_path": str(base), "target_modules": ["q_proj"], "r": 2}
    (folder / "adapter_config.json").write_text(json.dumps(named))
    return folder


@pytest.mark.parametrize("make", [model_with_code, adapters_on_a_model_with_code])
def test_a_policy_is_refused_unasked(make: Callable[[Path, Path], Path], tmp_path: Path, ran: Path) -> None:
    folder = make(tmp_path / "folder", ran)
    with pytest.raises(UserError, match=r"^model\.name: .*custom code") as caught:
        hf_model(str(folder))
    assert "\n" not in str(caught.value)
    assert not ran.exists()
    assert not (tmp_path / "asked").exists()


def test_a_tokenizer_is_read_as_the_librarys_own(tmp_path: Path, ran: Path) -> None:
    policy = hf_model(str(tokenizer_with_code(tmp_path / "folder", ran)))
    assert policy.chat.decode(policy.chat.privileged("abc")) == "abc"
    assert not ran.exists()
    assert not (tmp_path / "asked").exists()


def test_an_encoder_is_refused_unasked(tmp_path: Path, ran: Path) -> None:
    folder = model_with_code(tmp_path / "folder", ran)
    with pytest.raises(UserError, match=r"encoder=.*custom code") as caught:
        HfEncoder(str(folder))
    assert "\n" not in str(caught.value)
    assert not ran.exists()
    assert not (tmp_path / "asked").exists()


def test_the_code_would_have_left_its_trace(tmp_path: Path, ran: Path) -> None:
    """Otherwise the tests above would hold for nothing."""
    from transformers import AutoConfig

    folder = model_with_code(tmp_path / "folder", ran)
    with pytest.raises((AttributeError, ValueError)):
        AutoConfig.from_pretrained(str(folder))
    assert ran.exists()
    assert (tmp_path / "asked").exists()
