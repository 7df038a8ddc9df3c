"""The model card says what the run's records say, and nothing else."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from huggingface_hub import ModelCard

from sdar.commands.export import main
from sdar.policy.model_card import CardFacts, Figure, Panel, model_card, usage
from toys.models import save_tiny

FACTS = CardFacts(
    name="my-agent",
    base_model="owner/base",
    license="mit",
    domain="alfworld",
    about={"base": "owner/base (Qwen3ForCausalLM)", "method": "sdar | x"},
    panel=Panel("valid_unseen", 240, "0123456789abcdef", 0),
    model=[Figure("this model", False, 117, 240, (0.425, 0.55)), Figure("this model", True, 163, 239, None, errors=1)],
    before=[Figure("before training", False, 42, 240, (0.132, 0.228))],
    sampling={"temperature": 0.4, "top_p": 1.0, "top_k": 0, "max_response_tokens": 48},
    thinking=False,
    command="sdar train seed=1",
    versions={"python": "3.11", "torch": "2.9"},
)

GOLDEN = """\
---
library_name: transformers
pipeline_tag: text-generation
base_model: owner/base
license: mit
tags:
- sdar
- reinforcement-learning
- alfworld
model-index:
- name: my-agent
  results:
  - task:
      type: text-generation
      name: agent, without skills in the prompt
    dataset:
      type: alfworld
      name: alfworld
      split: valid_unseen
    metrics:
    - type: success_rate
      name: success rate (n = 240, 95 % interval 42.5 to 55.0)
      value: 0.4875
  - task:
      type: text-generation
      name: agent, with skills in the prompt
    dataset:
      type: alfworld
      name: alfworld
      split: valid_unseen
    metrics:
    - type: success_rate
      name: success rate (n = 239)
      value: 0.682
---

# my-agent

A language-model agent trained by reinforcement learning with sdar, an independent implementation of
[Self-Distilled Agentic Reinforcement Learning](https://arxiv.org/abs/2605.15155). Written by `sdar export`.

|  |  |
| --- | --- |
| base | owner/base (Qwen3ForCausalLM) |
| method | sdar \\| x |

## Results

Success on a fixed panel of tasks of the split `valid_unseen`, 240 tasks, content hash `0123456789ab`, \
panel and tokens of seed 0. The intervals are Wilson's, over the tasks of this one run, and say nothing about other \
training seeds. Episodes that ended by errors are left out: 1.

| agent | prompt | success | 95 % interval | solved | n |
| --- | --- | --- | --- | --- | --- |
| before training | without skills | 17.5 % | 13.2 to 22.8 | 42 | 240 |
| this model | without skills | 48.8 % | 42.5 to 55.0 | 117 | 240 |
| this model | with skills | 68.2 % |  | 163 | 239 |

## Usage

```python
from transformers import AutoModelForCausalLM, AutoTokenizer

path = "."  # the folder with this file, or the model's name on the Hub
tokenizer = AutoTokenizer.from_pretrained(path)
model = AutoModelForCausalLM.from_pretrained(path, dtype="auto")
messages = [{"role": "user", "content": "..."}]  # the environment's text; then responses and answers in turn
inputs = tokenizer.apply_chat_template(
    messages, add_generation_prompt=True, return_dict=True, return_tensors="pt", enable_thinking=False
)
output = model.generate(**inputs, max_new_tokens=48, do_sample=True, temperature=0.4, top_p=1.0, top_k=0)
print(tokenizer.decode(output[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True))
```

Prompts are those of the environment in sdar, rendered by the chat template: `sdar play --policy FOLDER` shows them, and
`sdar serve FOLDER` serves the model with the sampler that it was trained with.

## Training

    sdar train seed=1

| package | version |
| --- | --- |
| python | 3.11 |
| torch | 2.9 |
"""


def test_a_card_in_full() -> None:
    assert model_card(FACTS) == GOLDEN


def test_the_hub_reads_base_license_tags_and_figures() -> None:
    data = ModelCard(GOLDEN).data
    assert (data.base_model, data.license, data.library_name) == ("owner/base", "mit", "transformers")
    assert data.model_name == "my-agent"
    found = [(result.dataset_type, result.dataset_split, result.metric_type) for result in data.eval_results]
    assert found == [("alfworld", "valid_unseen", "success_rate")] * 2
    assert [result.metric_value for result in data.eval_results] == [0.4875, 0.682]


def test_what_is_not_known_is_left_out() -> None:
    card = model_card(CardFacts(name="x"))
    for word in ("None", "unknown", "## Results", "## Training", "license", "base_model", "model-index", "nan"):
        assert word not in card
    assert ModelCard(card).data.tags == ["sdar", "reinforcement-learning"]
    assert "model-index" not in model_card(CardFacts(name="x", model=[Figure("this model", False, 1, 2)]))


@pytest.mark.parametrize(
    ("sampling", "options"),
    [
        (None, "max_new_tokens=512, do_sample=False"),
        ({"temperature": 0.0, "max_response_tokens": 7}, "max_new_tokens=7, do_sample=False"),
        ({"temperature": 1.0, "max_response_tokens": 7}, "max_new_tokens=7, do_sample=True, temperature=1.0"),
    ],
    ids=["unknown", "greedy", "sampled"],
)
def test_the_program_samples_as_the_panel_did(sampling: dict[str, float] | None, options: str) -> None:
    assert f"generate(**inputs, {options})" in usage(CardFacts(name="x", sampling=sampling))


SMALL = [
    *("experiment=smoke", "environment.num_tasks=[12,6,6]", "environment.max_turns=2", "trainer.max_epochs=2"),
    *("evaluation.panel_size=2", "evaluation.baselines=false", "threads=1", "logger=none"),
]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny run by the command, with its base in a folder that has a card of its own."""
    from sdar.commands.train import main as train

    place = tmp_path_factory.mktemp("card")
    base = save_tiny(place / "base", context_tokens=8192)
    (base / "README.md").write_text("---\nlicense: apache-2.0\nx: [1\n---\n")
    folder = place / "run"
    assert (
        train([*SMALL, "model=hf", f"model.name={base}", "rollout.sampling.max_response_tokens=8", f"run_dir={folder}"])
        == 0
    )
    return folder


@pytest.mark.e2e
def test_the_card_of_a_tiny_run(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "my-agent"
    assert main([f"ckpt_path={run / 'checkpoints/last.ckpt'}", f"out={out}"]) == 0
    card = (out / "README.md").read_text()
    record, results = (json.loads((run / name).read_text()) for name in ("run.json", "results.json"))
    front = yaml.safe_load(card.split("---\n")[1])
    assert front["tags"] == ["sdar", "reinforcement-learning", "alfworld"]
    # A folder is no model of the Hub; its card's front matter is damaged.
    assert not {"base_model", "license"} & set(front)
    rates = {row["name"]: row["success_rate"] for row in results["results"]}
    values = [entry["metrics"][0]["value"] for entry in front["model-index"][0]["results"]]
    assert values == [rates["trained"], rates["trained, with skills"]]
    for row in (
        "| base | base (Qwen3ForCausalLM) |",
        "| method | sdar |",
        "| environment | AlfworldEnvironment |",
        "| iterations | 2 |",
        "| seed | 1 |",
        f"| hash of the run's configuration | {record['config_hash']} |",
        f"| torch | {record['versions']['torch']} |",
        "| this model | with skills | 0.0 % |",
        "| before training | without skills | 0.0 % |",
        f"content hash `{results['panel']['content_hash'][:12]}`",
        "\n    sdar train experiment=smoke ",
    ):
        assert row in card
    revision = (record["git"] or {}).get("revision")
    assert (revision is not None) == ("| git revision of sdar |" in card)
    # The program in the card runs in its folder, with transformers alone.
    (program,) = re.findall(r"```python\n(.*?)```", card, re.DOTALL)
    assert "max_new_tokens=8, do_sample=True, temperature=0.4" in program
    monkeypatch.chdir(out)
    capsys.readouterr()
    shown: list[Any] = []
    exec(compile(program, "README.md", "exec"), {"print": shown.append})
    assert isinstance(shown[0], str)


@pytest.mark.e2e
@pytest.mark.parametrize(("learned", "rows"), [(1, 2), (7, 0)])
def test_figures_of_other_weights_are_not_this_models(run: Path, tmp_path: Path, learned: int, rows: int) -> None:
    """The checkpoint is of iteration 2; the records are made to say that the run went on."""
    file = run / "results.json"
    whole = file.read_text()
    results = json.loads(whole)
    for evaluation in results["evaluations"]:
        evaluation["iterations"] += 2 - learned
    results["training"]["iterations"] = 40
    try:
        file.write_text(json.dumps(results))
        assert main([f"ckpt_path={run / 'checkpoints/last.ckpt'}", f"out={tmp_path / 'out'}"]) == 0
    finally:
        file.write_text(whole)
    card = (tmp_path / "out" / "README.md").read_text()
    assert card.count("| this model |") == rows
    assert ("## Results" in card) == bool(rows)


@pytest.mark.e2e
def test_damaged_results_leave_the_results_out(run: Path, tmp_path: Path) -> None:
    file = run / "results.json"
    whole = file.read_text()
    results = json.loads(whole)
    results["results"] = [{"name": "trained", "n": 2, "successes": 3}, {"name": ["trained"]}, 5, {"name": "warm start"}]
    results["panel"] = [1]
    try:
        file.write_text(json.dumps(results))
        license = "license=cc-by-4.0"
        assert main([f"ckpt_path={run / 'checkpoints/last.ckpt'}", f"out={tmp_path / 'out'}", license]) == 0
    finally:
        file.write_text(whole)
    card = (tmp_path / "out" / "README.md").read_text()
    assert "## Results" not in card
    assert yaml.safe_load(card.split("---\n")[1])["license"] == "cc-by-4.0"


@pytest.mark.e2e
@pytest.mark.parametrize("setting", ["license=My License", "private=maybe", "push_to_hub=nobody", "push_to_hub=a/../b"])
def test_a_mistake_is_told_before_anything_is_written(
    run: Path, tmp_path: Path, setting: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([f"ckpt_path={run / 'checkpoints/last.ckpt'}", f"out={tmp_path / 'out'}", setting]) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert setting.partition("=")[0] in line
    assert list(tmp_path.iterdir()) == []
