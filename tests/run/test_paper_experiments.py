"""The experiment files of the paper: every value of its scripts, checked, and built up to the weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from sdar.commands.train import main
from sdar.config.compose import compose_config
from sdar.config.sources import config_folder, groups
from sdar.errors import UserError
from sdar.run.assembly import assemble
from sdar.run.settings import RunSettings
from sdar.run.validate import compose
from toys.models import save_tiny

MODELS = {
    "paper/alfworld_qwen2_5_3b": "Qwen/Qwen2.5-3B-Instruct",
    "paper/alfworld_qwen2_5_7b": "Qwen/Qwen2.5-7B-Instruct",
    "paper/alfworld_qwen3_1_7b": "Qwen/Qwen3-1.7B",
}

SCRIPTS: dict[str, Any] = {
    "rollout.tasks_per_iteration": 16,
    "rollout.group_size": 8,
    "environment.max_turns": 50,
    "environment.prompt_style": "full",
    "environment.list_actions": True,
    "rollout.context": "window",
    "rollout.history_turns": 2,
    "rollout.max_prompt_tokens": 2048,
    "rollout.sampling.max_response_tokens": 512,
    "rollout.sampling.temperature": 1.0,
    "rollout.sampling.top_p": 1.0,
    "rollout.sampling.top_k": 0,
    "optimizer.rows_per_step": 256,
    "optimizer.episodes_per_step": None,
    "optimizer.learning_rate": 1e-6,
    "optimizer.warmup_steps": 0,
    "optimizer.weight_decay": 0.01,
    "optimizer.max_grad_norm": 1.0,
    "model.gradient_checkpointing": True,
    "model.enable_thinking": False,
    "algorithm.objective.policy_coefficient": 1.0,
    "algorithm.objective.clip_low": 0.2,
    "algorithm.objective.clip_high": 0.2,
    "algorithm.objective.dual_clip": 3.0,
    "algorithm.objective.kl_coefficient": 0.01,
    "algorithm.objective.kl_kind": "k3",
    "algorithm.objective.entropy_coefficient": 0.001,
    "algorithm.advantage.invalid_penalty": 0.1,
    "evaluation.split": "valid_seen",
    "evaluation.panel_size": 128,
    "evaluation.every_n_iterations": 5,
    "evaluation.seed": 1000,
    "evaluation.sampling.temperature": 0.4,
    "callbacks.checkpoint.keep": 2,
    "callbacks.checkpoint.every_n_iterations": 5,
    "trainer.max_epochs": 150,
    "seed": 0,
}
"""ALFWorld's column of the released scripts, and what they have in common."""

WEBSHOP = SCRIPTS | {
    "environment.max_turns": 15,
    "environment.use_small": True,
    "environment.human_goals": False,
    "rollout.max_prompt_tokens": 4096,
    "optimizer.rows_per_step": 64,
    "evaluation.split": "test",
}
"""WebShop's column."""

SEARCH_QA = {name: value for name, value in SCRIPTS.items() if name != "environment.list_actions"} | {
    "rollout.tasks_per_iteration": 128,
    "environment.max_turns": 4,
    "environment.top_k": 3,
    "environment.success_reward": 1,
    "environment.search_engine.form": "query",
    "environment.search_engine.timeout_s": 60,
    "rollout.history_turns": 4,
    "rollout.max_prompt_tokens": 4096,
    "optimizer.warmup_steps": 150,
    "algorithm.objective.kl_coefficient": 0.001,
    "algorithm.advantage.invalid_penalty": 0.01,
    "evaluation.split": "test",
    "evaluation.panel_size": 512,
    "evaluation.every_n_iterations": 150,
    "evaluation.sampling.temperature": 0,
}
"""Search-QA's column."""

SDAR = {
    "algorithm.objective.distillation_coefficient": 0.01,
    "gate.beta": 5.0,
    "gate._target_": "sdar.objective.gate.GapGate",
}


def run_settings(*overrides: str) -> RunSettings:
    return compose([*overrides, "run_dir=somewhere"])


def settings_of(*overrides: str) -> dict[str, Any]:
    return dict(run_settings(*overrides).config)


def at(settings: Any, path: str) -> Any:
    for name in path.split("."):
        settings = settings[name]
    return settings


@pytest.fixture(autouse=True)
def _data(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALFWORLD_DATA", "the/published/games")
    monkeypatch.setenv("WEBSHOP_DATA", "the/products")


def test_there_is_an_experiment_for_every_model_of_the_paper() -> None:
    found = groups(config_folder())["experiment"]
    assert [name for name in found if name.startswith("paper/alfworld")] == sorted(MODELS)
    for environment in ("webshop", "search_qa"):
        expected = [name.replace("alfworld", environment) for name in sorted(MODELS)]
        assert [name for name in found if name.startswith(f"paper/{environment}")] == expected


@pytest.mark.parametrize("experiment", MODELS)
def test_every_value_is_that_of_the_scripts(experiment: str) -> None:
    settings = settings_of(f"experiment={experiment}", "trainer=cpu")
    assert {path: at(settings, path) for path in SCRIPTS} == SCRIPTS
    assert {path: at(settings, path) for path in SDAR} == SDAR
    assert settings["model"]["name"] == MODELS[experiment]
    assert settings["environment"]["data_dir"] == "the/published/games"
    assert settings["loss_aggregation"]["kind"] == "token_mean"


@pytest.mark.parametrize("experiment", MODELS)
def test_every_value_of_webshop_is_that_of_the_scripts(experiment: str) -> None:
    settings = settings_of(f"experiment={experiment.replace('alfworld', 'webshop')}", "trainer=cpu")
    assert {path: at(settings, path) for path in WEBSHOP} == WEBSHOP
    assert {path: at(settings, path) for path in SDAR} == SDAR
    assert settings["model"]["name"] == MODELS[experiment]
    assert settings["environment"]["data_dir"] == "the/products"
    assert settings["teacher"]["library"]["folder"] == "webshop_products"


@pytest.mark.parametrize("experiment", MODELS)
def test_every_value_of_search_qa_is_that_of_the_scripts(experiment: str) -> None:
    given = (f"experiment={experiment.replace('alfworld', 'search_qa')}", "environment.data_dir=the/questions")
    settings = settings_of(*given, "trainer=cpu")
    assert {path: at(settings, path) for path in SEARCH_QA} == SEARCH_QA
    assert {path: at(settings, path) for path in SDAR} == SDAR
    assert settings["model"]["name"] == MODELS[experiment]
    assert settings["teacher"]["library"]["folder"] == "search_qa_open"
    assert settings_of(*given, "loss_aggregation=reference_code", "loss_aggregation.micro_batch_rows=16", "trainer=cpu")


@pytest.mark.parametrize(
    ("method", "more"),
    {
        **dict.fromkeys(("grpo", "sdar", "grpo_opsd", "skill_grpo", "skill_prompt", "skill_sd", "rlsd", "gigpo"), ()),
        **dict.fromkeys(("opsd", "opsd_release"), ("algorithm.objective.kl_coefficient=0",)),
        "dr_grpo": ("~algorithm.advantage.std_floor",),
        "hindsight": ("retrieval=keyword",),
    }.items(),
)
def test_every_method_goes_with_search_qa_with_the_setting_that_its_file_names(
    method: str, more: tuple[str, ...]
) -> None:
    name = "paper/search_qa_qwen2_5_3b"
    given = (f"experiment={name}", "environment.data_dir=the/questions", "trainer=cpu", f"algorithm={method}", *more)
    objective = run_settings(*given).method.objective
    assert objective.kl_coefficient == (0.001 if objective.policy_coefficient or method == "skill_prompt" else 0)
    header = (config_folder() / "experiment" / "paper" / "_search_qa.yaml").read_text().partition("defaults:")[0]
    assert all(f"{method} {setting}" in header.replace("\n# ", " ") for setting in more if method != "opsd")


def test_search_qa_without_questions_is_told() -> None:
    with pytest.raises(UserError, match=r"environment\.data_dir is not set: .*SEARCH_QA_DATA=VALUE in the shell"):
        settings_of("experiment=paper/search_qa_qwen2_5_3b", "trainer=cpu")


@pytest.mark.e2e
def test_webshop_is_built_up_to_the_weights(tmp_path: Path) -> None:
    """The weights are those of a tiny random model, and the catalogue is the built-in one."""
    built = assemble(
        run_settings(
            "experiment=paper/webshop_qwen2_5_3b",
            "trainer=cpu",
            "environment.data_dir=null",
            f"model.name={save_tiny(tmp_path, context_tokens=4096)}",
        )
    )
    assert (built.panel.split, len(built.panel.tasks)) == ("test", 128)
    assert (built.module.rollout.history_turns, built.module.rollout.max_prompt_tokens) == (2, 4096)


@pytest.mark.parametrize("experiment", MODELS)
def test_the_reference_codes_averages_and_other_methods_go_with_them(experiment: str) -> None:
    settings = settings_of(
        f"experiment={experiment}", "trainer=cpu", "loss_aggregation=reference_code", "algorithm=grpo"
    )
    assert {path: at(settings, path) for path in SCRIPTS} == SCRIPTS
    assert settings["loss_aggregation"] == {"kind": "reference_code", "micro_batch_rows": 32}
    assert settings["algorithm"]["objective"]["distillation_coefficient"] == 0


def test_the_trainer_is_that_of_a_gpu_unless_another_is_asked_for() -> None:
    config = compose_config(["experiment=paper/alfworld_qwen2_5_3b"])
    assert config["trainer"]["accelerator"] == "gpu"
    assert config["trainer"]["precision"] == "bf16-mixed"


def test_without_the_published_games_the_variable_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ALFWORLD_DATA")
    with pytest.raises(UserError, match=r"environment\.data_dir.*ALFWORLD_DATA"):
        settings_of("experiment=paper/alfworld_qwen2_5_3b", "trainer=cpu")
    settings = settings_of("experiment=paper/alfworld_qwen2_5_3b", "trainer=cpu", "environment.data_dir=here")
    assert settings["environment"]["data_dir"] == "here"


@pytest.mark.e2e
@pytest.mark.parametrize("aggregation", ["token_mean", "reference_code"])
@pytest.mark.parametrize("experiment", MODELS)
def test_everything_is_built_up_to_the_weights(experiment: str, aggregation: str, tmp_path: Path) -> None:
    """The weights themselves are those of a tiny random model, and the games are generated ones."""
    settings = run_settings(
        f"experiment={experiment}",
        f"loss_aggregation={aggregation}",
        "trainer=cpu",
        "environment.data_dir=null",
        f"model.name={save_tiny(tmp_path, context_tokens=4096)}",
    )
    built = assemble(settings)
    assert len(built.panel.tasks) == 128
    assert built.panel.split == "valid_seen"
    for rollout in (built.datamodule.rollout, built.eval_collector.settings, built.module.rollout):
        assert (rollout.context, rollout.history_turns, rollout.max_prompt_tokens) == ("window", 2, 2048)
    assert built.module.method.aggregation.kind == aggregation
    assert any(getattr(part, "gradient_checkpointing", False) for part in built.policy.model.modules())


@pytest.mark.e2e
@pytest.mark.parametrize("aggregation", ["token_mean", "reference_code"])
def test_an_iteration_of_the_papers_run_with_a_tiny_model(
    aggregation: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    arguments = [
        "experiment=paper/alfworld_qwen2_5_3b",
        f"loss_aggregation={aggregation}",
        "trainer=cpu",
        "environment.data_dir=null",
        f"model.name={save_tiny(tmp_path / 'model', context_tokens=4096)}",
        "environment.max_turns=4",
        "rollout.tasks_per_iteration=2",
        "rollout.group_size=3",
        "rollout.sampling.max_response_tokens=16",
        "optimizer.learning_rate=1e-4",
        "optimizer.rows_per_step=8",
        "trainer.max_epochs=1",
        "evaluation.panel_size=6",
        "run_dir=run",
    ]
    if aggregation == "reference_code":
        arguments.append("loss_aggregation.micro_batch_rows=4")
    assert main(arguments) == 0
    assert (tmp_path / "run" / "results.json").is_file()


def test_gradient_checkpointing_changes_memory_and_not_the_result(tmp_path: Path) -> None:
    """Activations are computed a second time in the backward pass: twice the forward passes of each layer."""
    from sdar.policy.language_model import hf_model
    from toys.training import HintTeacher, toy_datamodule, toy_module, train, weights

    folder = save_tiny(tmp_path, context_tokens=4096)
    trained, passes = [], []
    for checkpointing in (False, True):
        policy = hf_model(str(folder), gradient_checkpointing=checkpointing)
        module = toy_module(policy, HintTeacher())
        learning = [0]  # passes of a layer while gradients are wanted: the rollouts and PREPARE want none
        layer = policy.model.get_decoder().layers[0]
        layer.self_attn.register_forward_hook(
            lambda *_, learning=learning: learning.__setitem__(0, learning[0] + torch.is_grad_enabled())
        )
        memory = train(module, toy_datamodule(policy), 1)
        assert memory.steps[0]["train/grad_norm"] > 0
        trained.append(weights(module))
        passes.append(learning[0])
    assert passes[1] == 2 * passes[0] > 0
    for name, tensor in trained[0].items():
        torch.testing.assert_close(tensor, trained[1][name], rtol=0, atol=1e-6)


def test_a_model_that_cannot_be_checkpointed_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from transformers import Qwen3ForCausalLM

    from sdar.policy.language_model import hf_model

    monkeypatch.setattr(Qwen3ForCausalLM, "supports_gradient_checkpointing", False)
    with pytest.raises(UserError, match=r"model\.gradient_checkpointing=true"):
        hf_model(str(save_tiny(tmp_path, context_tokens=4096)), gradient_checkpointing=True)
