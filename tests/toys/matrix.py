"""One pair of a family and a chat template: loaded as a user would, and trained for one iteration in both contexts."""

from __future__ import annotations

import json
import warnings
from pathlib import Path

import pytest
import torch

from sdar.errors import UserError
from sdar.policy.language_model import LanguageModel, hf_model
from sdar.policy.log_probs import score_tokens
from sdar.policy.shared_prefixes import PrefixStore, SharedRows
from toys.chat_templates import Structure
from toys.families import Family
from toys.training import HintTeacher, toy_datamodule, toy_module, train


def save_weights(folder: Path, family: Family) -> Path:
    family.model().save_pretrained(folder)
    return folder


def save_tokenizer(folder: Path, structure: Structure) -> Path:
    """The tokenizer, and where ``generate`` stops, beside the weights of a folder."""
    tokenizer = structure.tokenizer()
    tokenizer.save_pretrained(folder)
    stops = structure.stop_ids(tokenizer)
    generation = {"eos_token_id": stops if stops[1:] else stops[0]}
    (folder / "generation_config.json").write_text(json.dumps(generation))
    return folder


def check_pair(folder: Path, family: Family, structure: Structure, contexts: tuple[str, ...]) -> LanguageModel | None:
    """Assert that the pair is refused with its reason, or trains without a difference that is none.

    The policy; None: it is refused.
    """
    save_tokenizer(folder, structure)
    # The template is read first, but either sentence is true.
    refusals = [words for words in (structure.refusal, family.refusal) if words is not None]
    if family.kind == "qwen2" and structure.kind != "bpe":
        # transformers reads the tokenizer of such a folder as Qwen2's own, whatever its file says.
        refusals.append("as Qwen2Tokenizer reads it, loses the spaces of a text")
    if refusals:
        with pytest.raises(UserError, match="|".join(refusals)) as caught:
            hf_model(str(folder))
        assert "\n" not in str(caught.value)
        return None
    policy = hf_model(str(folder))
    stops = set(structure.stop_ids(structure.tokenizer()))
    assert policy.context_tokens == family.context
    assert set(policy.chat.end_ids) == stops
    for context in contexts:
        if context == "append" and structure.append == "refused":
            with pytest.raises(UserError, match=r"^rollout\.context=append needs"):
                policy.chat.check_append()
            continue
        check_iteration(policy, context)
    return policy


def check_shared_beginnings(policy: LanguageModel) -> None:
    """Rows whose beginning is computed once are scored as whole rows are."""
    ids = torch.arange(3, 3 + 3 * 40).reshape(3, 40) % policy.model.get_input_embeddings().weight.shape[0]
    ids[:2, :20] = ids[0, :20]
    real = torch.ones_like(ids, dtype=torch.bool)
    real[1, 33:] = False
    scored = real & (torch.arange(40) >= 22)
    shared = SharedRows(PrefixStore(policy.windows, policy.pad_id), [20, 20, 0])
    with torch.no_grad():
        whole = score_tokens(policy.model, ids, real, scored).log_probs
        again = score_tokens(policy.model, ids, real, scored, shared=shared).log_probs
    torch.testing.assert_close(again, whole, atol=1e-4, rtol=0)


def check_iteration(policy: LanguageModel, context: str) -> None:
    """The policy that plays is the one that is scored, and an empty context has no gap."""
    teacher = HintTeacher("")
    data = toy_datamodule(policy, tasks=2, context=context, group_size=2, teacher=teacher)
    data.collector.check_room(data.train_tasks[:2])
    module = toy_module(policy, teacher, context=context, episodes_per_step=4, learning_rate=1e-4)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        figures = train(module, data, 1).steps[0]
    assert figures["rollout/context_tokens_max"] > 0
    assert figures["train/approx_kl"] == 0.0
    assert figures["train/clip_fraction"] == 0.0
    assert figures["curriculum/gap_mean"] == figures["curriculum/gap_std"] == 0.0
