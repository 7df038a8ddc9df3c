"""Promises of the group ``optimizer``: each kind learns, resumes exactly, and has the learning rate it was given."""

from __future__ import annotations

import importlib.util
import itertools
import math
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import nn
from transformers import get_cosine_schedule_with_warmup, get_linear_schedule_with_warmup

from sdar.config.fields import Fraction, settings
from sdar.errors import UserError
from sdar.learning.optimizer import OptimizerSettings
from sdar.learning.optimizers import AdamW8bit, Muon, split_parameters
from sdar.policy.trainable import trainable
from sdar.run.identity import config_hash
from sdar.run.resume import check_checkpoint
from sdar.run.validate import compose
from toys.training import (
    HintTeacher,
    Memory,
    same_weights,
    toy_datamodule,
    toy_module,
    toy_policy,
    toy_trainer,
    weights,
)

STEPS = 2
"""Optimizer steps of a toy iteration."""
WHOLE = 4
"""Iterations of a whole run."""

needs_bitsandbytes = pytest.mark.skipif(
    importlib.util.find_spec("bitsandbytes") is None, reason="needs bitsandbytes: pip install 'sdar[quant]'"
)
needs_muon = pytest.mark.skipif(not hasattr(torch.optim, "Muon"), reason="needs torch >= 2.9")


@settings(frozen=True)
class Descent(OptimizerSettings):
    """An optimizer of a user's own: the bias-like parameters move at a tenth of the rate."""

    momentum: Fraction = 0.9

    def create(self, model: nn.Module) -> torch.optim.Optimizer:
        groups = [
            {"params": [p for p in trainable(model) if p.ndim > 1], "lr": self.learning_rate},
            {"params": [p for p in trainable(model) if p.ndim == 1], "lr": 0.1 * self.learning_rate},
        ]
        return torch.optim.SGD(groups, momentum=self.momentum, weight_decay=self.weight_decay)


KINDS = [
    pytest.param(OptimizerSettings, {}, id="adamw"),
    pytest.param(Muon, {}, id="muon", marks=needs_muon),
    pytest.param(AdamW8bit, {}, id="adamw_8bit", marks=needs_bitsandbytes),
    pytest.param(AdamW8bit, {"paged": True}, id="paged_adamw_8bit", marks=needs_bitsandbytes),
    pytest.param(Descent, {}, id="own"),
]


def fit(
    kind: type[OptimizerSettings] = OptimizerSettings,
    iterations: int = WHOLE,
    folder: Path | None = None,
    ckpt_path: Path | None = None,
    lora: dict[str, Any] | None = None,
    **given: Any,
) -> tuple[Any, Any, Memory]:
    """Trainer, module and what was logged; with a ``folder`` every iteration is saved in it."""
    policy, memory, teacher = toy_policy(lora=lora), Memory(), HintTeacher()
    module = toy_module(policy, teacher, optimizer_class=kind, **given)
    saving = [] if folder is None else [ModelCheckpoint(folder, "{epoch}", save_top_k=-1, save_on_train_epoch_end=True)]
    trainer = toy_trainer(iterations, logger=memory, callbacks=saving, enable_checkpointing=folder is not None)
    data = toy_datamodule(policy, teacher=teacher)
    trainer.fit(module, datamodule=data, ckpt_path=ckpt_path, weights_only=True)
    return trainer, module, memory


def rates(memory: Memory) -> list[float]:
    """The largest learning rate of each iteration."""
    return [figures["train/learning_rate"] for _, figures in sorted(memory.steps.items())]


# ------------------------------------------------------------------ the learning rate


@pytest.mark.parametrize(
    ("schedule", "oracle"), [("linear", get_linear_schedule_with_warmup), ("cosine", get_cosine_schedule_with_warmup)]
)
@pytest.mark.parametrize("warmup", [0, 1, 5])
def test_a_schedule_is_that_of_transformers_after_its_warm_up(schedule: Any, oracle: Any, warmup: int) -> None:
    iterations, steps = 6, 3
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    other = oracle(optimizer, warmup, iterations * steps)
    ours = OptimizerSettings(lr_schedule=schedule, warmup_steps=warmup)
    for number in range(iterations * steps):
        if number >= warmup:
            share = ours.decay(number // steps, number % steps, steps, iterations)
            assert share == pytest.approx(other.get_last_lr()[0], abs=1e-12)
        optimizer.step()
        other.step()


@pytest.mark.parametrize("schedule", ["linear", "cosine"])
def test_a_schedule_falls_from_one_to_its_end(schedule: Any) -> None:
    ours = OptimizerSettings(lr_schedule=schedule, lr_end=0.25, warmup_steps=4)
    shares = [ours.decay(i, step, 2, 10) for i in range(10) for step in range(2)]
    assert shares[:5] == [1.0] * 5
    assert all(later < earlier for earlier, later in itertools.pairwise(shares[4:]))
    assert ours.decay(10, 0, 2, 10) == ours.decay(12, 1, 2, 10) == 0.25
    assert ours.decay(6, 0, 2, 10) == pytest.approx(0.625), "half of the way, half of the fall"


def test_progress_is_counted_in_iterations_where_their_steps_differ() -> None:
    ours = OptimizerSettings(lr_schedule="linear")
    assert ours.decay(3, 0, 7, 4) == ours.decay(3, 0, 1, 4) == pytest.approx(0.25)
    assert ours.decay(3, 4, 8, 4) == pytest.approx(0.125)


def test_a_warm_up_that_outlasts_the_run_is_not_followed_by_a_fall() -> None:
    ours = OptimizerSettings(lr_schedule="cosine", warmup_steps=20)
    assert {ours.decay(i, step, 2, 10) for i in range(10) for step in range(2)} == {1.0}


@pytest.mark.parametrize("schedule", ["linear", "cosine"])
def test_a_run_has_the_learning_rate_of_its_schedule(schedule: Any) -> None:
    chosen: dict[str, Any] = {"learning_rate": 1e-3, "lr_schedule": schedule, "lr_end": 0.1, "warmup_steps": 2}
    _, _, memory = fit(**chosen)
    ours = OptimizerSettings(**chosen)
    warmed = [1e-3 * 2 / 3]  # the second of two steps
    fallen = [1e-3 * ours.decay(i, 0, STEPS, WHOLE) for i in range(1, WHOLE)]
    assert rates(memory) == pytest.approx(warmed + fallen)


def test_without_a_schedule_nothing_depends_on_the_length_of_the_run() -> None:
    (_, short, curve), (_, falling, _) = fit(iterations=1), fit(iterations=1, lr_schedule="linear")
    _, _, longer = fit(iterations=2)
    assert longer.curve()[0] == curve.curve()[0]
    assert rates(longer) == [3e-3, 3e-3]
    assert not same_weights(weights(short), weights(falling))


def test_a_schedule_needs_an_end() -> None:
    policy = toy_policy()
    module = toy_module(policy, distillation_coefficient=0.0, lr_schedule="linear")
    with pytest.raises(UserError, match=r"^optimizer\.lr_schedule=linear needs trainer\.max_epochs, got -1$"):
        toy_trainer(-1).fit(module, datamodule=toy_datamodule(policy))


def test_an_end_without_a_fall_is_refused() -> None:
    with pytest.raises(UserError, match=r"optimizer\.lr_end=0\.1 has no effect with optimizer\.lr_schedule=constant"):
        OptimizerSettings(lr_end=0.1)


def test_a_run_whose_rate_falls_to_its_end_is_another_with_another_end() -> None:
    def identity(*overrides: str) -> str:
        return config_hash(compose(list(overrides)).config)

    assert identity() == identity("trainer.max_epochs=3")
    falling = "optimizer.lr_schedule=linear"
    assert identity(falling) != identity(falling, "trainer.max_epochs=3")
    assert identity(falling) == identity(falling, "logs_dir=elsewhere")


# ------------------------------------------------------------------ resuming


@pytest.mark.parametrize("schedule", ["constant", "linear", "cosine"])
@pytest.mark.parametrize(("kind", "chosen"), KINDS)
def test_a_resumed_run_has_the_weights_of_the_run_that_was_not_stopped(
    kind: type[OptimizerSettings], chosen: dict[str, Any], schedule: str, tmp_path: Path
) -> None:
    given = {"lr_schedule": schedule, "warmup_steps": 3, **chosen}
    _, whole, curve = fit(kind, folder=tmp_path, **given)
    path = tmp_path / "epoch=1.ckpt"
    _, resumed, rest = fit(kind, ckpt_path=path, **given)
    assert same_weights(weights(whole), weights(resumed))
    assert rest.curve() == {step: figures for step, figures in curve.curve().items() if step >= 2}
    fresh = weights(toy_module(toy_policy(), HintTeacher()))
    assert not any(torch.equal(tensor, fresh[name]) for name, tensor in weights(whole).items())
    # What a run checks before it plays anything.
    other = toy_module(toy_policy(), HintTeacher(), optimizer_class=kind, **given)
    assert check_checkpoint(path, other, train=True, max_iterations=WHOLE).iterations == 2


@needs_muon
def test_muon_trains_adapters_and_resumes(tmp_path: Path) -> None:
    _, whole, _ = fit(Muon, folder=tmp_path, lora={"rank": 4})
    _, resumed, _ = fit(Muon, ckpt_path=tmp_path / "epoch=0.ckpt", lora={"rank": 4})
    assert same_weights(weights(whole), weights(resumed))


@needs_muon
def test_the_present_settings_win_over_those_of_the_checkpoint(tmp_path: Path) -> None:
    fit(Muon, iterations=1, folder=tmp_path, warmup_steps=4)
    present: dict[str, Any] = {"learning_rate": 1e-4, "weight_decay": 0.3, "lr_schedule": "linear", "lr_end": 0.5}
    muon: dict[str, Any] = {"momentum": 0.5, "nesterov": False, "ns_steps": 3}
    adamw: dict[str, Any] = {"betas": (0.5, 0.6), "eps": 1e-4}
    trainer, _, memory = fit(
        Muon, iterations=4, ckpt_path=tmp_path / "epoch=0.ckpt", warmup_steps=4, **present, **muon, **adamw
    )
    ours = Muon(warmup_steps=4, **present)
    assert rates(memory) == pytest.approx([1e-4 * 4 / 5, *(1e-4 * ours.decay(i, 0, STEPS, 4) for i in (2, 3))])
    hidden, others = trainer.optimizers[0].param_groups
    assert {name: hidden[name] for name in muon} == muon
    assert {name: others[name] for name in adamw} == adamw
    assert hidden["weight_decay"] == others["weight_decay"] == 0.3
    moments = [state for state in trainer.optimizers[0].state.values() if "step" in state]
    assert {int(state["step"]) for state in moments} == {4 * STEPS}, "moments are kept"


def test_groups_of_an_own_optimizer_keep_their_shares_of_the_present_rate(tmp_path: Path) -> None:
    fit(Descent, iterations=1, folder=tmp_path)
    trainer, _, _ = fit(Descent, iterations=2, ckpt_path=tmp_path / "epoch=0.ckpt", learning_rate=1e-2, momentum=0.5)
    groups = trainer.optimizers[0].param_groups
    assert [group["lr"] for group in groups] == pytest.approx([1e-2, 1e-3])
    assert [group["momentum"] for group in groups] == [0.5, 0.5]


@needs_muon
@pytest.mark.parametrize(("before", "now"), [(OptimizerSettings, Muon), (Muon, OptimizerSettings), (Muon, Descent)])
def test_another_kind_of_optimizer_is_refused_naming_both(
    before: type[OptimizerSettings], now: type[OptimizerSettings], tmp_path: Path
) -> None:
    fit(before, iterations=1, folder=tmp_path)
    path = tmp_path / "epoch=0.ckpt"
    sentence = rf"optimizer={before().name}, but this run has optimizer={now().name}"
    module = toy_module(toy_policy(), HintTeacher(), optimizer_class=now)
    for attempt in (
        lambda: fit(now, ckpt_path=path),
        lambda: check_checkpoint(path, module, train=True, max_iterations=WHOLE),
    ):
        with pytest.raises(UserError, match=sentence) as caught:
            attempt()
        assert "\n" not in str(caught.value)
    assert check_checkpoint(path, module, train=False, max_iterations=None).iterations == 0, "weights are weights"


def test_a_class_that_names_no_kind_goes_by_its_own_name() -> None:
    assert (OptimizerSettings().name, Muon().name, Descent().name) == ("adamw", "muon", "Descent")


def test_a_checkpoint_of_an_earlier_version_continues_with_adamw(tmp_path: Path) -> None:
    fit(iterations=1, folder=tmp_path)
    path = tmp_path / "epoch=0.ckpt"
    checkpoint = torch.load(path, weights_only=True)
    del checkpoint["sdar_optimizer"]
    torch.save(checkpoint, path)
    fit(iterations=2, ckpt_path=path)


# ------------------------------------------------------------------ Muon


@needs_muon
def test_matrices_of_hidden_layers_are_muons_and_all_else_is_adamws() -> None:
    model = toy_policy(layers=2).model
    hidden, others = split_parameters(model)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    assert {names[id(p)].split(".")[-2] for p in hidden} == {
        *("q_proj", "k_proj", "v_proj", "o_proj"),
        *("gate_proj", "up_proj", "down_proj"),
    }
    assert {"model.embed_tokens.weight", "model.norm.weight"} < {names[id(p)] for p in others}
    assert len(hidden) + len(others) == len(list(model.parameters()))


@needs_muon
def test_an_output_head_of_its_own_is_adamws() -> None:
    from transformers import GPT2Config, GPT2LMHeadModel

    model = GPT2LMHeadModel(GPT2Config(vocab_size=30, n_embd=8, n_layer=1, n_head=2, tie_word_embeddings=False))
    _, others = split_parameters(model)
    found = {id(parameter) for parameter in others}
    for part in (model.lm_head, model.transformer.wte, model.transformer.wpe):
        assert id(part.weight) in found


@needs_muon
def test_a_step_is_that_of_torchs_muon_and_adamw_side_by_side() -> None:
    chosen = Muon(learning_rate=1e-2, weight_decay=0.1, momentum=0.9, betas=(0.8, 0.9), eps=1e-6)
    ours, theirs = toy_policy().model, toy_policy().model
    optimizer = chosen.create(ours)
    hidden, others = split_parameters(theirs)
    apart = [
        torch.optim.Muon(hidden, lr=1e-2, weight_decay=0.1, momentum=0.9, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(others, lr=1e-2, weight_decay=0.1, betas=(0.8, 0.9), eps=1e-6),
    ]
    for number in range(3):
        for model in (ours, theirs):
            torch.manual_seed(number)
            for parameter in model.parameters():
                parameter.grad = torch.randn_like(parameter)
        optimizer.step()
        for each in apart:
            each.step()
    assert same_weights(ours.state_dict(), theirs.state_dict())


@needs_muon
def test_a_step_of_muon_has_the_size_of_adamws() -> None:
    """The same learning rate suits both parts (arXiv 2502.16982): root mean squares of 0.2 times the rate."""
    model = nn.Sequential(nn.Linear(64, 96, bias=False))
    optimizer = Muon(learning_rate=1e-2, weight_decay=0.0).create(model)
    before = model[0].weight.detach().clone()
    model[0].weight.grad = torch.randn(96, 64, generator=torch.Generator().manual_seed(0))
    optimizer.step()
    moved = (model[0].weight.detach() - before).square().mean().sqrt()
    assert 0.1e-2 < float(moved) < 0.3e-2


@needs_muon
def test_a_model_without_hidden_matrices_is_refused() -> None:
    with pytest.raises(UserError, match="optimizer=muon: no hidden layer has a matrix that is trained"):
        Muon().create(nn.Sequential(nn.Embedding(4, 2), nn.LayerNorm(2)))


def test_a_torch_without_muon_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(torch.optim, "Muon", raising=False)
    with pytest.raises(UserError, match=r"optimizer=muon needs torch >= 2\.9, got "):
        Muon().check_available()


# ------------------------------------------------------------------ 8-bit moments


@needs_bitsandbytes
def test_large_parameters_have_8_bit_moments() -> None:
    trainer, module, _ = fit(AdamW8bit, iterations=1)
    states = trainer.optimizers[0].state
    for parameter in trainable(module.model):
        expected = torch.uint8 if parameter.numel() >= 4096 else torch.float32
        assert states[parameter]["state1"].dtype == states[parameter]["state2"].dtype == expected
    assert module.model.get_input_embeddings().weight.numel() >= 4096


@needs_bitsandbytes
def test_paging_may_change_when_a_run_continues(tmp_path: Path) -> None:
    _, whole, _ = fit(AdamW8bit, folder=tmp_path)
    _, resumed, _ = fit(AdamW8bit, ckpt_path=tmp_path / "epoch=1.ckpt", paged=True)
    assert same_weights(weights(whole), weights(resumed))


@pytest.mark.parametrize("choice", ["adamw_8bit", "paged_adamw_8bit"])
def test_without_bitsandbytes_the_extra_is_named(choice: str, monkeypatch: pytest.MonkeyPatch) -> None:
    optimizer = compose([f"optimizer={choice}"]).optimizer
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    sentence = rf"^optimizer={choice} needs bitsandbytes, which is not installed: pip install 'sdar\[quant\]'$"
    for attempt in (optimizer.check_available, lambda: optimizer.create(nn.Linear(2, 2))):
        with pytest.raises(UserError, match=sentence):
            attempt()


# ------------------------------------------------------------------ the group


@pytest.mark.parametrize(
    ("choice", "kind"),
    [("adamw", OptimizerSettings), ("adamw_8bit", AdamW8bit), ("paged_adamw_8bit", AdamW8bit), ("muon", Muon)],
)
def test_every_choice_takes_the_settings_that_all_share(choice: str, kind: type[OptimizerSettings]) -> None:
    shared = ["optimizer.learning_rate=3e-5", "optimizer.episodes_per_step=12", "optimizer.lr_schedule=cosine"]
    found = compose([f"optimizer={choice}", *shared]).optimizer
    assert type(found) is kind
    common = replace(OptimizerSettings(), learning_rate=3e-5, episodes_per_step=12, lr_schedule="cosine")
    for field in fields(OptimizerSettings):
        assert getattr(found, field.name) == getattr(common, field.name), field.name


@pytest.mark.parametrize("choice", ["muon", "adamw_8bit", "paged_adamw_8bit"])
def test_what_cannot_be_sharded_is_refused(choice: str) -> None:
    name = choice.removeprefix("paged_")
    with pytest.raises(UserError, match=rf"^optimizer={name} needs whole weights and gradients, .*trainer=ddp$"):
        compose([f"optimizer={choice}", "trainer=fsdp2", "trainer.accelerator=cpu"])
    compose([f"optimizer={choice}", "trainer=ddp", "trainer.accelerator=cpu"])


@pytest.mark.parametrize(
    ("override", "told"),
    [
        ("optimizer.lr_schedule=step", "optimizer.lr_schedule must be 'constant' or 'linear' or 'cosine', got 'step'"),
        ("optimizer.lr_end=1.5", "optimizer.lr_end must be a number >= 0 and <= 1, got 1.5"),
        ("optimizer.ns_steps=5", "did you mean optimizer.warmup_steps"),
        ("optimizer=muonn", "did you mean muon"),
    ],
)
def test_mistakes_are_told(override: str, told: str) -> None:
    with pytest.raises(UserError) as caught:
        compose([override])
    assert told in str(caught.value)


def test_a_step_of_the_schedule_is_never_zero_inside_a_run() -> None:
    for schedule in ("linear", "cosine"):
        ours = OptimizerSettings(lr_schedule=schedule)
        assert all(ours.decay(i, step, 3, 5) > 0 for i in range(5) for step in range(3))
        assert math.isclose(ours.decay(5, 0, 3, 5), 0.0, abs_tol=1e-12)
