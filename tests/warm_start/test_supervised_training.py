"""Supervised training: the weighted loss, and that a few steps lower it."""

import pytest
import torch
from torch.nn.functional import log_softmax

import sdar.warm_start.train as warm_start_training
from sdar.errors import UserError
from sdar.policy.chat import ChatFormat
from sdar.policy.tiny import PAD, build_model, build_tokenizer
from sdar.warm_start.demonstrations import Demonstration, DemonstrationStream
from sdar.warm_start.domains import load_domain
from sdar.warm_start.settings import WarmStartSettings
from sdar.warm_start.train import train_warm_start, weighted_loss

DOMAIN = load_domain("alfworld")


def small_model(vocabulary=60, seed=0):
    return build_model(vocabulary, seed=seed, pad_id=0, end_id=3)


def collate(*rows):
    longest = max(len(ids) for ids, _ in rows)
    ids = torch.tensor([ids + [0] * (longest - len(ids)) for ids, _ in rows])
    return ids, torch.tensor([weights + [0.0] * (longest - len(weights)) for _, weights in rows])


ROWS = ([5, 9, 7, 3], [0.0, 1.0, 0.0, 1.0]), ([8, 6, 11, 12, 13, 3], [0.0, 0.0, 0.2, 0.2, 1.0, 0.0])


def test_the_loss_is_the_weighted_mean_of_negative_log_likelihoods():
    model = small_model()
    total, weight = 0.0, 0.0
    for ids, weights in ROWS:
        scores = log_softmax(model(torch.tensor([ids])).logits[0].detach().float(), dim=-1)
        for position in range(1, len(ids)):
            total -= weights[position] * float(scores[position - 1, ids[position]])
            weight += weights[position]
    assert weighted_loss(model, *collate(*ROWS)).item() == pytest.approx(total / weight, rel=1e-5)


def test_what_weighs_nothing_does_not_move_the_loss():
    model = small_model()
    changed = [8, 6, 11, 12, 13, 44], ROWS[1][1]
    expected = weighted_loss(model, *collate(*ROWS))
    torch.testing.assert_close(weighted_loss(model, *collate(ROWS[0], changed)), expected)


class Endless:
    """The same demonstrations, repeated."""

    def __init__(self, rows):
        self._rows = rows

    def __getitem__(self, index):
        return Demonstration(*self._rows[index % len(self._rows)])


def test_two_steps_lower_the_loss():
    model = small_model()
    losses = []
    settings = WarmStartSettings(steps=2, batch_size=2, warm_up_steps=0, learning_rate=1e-2)
    before = weighted_loss(model, *collate(*ROWS)).item()
    train_warm_start(model, Endless(ROWS), settings, 0, 0, lambda step, loss, _: losses.append((step, loss)))
    assert [step for step, _ in losses] == [1, 2]
    assert losses[1][1] < losses[0][1]
    assert weighted_loss(model, *collate(*ROWS)).item() < before
    assert not model.training


def test_training_repeats_itself():
    settings = WarmStartSettings(steps=3, batch_size=2, warm_up_steps=1)
    models = [small_model(), small_model()]
    for model in models:
        train_warm_start(model, Endless(ROWS), settings, 0, 0, lambda *_: None)
    for one, other in zip(*(model.parameters() for model in models), strict=True):
        assert torch.equal(one, other)


def test_a_tiny_model_learns_from_real_demonstrations():
    texts = list(DemonstrationStream(DOMAIN, None, seed=0, max_turns=6).texts(40))
    tokenizer = build_tokenizer(texts, DOMAIN.phrases, 600)
    chat = ChatFormat.from_tokenizer(tokenizer)
    model = build_model(len(tokenizer), seed=0, pad_id=tokenizer.convert_tokens_to_ids(PAD), end_id=chat.end_id)
    demonstrations = DemonstrationStream(DOMAIN, chat, seed=0, max_turns=6)
    losses = []
    settings = WarmStartSettings(steps=8, batch_size=2, warm_up_steps=2)
    train_warm_start(model, demonstrations, settings, 0, 0, lambda _, loss, __: losses.append(loss))
    assert sum(losses[-2:]) < sum(losses[:2]) - 1.0


def test_models_are_equal_for_equal_seeds_and_small():
    one, same, other = small_model(), small_model(), small_model(seed=1)
    weights = [next(model.parameters()) for model in (one, same, other)]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])
    assert 0.4e6 < sum(p.numel() for p in small_model(vocabulary=1024).parameters()) < 1.5e6


def test_any_text_can_be_encoded_and_read_back():
    tokenizer = build_tokenizer(["You see a mug 1."], DOMAIN.phrases, 400)
    for text in ("You see a mug 1.", "Żółć ☕ \n\t <|end|>", "<think>x</think><action>go to desk 1</action>"):
        ids = tokenizer.encode(text, add_special_tokens=False, split_special_tokens=True)
        assert tokenizer.decode(ids, skip_special_tokens=False) == text


def test_a_processor_without_bfloat16_products_is_not_made_to_emulate_them(monkeypatch):
    """Emulated products are several times slower than float32 ones."""
    dtypes = []

    def loss(model, ids, weights):
        dtypes.append(torch.is_autocast_enabled("cpu"))
        return weighted_loss(model, ids, weights)

    monkeypatch.setattr(warm_start_training, "weighted_loss", loss)
    for native, products, autocast in [(False, "auto", False), (True, "auto", True), (True, "float32", False)]:
        monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda native=native: native)
        settings = WarmStartSettings(steps=1, batch_size=2, warm_up_steps=0, products=products)
        train_warm_start(small_model(), Endless(ROWS), settings, 0, 0, lambda *_: None)
        assert dtypes.pop() is autocast


def test_products_of_another_format_are_refused():
    with pytest.raises(UserError, match=r"training\.products must be auto, bfloat16 or float32, got half"):
        WarmStartSettings(products="half")
