"""What Lightning offers beside a fit is refused in a sentence, and a resumed optimizer has the present settings."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from sdar.errors import UserError
from sdar.learning.module import SDARModule
from toys.training import Memory, toy_datamodule, toy_module, toy_policy, toy_trainer


@pytest.mark.parametrize("word", ["validate", "test", "predict"])
def test_other_words_than_fit_name_what_to_use(word: str) -> None:
    policy = toy_policy()
    module, data = toy_module(policy, distillation_coefficient=0.0), toy_datamodule(policy)
    with pytest.raises(UserError, match=rf"^Trainer\.{word} .*PanelEvaluation") as caught:
        getattr(toy_trainer(1), word)(module, datamodule=data)
    assert "\n" not in str(caught.value)


def test_load_from_checkpoint_names_what_to_use(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"load_from_checkpoint .*load_student"):
        SDARModule.load_from_checkpoint(tmp_path / "last.ckpt")


def fit(iterations: int, ckpt_path: Path | None = None, **settings: Any) -> tuple[Any, Memory]:
    policy, memory = toy_policy(), Memory()
    module = toy_module(policy, distillation_coefficient=0.0, warmup_steps=4, **settings)
    trainer = toy_trainer(iterations, logger=memory)
    trainer.fit(module, datamodule=toy_datamodule(policy), ckpt_path=ckpt_path, weights_only=True)
    return trainer, memory


def test_a_resumed_run_takes_the_present_settings_of_the_optimizer(tmp_path: Path) -> None:
    path = tmp_path / "one.ckpt"
    fit(1)[0].save_checkpoint(path)
    present: dict[str, Any] = {"learning_rate": 1e-4, "weight_decay": 0.3, "betas": (0.5, 0.6), "eps": 1e-4}
    trainer, memory = fit(3, path, **present)
    # Two steps an iteration: the third and fourth of a warm-up over four.
    assert memory.steps[1]["train/learning_rate"] == pytest.approx(1e-4 * 4 / 5)
    assert memory.steps[2]["train/learning_rate"] == pytest.approx(1e-4)
    (group,) = trainer.optimizers[0].param_groups
    assert {"learning_rate": group["lr"], **{name: group[name] for name in list(present)[1:]}} == present
    assert {int(state["step"]) for state in trainer.optimizers[0].state.values()} == {6}, "moments are kept"
