"""A checkpoint becomes a folder that the library loads with equal log-probs, or one sentence says why not."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
import yaml
from lightning.pytorch.callbacks import ModelCheckpoint
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel

from sdar.commands.export import main
from sdar.policy.language_model import hf_model
from sdar.policy.log_probs import score_tokens
from sdar.policy.lora import LoraSettings
from toys.chat_templates import BY_NAME as STRUCTURES
from toys.families import BY_NAME as FAMILIES
from toys.matrix import save_tokenizer, save_weights
from toys.models import tiny_random_model, toy_tokenizer
from toys.training import toy_datamodule, toy_module, train

IDS = torch.arange(3, 23).reshape(2, 10)
REAL = torch.ones_like(IDS, dtype=torch.bool)


def make_run(folder: Path, lora: dict[str, object] | None = None, family: str | None = None) -> Path:
    """A run folder as training leaves it: settings, one iteration's checkpoint; returns the checkpoint."""
    base = folder / "base"
    if family is None:
        tiny_random_model(vocab_size=259, hidden_size=16, context_tokens=256).save_pretrained(base)
        toy_tokenizer().save_pretrained(base)
    else:
        save_tokenizer(save_weights(base, FAMILIES[family]), STRUCTURES["llama3.1"])
    policy = hf_model(str(base), lora=None if lora is None else LoraSettings(**lora))
    saver = ModelCheckpoint(
        dirpath=folder / "run/checkpoints", save_last=True, save_top_k=0, save_on_train_epoch_end=True
    )
    module = toy_module(policy, distillation_coefficient=0.0)
    train(module, toy_datamodule(policy), 1, callbacks=[saver], enable_checkpointing=True)
    node = {"_target_": "sdar.policy.language_model.hf_model", "name": str(base), "dtype": "float32", "lora": lora}
    settings = {"model": node, "algorithm": {"name": "grpo"}, "seed": 5}
    (folder / "run/config.yaml").write_text(yaml.safe_dump(settings))
    with torch.no_grad():
        scores = score_tokens(module.model, IDS, REAL, REAL & (torch.arange(10) > 0)).log_probs
    torch.save(scores, folder / "scores.pt")
    return folder / "run/checkpoints/last.ckpt"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_run(tmp_path_factory.mktemp("full"))


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert main(arguments) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert line.startswith("error: ")
    return line


@pytest.mark.parametrize("lora", [None, {"rank": 4}])
def test_the_folder_loads_as_a_plain_model_with_equal_log_probs(
    lora: dict[str, object] | None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoint = make_run(tmp_path, lora)
    out = tmp_path / "exported"
    out.mkdir()
    assert main([f"ckpt_path={checkpoint}", f"out={out}"]) == 0
    assert "nats at most" in capsys.readouterr().out
    model = AutoModelForCausalLM.from_pretrained(out)
    with torch.no_grad():
        logits = model(input_ids=IDS).logits[:, :-1]
    log_probs = torch.log_softmax(logits, -1).gather(-1, IDS[:, 1:, None]).squeeze(-1)
    torch.testing.assert_close(log_probs, torch.load(tmp_path / "scores.pt")[:, 1:], atol=1e-4, rtol=0)
    base = AutoModelForCausalLM.from_pretrained(tmp_path / "base")
    assert set(model.state_dict()) == set(base.state_dict())
    assert any(not torch.equal(value, base.state_dict()[name]) for name, value in model.state_dict().items())
    tokenizer = AutoTokenizer.from_pretrained(out)
    assert tokenizer.chat_template == toy_tokenizer().chat_template
    assert model.generation_config.eos_token_id == tokenizer.convert_tokens_to_ids("<|im_end|>")
    card = (out / "README.md").read_text()
    for part in ("Qwen3ForCausalLM", "| iterations | 1 |", "grpo", "adapters" if lora else "all weights"):
        assert part in card
    assert sorted(path.name for path in tmp_path.iterdir()) == ["base", "exported", "run", "scores.pt"]


@pytest.mark.parametrize("family", ["mixtral", "qwen3_moe"])
def test_experts_with_adapters_are_exported(family: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """And the folder stops at every token at which the policy stopped, the template's own first."""
    checkpoint = make_run(tmp_path, {"rank": 2}, family)
    assert main([f"ckpt_path={checkpoint}", f"out={tmp_path / 'exported'}"]) == 0
    assert "nats at most" in capsys.readouterr().out
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "exported")
    with torch.no_grad():
        logits = model(input_ids=IDS).logits[:, :-1]
    log_probs = torch.log_softmax(logits, -1).gather(-1, IDS[:, 1:, None]).squeeze(-1)
    torch.testing.assert_close(log_probs, torch.load(tmp_path / "scores.pt")[:, 1:], atol=1e-4, rtol=0)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "exported")
    ends = ["<|eot_id|>", "<|eom_id|>", "<|end_of_text|>"]
    found = tokenizer.convert_ids_to_tokens(model.generation_config.eos_token_id)
    assert (found[0], set(found)) == (ends[0], set(ends))
    assert set(hf_model(str(tmp_path / "exported")).chat.end_ids) == set(tokenizer.convert_tokens_to_ids(ends))


def test_a_checkpoint_away_from_its_run_takes_its_model_from_the_command_line(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    moved = tmp_path / "moved.ckpt"
    shutil.copy(run, moved)
    message = refused(capsys, f"ckpt_path={moved}", f"out={tmp_path / 'out'}")
    assert "config.yaml" in message
    assert "model=hf" in message
    base = run.parents[2] / "base"
    assert main([f"ckpt_path={moved}", f"out={tmp_path / 'out'}", "model=hf", f"model.name={base}"]) == 0
    assert (tmp_path / "out" / "model.safetensors").is_file()


def test_another_model_is_refused_naming_both(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = tmp_path / "other"
    tiny_random_model(vocab_size=259, hidden_size=16, context_tokens=256, seed=1).save_pretrained(other)
    toy_tokenizer().save_pretrained(other)
    message = refused(capsys, f"ckpt_path={run}", f"out={tmp_path / 'out'}", "model=hf", f"model.name={other}")
    assert str(run.parents[2] / "base") in message
    assert str(other) in message
    assert not (tmp_path / "out").exists()


def test_what_cannot_be_exported_is_one_sentence(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    full = tmp_path / "full"
    full.mkdir()
    (full / "file").touch()
    fine = f"out={tmp_path / 'out'}"
    for arguments, words in (
        ((f"ckpt_path={run}", f"out={full}"), f"out must be a new or empty folder, got {full}"),
        ((f"ckpt_path={run}",), "out is missing"),
        ((fine,), "ckpt_path is missing"),
        (("ckpt_path=no/such.ckpt", fine), "no/such.ckpt"),
        ((f"ckpt_path={run.parent}", fine), "must be the file of a checkpoint"),
        ((f"ckpt_path={run}", fine, "seed=3"), "seed=3"),
        ((f"ckpt_path={run}", fine, "model=hff"), "model=hff"),
    ):
        assert words in refused(capsys, *arguments)
    assert not (tmp_path / "out").exists()


def test_an_empty_folder_is_filled_where_it_is(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It may be a file system of its own, which cannot be replaced, and its parent nobody's to write."""
    there = tmp_path / "volume"
    for found in (there / "lost+found", there / ".volume.partial"):  # of the file system; of an export that was killed
        found.mkdir(parents=True)
    inode = there.stat().st_ino
    monkeypatch.chdir(there)
    assert main([f"ckpt_path={run}", "out=."]) == 0, capsys.readouterr().err
    assert there.stat().st_ino == inode
    assert AutoModelForCausalLM.from_pretrained(str(there)).config.hidden_size == 16
    assert [file.name for file in there.iterdir() if file.name.startswith(".")] == []
    assert [file.name for file in tmp_path.iterdir()] == ["volume"]


def test_a_folder_that_cannot_be_written_is_refused_before_any_work(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("os.access", lambda *_: False)
    monkeypatch.setattr("sdar.commands.export.export", None)
    said = refused(capsys, f"ckpt_path={run}", f"out={tmp_path}/a/b")
    assert f"out={tmp_path}/a/b: {tmp_path} is not writable; out must be a writable directory" in said


def test_a_damaged_record_leaves_gaps_in_the_card(run: Path, tmp_path: Path) -> None:
    there = tmp_path / "run"
    shutil.copytree(run.parents[1], there)
    settings = yaml.safe_load((there / "config.yaml").read_text())
    settings |= {"algorithm": "x", "environment": [1], "seed": {"a": 1}}
    (there / "config.yaml").write_text(yaml.safe_dump(settings))
    (there / "run.json").write_text(r'{"git": "x", "versions": [1], "config_hash": "\ud800"}')
    assert main([f"ckpt_path={there / 'checkpoints/last.ckpt'}", f"out={tmp_path / 'out'}"]) == 0
    card = (tmp_path / "out/README.md").read_text()
    assert "| iterations | 1 |" in card
    for gap in ("| method", "| environment", "| seed", "revision", "hash of the run", "Results", "Training", "None"):
        assert gap not in card


def test_a_folder_that_computes_something_else_is_taken_away_again(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    save = PreTrainedModel.save_pretrained

    def damaged(model: PreTrainedModel, folder: str) -> None:
        with torch.no_grad():
            model.model.norm.weight += 0.1
        save(model, folder)

    monkeypatch.setattr(PreTrainedModel, "save_pretrained", damaged)
    assert "not the trained model" in refused(capsys, f"ckpt_path={run}", f"out={tmp_path / 'out'}")
    assert list(tmp_path.iterdir()) == []


def test_help_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments, code in ((["--help"], 0), ([], 2)):
        assert main(arguments) == code
        assert "ckpt_path=PATH" in capsys.readouterr().out
