"""A model that would sample, score and learn different probabilities is refused, or used only as far as it does not."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from transformers import Gemma3Config, Gemma3ForConditionalGeneration, PreTrainedModel
from transformers.models.qwen3.modeling_qwen3 import Qwen3DecoderLayer
from transformers.utils import chat_template_utils

from policy.test_encoding import chat_of
from sdar.environments.slots import tagged_action
from sdar.errors import UserError
from sdar.policy import admission
from sdar.policy.chat import ChatFormat
from sdar.policy.dropout import remove_dropout
from sdar.policy.generation import TurnGenerator
from sdar.policy.language_model import LanguageModel, hf_model
from sdar.policy.log_probs import score_tokens
from sdar.policy.lora import LoraSettings
from sdar.policy.sampling import TokenSampler
from sdar.rollout.conversation import AppendConversation, WindowConversation
from toys.chat_templates import BY_NAME as STRUCTURES
from toys.families import BY_NAME as FAMILIES
from toys.families import VOCABULARY, WINDOW
from toys.matrix import check_iteration, save_tokenizer, save_weights
from toys.models import save_tiny, tiny_random_model

PLAYING = [family for family in FAMILIES.values() if family.refusal is None]
WITH_ENDS = STRUCTURES["llama3"]


def load(folder: Path, family: str, structure: str = "chatml", **settings: Any) -> LanguageModel:
    return hf_model(str(save_tokenizer(save_weights(folder, FAMILIES[family]), STRUCTURES[structure])), **settings)


class Recorder(TokenSampler):
    seen: list[Tensor]

    def sample(self, logits: Tensor, uniforms: Tensor) -> Tensor:
        tokens = super().sample(logits, uniforms)
        self.seen.append(logits.log_softmax(-1).gather(-1, tokens[:, None])[:, 0])
        return tokens


@pytest.mark.parametrize("family", PLAYING, ids=lambda family: family.name)
def test_sampled_log_probs_are_those_of_the_models_own_forward_pass(family: Any) -> None:
    """Rows of different lengths, beyond every window, turn after turn; each row alone without a cache."""
    model = family.model(seed=1)
    remove_dropout(model)
    limits = admission.position_limits(model.config.get_text_config(), 10**9)
    admitted = admission.admit(model, [[5, 6, 7], [8, 9]], 2, limits, "it")
    assert admitted.context_tokens == family.context
    generator = TurnGenerator(model, pad_id=0, end_ids=(), max_response_tokens=4, windows=admitted.windows)
    generator.sampler = recorder = Recorder()
    generator.start(2)
    rng = np.random.default_rng(0)
    rows: list[list[int]] = [[], []]
    longest = min(family.context, 3 * WINDOW) - 40
    for sizes in ((longest, 5), (3, WINDOW // 2), (20, 1)):
        blocks = {slot: rng.integers(3, VOCABULARY, size).tolist() for slot, size in enumerate(sizes)}
        recorder.seen = []
        answers = generator.respond(blocks, {slot: rng.random(4) for slot in range(2)})
        for slot, answer in answers.items():
            rows[slot] += [*blocks[slot], *answer]
            with torch.no_grad():
                logits = model(input_ids=torch.tensor([rows[slot]]), use_cache=False).logits[0, -5:-1].float()
            own = logits.log_softmax(-1).gather(-1, torch.tensor(answer)[:, None])[:, 0]
            torch.testing.assert_close(torch.stack(recorder.seen)[:, slot], own, atol=1e-4, rtol=0)


def test_longrope_ends_the_context_where_its_embeddings_change(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    policy = load(tmp_path, "phi3_longrope")
    assert policy.context_tokens == 160
    assert "has a context of 160 tokens here, because its position embeddings change" in caplog.text
    ids = torch.arange(3, 203)[None]
    real = torch.ones_like(ids, dtype=torch.bool)
    mask = real & (torch.arange(200) > 0)

    def beside(width: int) -> Tensor:
        with torch.no_grad():
            return score_tokens(policy.model, ids[:, :width], real[:, :width], mask[:, :width]).log_probs[0, 1:50]

    torch.testing.assert_close(beside(50), beside(160), atol=1e-5, rtol=0)
    assert (beside(50) - beside(161)).abs().max() > 0.01


def test_positions_that_always_depend_on_the_row_beside_are_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    rotary = type(tiny_random_model().model.rotary_emb)
    forward = rotary.forward

    def stretched(self: Any, x: Tensor, position_ids: Tensor) -> Any:
        return forward(self, x, position_ids * (1.0 + float(position_ids.max()) / 100))

    monkeypatch.setattr(rotary, "forward", stretched)
    with pytest.raises(
        UserError, match=r"cannot be used up to any length .* \(2048 tokens\): log-probs of a row depend"
    ):
        hf_model(str(save_tiny(tmp_path)))


def test_a_window_that_is_too_long_to_check_ends_the_context(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(admission, "MOST_WORK", 0.0)
    assert load(tmp_path, "mistral").context_tokens == WINDOW
    assert (
        f"has a context of {WINDOW} tokens here, because sampled and scored log-probs could not be shown" in caplog.text
    )


def test_a_large_model_shows_its_windows_by_the_first_layers_of_each_kind(monkeypatch: pytest.MonkeyPatch) -> None:
    model = FAMILIES["mistral"].model()
    numbers = sum(parameter.numel() for parameter in model.parameters())
    monkeypatch.setattr(admission, "MOST_WORK", 2.0 * numbers * 4 * (WINDOW + 24) - 1)
    before = [id(layer) for layer in model.model.layers]
    limits = admission.position_limits(model.config.get_text_config(), 10**9)
    admitted = admission.admit(model, [[5, 6, 7], [8, 9]], 2, limits, "it")
    assert admitted.context_tokens == 512
    assert [id(layer) for layer in model.model.layers] == before
    assert model.config.num_hidden_layers == len(before) == 2


def test_a_window_at_the_end_of_the_context_becomes_its_end(caplog: pytest.LogCaptureFixture, tmp_path: Path) -> None:
    """Longer rows would be played that nothing was shown about."""
    FAMILIES["mistral"].model(sliding_window=500).save_pretrained(tmp_path)
    assert hf_model(str(save_tokenizer(tmp_path, STRUCTURES["chatml"]))).context_tokens == 500
    assert "has a context of 500 tokens here" in caplog.text


def test_a_wrong_window_is_found(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Were the rollouts' masks one token off, the model would be used within its window alone."""
    exact = admission.candidates

    def off_by_one(config: Any) -> Any:
        for way in exact(config):
            yield type(way)({kind: size and size + 1 for kind, size in way.sizes.items()}, way.by_kind)

    monkeypatch.setattr(admission, "candidates", off_by_one)
    assert load(tmp_path, "mistral").context_tokens == WINDOW


def test_recomputed_layers_that_compute_something_else_are_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    forward = Qwen3DecoderLayer.forward

    def shifted(self: Any, hidden: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        return forward(self, hidden, *args, **kwargs) + (0.1 if self.training else 0.0)

    monkeypatch.setattr(Qwen3DecoderLayer, "forward", shifted)
    folder = str(save_tiny(tmp_path))
    hf_model(folder)
    with pytest.raises(
        UserError, match=r"computes other log-probs with model\.gradient_checkpointing=true than without"
    ):
        hf_model(folder, gradient_checkpointing=True)


@pytest.mark.parametrize("family", ["gpt2", "opt", "starcoder2", "phimoe", "gpt_oss", "gemma3_text"])
def test_recomputed_layers_drop_nothing_in_any_family(family: str, tmp_path: Path) -> None:
    """GPT-2 and StarCoder2 drop in the attention function, PhiMoE adds noise to its routers in training mode."""
    policy = load(tmp_path, family, gradient_checkpointing=True)
    check_iteration(policy, "append")


@pytest.mark.parametrize("family", ["phimoe", "llama4_text", "mixtral", "qwen3_moe", "gpt2", "jetmoe"])
def test_new_adapters_leave_a_family_as_it_was(family: str, tmp_path: Path) -> None:
    check_iteration(load(tmp_path, family, lora=LoraSettings(rank=2)), "append")


def test_adapters_that_change_the_model_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from peft.tuners.lora import Linear

    monkeypatch.setattr(Linear, "forward", lambda self, x, *_, **__: self.base_layer(x) * 1.5)
    with pytest.raises(
        UserError, match=r"does not work with model\.lora\.target_modules=all-linear: the scores are no"
    ):
        load(tmp_path, "llama", lora=LoraSettings(rank=2))


def test_the_text_part_of_a_multimodal_model_plays(tmp_path: Path) -> None:
    text = FAMILIES["gemma3_text"].config().to_dict()
    vision = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    sizes = {"image_size": 28, "patch_size": 14}
    config = Gemma3Config(text_config=text, vision_config=vision | sizes, mm_tokens_per_image=4)
    Gemma3ForConditionalGeneration(config).save_pretrained(tmp_path)
    policy = hf_model(str(save_tokenizer(tmp_path, STRUCTURES["gemma"])))
    assert policy.windows.limits == [WINDOW]
    for context in ("append", "window"):
        check_iteration(policy, context)


def test_every_end_token_of_the_model_ends_a_response(tmp_path: Path) -> None:
    policy = load(tmp_path, "llama", "llama3")
    tokenizer = policy.tokenizer
    ends = [tokenizer.convert_tokens_to_ids(text) for text in WITH_ENDS.stops]
    assert policy.chat.end_ids == set(ends)
    assert policy.chat.end_id == ends[0]
    for end in ends:
        assert policy.chat.decode([*tokenizer.encode("go", add_special_tokens=False), end]) == "go"
        # Drawn where a response may have eight tokens, it is the last one.
        generator = TurnGenerator(always(end), pad_id=0, end_ids=policy.chat.end_ids, max_response_tokens=8)
        generator.start(1)
        assert generator.respond({0: [5]}, {0: np.full(8, 0.5)}) == {0: [end]}


def always(token: int) -> PreTrainedModel:
    """A model whose every next token is this one."""
    model = tiny_random_model(vocab_size=VOCABULARY)
    head = torch.nn.Linear(32, VOCABULARY)
    with torch.no_grad():
        head.weight.zero_()
        head.bias.fill_(-1e4)
        head.bias[token] = 1e4
    model.set_output_embeddings(head)
    return model


def test_another_end_token_is_followed_by_the_templates_own_which_was_not_sampled() -> None:
    chat = chat_of("llama3")
    own, other, _ = (chat.tokenizer.convert_tokens_to_ids(text) for text in WITH_ENDS.stops)
    for last, fed in ((own, []), (other, [own]), (77, [own])):
        conversation = AppendConversation(chat)
        text, cut = conversation.record(conversation.prompt("one"), [*chat.privileged("go"), last])
        assert (text == "go", cut) == (last != 77, last == 77)
        assert conversation.prompt("two").ids == [*fed, *chat.between("two")]


@pytest.mark.parametrize("name", ["llama3.1", "smollm3", "mistral_tekken", "granite", "harmony"])
def test_ids_do_not_depend_on_the_clock(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    tokenizer = STRUCTURES[name].tokenizer()
    found = []
    for year in (1999, 2031):
        monkeypatch.setattr(chat_template_utils, "datetime", _clock(year))
        chat = ChatFormat.from_tokenizer(tokenizer)
        found.append([chat.opening("go")[0], chat.first, chat.later, chat.end_id])
    assert found[0] == found[1]
    assert "2026" in chat.first.before


def _clock(year: int) -> Any:
    import datetime

    class Clock(datetime.datetime):
        @classmethod
        def now(cls, tz: Any = None) -> Any:
            return datetime.datetime(year, 7, 14, tzinfo=tz)

    return Clock


@pytest.mark.parametrize("name", ["deepseek_r1_distill", "qwen3_thinking"])
def test_a_thought_that_the_prompt_opens_counts_as_opened(name: str) -> None:
    chat = chat_of(name)
    response = "I look around.</think><action>go to desk 2</action>"
    for kind in (WindowConversation, AppendConversation):
        conversation = kind(chat)
        for text in ("one", "two"):
            prompt = conversation.prompt(text)
            assert prompt.thought == "<think>"
            assert tagged_action(prompt.thought + response, 20).valid
            conversation.record(prompt, [*chat.privileged(response), chat.end_id])


@pytest.mark.parametrize("name", ["qwen3", "chatml", "glm4.5", "deepseek_v3.1"])
def test_no_other_prompt_opens_a_thought(name: str) -> None:
    chat = chat_of(name)
    prompt = WindowConversation(chat).prompt("one")
    assert prompt.thought == ""
    assert not tagged_action(prompt.thought + "no thought</think><action>go</action>", 20).valid


def test_a_remark_is_one_line(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        load(tmp_path, "gpt_neo")
    (remark,) = [record.message for record in caplog.records if "has a context of" in record.message]
    assert "\n" not in remark
    assert remark.startswith("model.name: ")
