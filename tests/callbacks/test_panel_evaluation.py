from __future__ import annotations

import pytest
from lightning import Callback
from lightning.pytorch.callbacks import ModelCheckpoint

from sdar.callbacks.evaluation import PanelEvaluation
from sdar.callbacks.tensorboard import Curves
from sdar.evaluation.panel import make_panel
from sdar.evaluation.record import PanelRecords
from sdar.rollout.collector import Collector
from toys.boards import read
from toys.training import (
    HintTeacher,
    LettersEnvironment,
    same_weights,
    toy_datamodule,
    toy_module,
    toy_policy,
    toy_rollout,
    toy_trainer,
    train,
    weights,
)


def panel_evaluation(policy, environment=None, **settings):
    size = 6 if environment is None else 9
    environment = environment or LettersEnvironment()
    collector = Collector(policy, environment, toy_rollout(temperature=0.4))
    settings = {"seed": 0, "every_n_iterations": 2, "privileged": HintTeacher().privileged_text} | settings
    return PanelEvaluation(collector, make_panel(environment, "valid", size, 0), **settings)


def run(with_evaluation=True, iterations=3, callbacks=(), **settings):
    policy = toy_policy()
    evaluation = panel_evaluation(policy, **settings)
    module = toy_module(policy, HintTeacher())
    memory = train(
        module,
        toy_datamodule(policy),
        iterations,
        callbacks=[evaluation, *callbacks] if with_evaluation else [],
        enable_checkpointing=bool(callbacks),
    )
    return module, memory.curve(), evaluation


def test_it_plays_before_during_and_after_training():
    _, curve, evaluation = run()
    assert list(evaluation.results) == [0, 2, 3]
    for step in (0, 2, 3):
        for prefix in ("val", "val_with_skills"):
            figures = curve[step]
            assert figures[f"{prefix}/n"] == 6
            assert (
                figures[f"{prefix}/interval_low"]
                <= figures[f"{prefix}/success_rate"]
                <= figures[f"{prefix}/interval_high"]
            )
        assert {f"val/success_rate/type {i}" for i in range(3)} <= set(figures)
    assert "val/success_rate" not in curve[1]


def test_evaluation_cannot_disturb_training():
    disturbed, disturbed_curve, _ = run()
    alone, curve, _ = run(with_evaluation=False)
    assert same_weights(weights(disturbed), weights(alone))
    for step, figures in curve.items():
        assert {name: disturbed_curve[step][name] for name in figures} == figures


def test_a_recorded_panel_changes_nothing_but_the_time(tmp_path, capsys):
    """Figures, weights and curve are those of a run that played it, to the last bit."""
    alone, curve, played = run(iterations=2)
    records = PanelRecords(tmp_path, {})
    for recorded in (False, True):
        module, found, evaluation = run(iterations=2, records=records)
        assert same_weights(weights(module), weights(alone))
        assert found == curve
        assert evaluation.results == played.results
        episodes = [result.episodes for result in evaluation.results[0]]
        assert episodes == [result.episodes for result in played.results[0]]
        line = "val and val_with_skills: these weights have played the panel in an earlier run"
        assert (line in capsys.readouterr().out) == recorded
    assert len(list(tmp_path.iterdir())) == 2  # later weights are not recorded


def test_a_resumed_run_has_the_results_of_its_earlier_parts(tmp_path):
    saved = ModelCheckpoint(dirpath=tmp_path, save_last=True, every_n_epochs=1, save_on_train_epoch_end=True)
    _, _, whole = run(iterations=4)
    _, _, first = run(iterations=2, callbacks=[saved])

    def resumed(**settings):
        policy = toy_policy()
        evaluation = panel_evaluation(policy, **settings)
        train(
            toy_module(policy, HintTeacher()),
            toy_datamodule(policy),
            4,
            callbacks=[evaluation],
            ckpt_path=tmp_path / "last.ckpt",
        )
        return evaluation

    second = resumed()
    assert second.results == whole.results
    assert second.seconds[2] == first.seconds[2]
    assert sorted(second.seconds.values()) == [second.seconds[learned] for learned in (0, 2, 4)]
    assert second.trained_for > second.seconds[4]
    # played on other terms, the earlier results would not belong to the same curve
    assert list(resumed(seed=1).results) == [4]


def test_a_resumed_run_goes_on_to_show_the_last_panel_first(tmp_path):
    saved = ModelCheckpoint(dirpath=tmp_path, save_last=True, every_n_epochs=1, save_on_train_epoch_end=True)
    _, curve, _ = run(iterations=3, callbacks=[saved])
    policy = toy_policy()
    curves = Curves(str(tmp_path), version="tensorboard")
    evaluation = panel_evaluation(policy, every_n_iterations=9)
    trainer = toy_trainer(5, logger=curves, callbacks=[evaluation])
    module = toy_module(policy, HintTeacher())
    trainer.fit(module, datamodule=toy_datamodule(policy), ckpt_path=tmp_path / "last.ckpt", weights_only=True)
    curves.finalize("success")
    shown = {event.step: event.value for event in read(tmp_path).Scalars("at_a_glance/success_rate")}
    assert shown[4] == pytest.approx(curve[3]["val/success_rate"])


def test_it_can_leave_out_the_start_and_the_skills():
    _, _, evaluation = run(before=False, privileged=None, iterations=2)
    assert list(evaluation.results) == [2]
    assert [result.name for result in evaluation.results[2]] == ["val"]


def test_a_checkpoint_can_monitor_the_success_rate(tmp_path):
    best = ModelCheckpoint(
        dirpath=tmp_path, monitor="val/success_rate", mode="max", every_n_epochs=2, save_on_train_epoch_end=True
    )
    _, curve, _ = run(iterations=4, callbacks=[best])
    assert float(best.best_model_score) == pytest.approx(
        max(curve[step]["val/success_rate"] for step in (2, 4)), abs=1e-6
    )


class Watching(Callback):
    """Keeps what may be monitored after each iteration."""

    def __init__(self):
        self.seen = []

    def on_train_epoch_end(self, trainer, pl_module):
        self.seen.append("val/success_rate" in trainer.callback_metrics)


@pytest.mark.parametrize("broken", [False, True])
def test_an_evaluation_with_errors_is_told_and_chooses_no_checkpoint(broken, capsys):
    policy, watching = toy_policy(), Watching()
    evaluation = panel_evaluation(policy, LettersEnvironment(broken=broken), before=False, privileged=None)
    curve = train(
        toy_module(policy, distillation_coefficient=0), toy_datamodule(policy), 2, callbacks=[evaluation, watching]
    ).curve()
    assert evaluation.results[2][0].errors == broken
    assert curve[2]["val/n"] == 9 - broken
    assert ("1 ended by an error" in capsys.readouterr().out) == broken
    assert watching.seen == [False, not broken]
