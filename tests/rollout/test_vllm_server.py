"""Rollouts by a vLLM server: weights through a folder, and one sentence for whatever it does not do."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from sdar.commands.train import main
from sdar.errors import RunFailed, UserError
from sdar.policy.language_model import load_model
from sdar.policy.published_weights import published_weights
from sdar.rollout.collector import Collector, EpisodeRequest
from sdar.rollout.sampling import generators
from sdar.rollout.settings import SamplingConfig
from sdar.rollout.vllm import wire
from sdar.rollout.vllm.server import VllmServer, write_weights
from sdar.rollout.vllm.settings import VllmSettings
from toys.conversations import prompts_of
from toys.fake_vllm_server import FakeServer, serving
from toys.models import save_tiny
from toys.training import LettersEnvironment, toy_datamodule, toy_module, toy_policy, toy_rollout, train
from toys.waiting import PATIENCE_S, until


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wire, "WAITS_S", (0.0, 0.0))
    monkeypatch.delenv(wire.API_KEY, raising=False)


def settings_of(fake: FakeServer, **settings: Any) -> VllmSettings:
    return VllmSettings(url=fake.url, timeout_s=PATIENCE_S, **settings)


@pytest.mark.parametrize("context", ["append", "window"])
@pytest.mark.parametrize("lora", [None, {"rank": 2}])
def test_a_run_learns_and_its_server_has_the_weights_of_every_iteration(context, lora, tmp_path: Path) -> None:
    policy = toy_policy(lora=lora)
    plain = toy_policy()
    before = [parameter.detach().clone() for parameter in policy.model.parameters()]
    with serving(plain.model) as fake:
        module = toy_module(
            policy, None, episodes_per_step=None, distillation_coefficient=0.0, context=context, learning_rate=1e-2
        )
        vllm = settings_of(fake, weights_folder=str(tmp_path))
        module.rollout = replace(module.rollout, backend="vllm", vllm=vllm)
        data = toy_datamodule(policy, context=context)
        data.collector.settings = module.rollout
        data.collector.generator_factory = generators(module.rollout)
        curve = train(module, data, 3).curve()
        assert len(fake.loaded) == 3
        assert any(not torch.equal(fake.loaded[0][name], value) for name, value in fake.loaded[2].items())
        (kept,) = list(tmp_path.iterdir())
        assert list(kept.iterdir()) == []  # what the server has takes no room
    assert any(not torch.equal(a, b) for a, b in zip(before, policy.model.parameters(), strict=True))
    for figures in curve.values():
        assert 0 <= figures["rollout/sampler_mismatch"] < 1e-10


def test_what_it_is_asked_are_the_very_ids_of_the_conversation() -> None:
    policy = toy_policy()
    environment = LettersEnvironment()
    task = environment.tasks("train")[0]
    with serving(policy.model) as fake:
        rollout = toy_rollout(backend="vllm", vllm=settings_of(fake))
        collector = Collector(policy, environment, rollout, generator_factory=generators(rollout))
        (episode,) = collector.collect([EpisodeRequest(task, 0)], seed=1, key=("test",)).episodes
        asked = fake.asked[1:]  # the first request asks for the kind of its log-probs
        again = collector.collect([EpisodeRequest(task, 0)], seed=1, key=("test",)).episodes[0]
    for turn in episode.turns:
        assert turn.sampler_log_probs is not None
        assert len(turn.sampler_log_probs) == len(turn.response_ids)
    assert len(episode.turns) > 1
    assert asked == prompts_of(episode)
    assert [turn.response_ids for turn in again.turns] == [turn.response_ids for turn in episode.turns]


def test_the_same_episodes_as_an_engine_in_the_process_would_play(monkeypatch: pytest.MonkeyPatch) -> None:
    """Both stand-ins sample by the seed of a response alone."""
    from toys.fake_vllm import install

    install(monkeypatch)
    policy, environment = toy_policy(), LettersEnvironment()
    requests = [EpisodeRequest(task, member) for task in environment.tasks("train")[:2] for member in range(2)]
    with serving(policy.model) as fake:
        played = []
        for vllm in (VllmSettings(), settings_of(fake)):
            rollout = toy_rollout(backend="vllm", vllm=vllm)
            collector = Collector(policy, environment, rollout, generator_factory=generators(rollout))
            episodes = collector.collect(requests, seed=1, key=("test",)).episodes
            played.append([[turn.response_ids for turn in episode.turns] for episode in episodes])
    assert played[0] == played[1]


def test_weights_are_written_in_parts_as_the_server_loads_them(tmp_path: Path) -> None:
    published = {name: value.clone() for name, value in published_weights(toy_policy().model)}
    write_weights(published.items(), tmp_path, file_bytes=4096)
    parts = [load_file(file) for file in sorted(tmp_path.iterdir())]
    assert len(parts) > 2
    for part in parts:  # the last weight of a part may exceed it
        sizes = [value.nbytes for value in part.values()]
        assert sum(sizes) - max(sizes) < 4096
    found = {name: value for part in parts for name, value in part.items()}
    assert found.keys() == published.keys()
    assert all(torch.equal(found[name], value) for name, value in published.items())


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_weights_are_handed_over_in_the_servers_precision(dtype: str) -> None:
    policy = toy_policy()
    with serving(policy.model) as fake:
        VllmServer(policy, settings_of(fake, dtype=dtype, max_mismatch=1.0), 2).take_weights(policy)
        assert {value.dtype for value in fake.loaded[0].values()} == {getattr(torch, dtype)}


def test_what_may_pass_is_tried_again() -> None:
    policy = toy_policy()
    with serving(policy.model) as fake:
        server = VllmServer(policy, settings_of(fake), 2)
        server.take_weights(policy)
        for passing in ([503, 429], [None], [None, 500]):
            fake.fails = list(passing)
            assert len(server.prompt_log_probs([1, 2, 3])) == 2
        fake.fails = [503] * 3
        with pytest.raises(RunFailed, match=r"does not answer /v1/completions: status 503"):
            server.prompt_log_probs([1, 2, 3])


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "no weights": ({"takes_weights": False}, r"rollout\.vllm\.url=.*VLLM_SERVER_DEV_MODE=1"),
    "short context": ({"context": 64}, r"a context of 256 tokens, got 64; start it with --max-model-len 256"),
    "two models": ({"names": ("one", "two")}, r"must have one model.*got two, one"),
    "others' requests": ({"busy": 100}, r"answers others' requests; a run needs one of its own"),
    "no model": ({"names": ()}, r"must have one model.*got none"),
    "raw log-probs": ({"processed": False}, r"start it with --logprobs-mode processed_logprobs"),
    "a key": ({"key": "secret"}, r"needs a key in the environment variable SDAR_API_KEY"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_servers_that_cannot_play_are_refused_in_a_sentence(name: str) -> None:
    behaviour, sentence = REFUSED[name]
    policy = toy_policy()
    with serving(policy.model, **behaviour) as fake, pytest.raises(UserError, match=sentence):
        VllmServer(policy, settings_of(fake), 2).take_weights(policy)


def test_the_key_is_sent_and_never_told(monkeypatch: pytest.MonkeyPatch) -> None:
    policy = toy_policy()
    with serving(policy.model, key="secret") as fake:
        monkeypatch.setenv(wire.API_KEY, "secret")
        VllmServer(policy, settings_of(fake), 2).take_weights(policy)
        monkeypatch.setenv(wire.API_KEY, "other-secret")
        with pytest.raises(UserError) as refused:
            VllmServer(policy, settings_of(fake), 2)
    assert "[the key]" in str(refused.value)
    assert "other-secret" not in str(refused.value)


def test_weights_that_do_not_arrive_end_the_run() -> None:
    policy = toy_policy()
    with serving(policy.model, stale=True) as fake:
        server = VllmServer(policy, settings_of(fake, max_mismatch=1e-3), 2)
        server.take_weights(policy)
        with torch.no_grad():
            for parameter in policy.model.parameters():
                parameter.mul_(1.5)
        with pytest.raises(RunFailed, match=r"differ from the policy's by .* rollout\.vllm\.max_mismatch=0\.001"):
            server.take_weights(policy)


def test_a_folder_that_the_server_does_not_see_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    policy = toy_policy()
    with serving(policy.model) as fake:
        elsewhere = Path("/nowhere")
        monkeypatch.setattr(fake, "answer", _with_path(fake, elsewhere))
        with pytest.raises(
            UserError, match=r"rollout\.vllm\.weights_folder must be a folder that the server .* can read"
        ):
            VllmServer(policy, settings_of(fake), 2).take_weights(policy)


def _with_path(fake: FakeServer, folder: Path) -> Any:
    answer = fake.answer

    def elsewhere(path: str, body: Any) -> Any:
        if path == "/collective_rpc":
            body = body | {"kwargs": {"weights_path": str(folder)}}
        return answer(path, body)

    return elsewhere


def test_nobody_at_the_address_is_told() -> None:
    policy = toy_policy()
    with serving(policy.model) as fake:
        settings = settings_of(fake)
    with pytest.raises(UserError, match=r"rollout\.vllm\.url must be the address of a vLLM server that answers"):
        VllmServer(policy, settings, 2)


@pytest.mark.parametrize(
    "url", ["", "localhost:8000", "ftp://me:pw@host", "http://", "http://me:pw@host/?a=b", "http://me:pw@host"]
)
def test_addresses_that_are_none_are_refused(url: str) -> None:
    """In words that have no password."""
    with pytest.raises(UserError, match=r"rollout\.vllm\.url must be") as refused:
        VllmSettings(url=url)
    assert "pw" not in str(refused.value)


def test_a_folder_in_which_nothing_can_be_written_is_told(tmp_path: Path) -> None:
    policy = toy_policy()
    with serving(policy.model) as fake:
        settings = settings_of(fake, weights_folder=str(tmp_path / "missing"))
        with pytest.raises(UserError, match=r"rollout\.vllm\.weights_folder: cannot write to .*missing"):
            VllmServer(policy, settings, 2).take_weights(policy)


def test_a_full_disk_is_told_and_nothing_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    policy = toy_policy()
    with serving(policy.model) as fake:
        server = VllmServer(policy, settings_of(fake, weights_folder=str(tmp_path)), 2)
        server.take_weights(policy)

        def full(weights: Any, path: Path) -> None:
            path.write_bytes(b"half")
            raise SafetensorError("I/O error: No space left on device (os error 28)")

        monkeypatch.setattr("sdar.rollout.vllm.server.save_file", full)
        with torch.no_grad():
            next(policy.model.parameters()).add_(0.01)
        with pytest.raises(RunFailed, match=r"weights_folder: cannot write to .*No space left.* GiB are free"):
            server.take_weights(policy)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_a_server_that_is_busy_for_a_moment_is_waited_for() -> None:
    policy = toy_policy()
    with serving(policy.model, busy=2) as fake:
        VllmServer(policy, settings_of(fake), 2).take_weights(policy)
        assert len(fake.loaded) == 1


def test_two_names_of_one_model_are_one_model() -> None:
    policy = toy_policy()
    with serving(policy.model, names=("toy", "toy-again")) as fake:
        VllmServer(policy, settings_of(fake), 2).take_weights(policy)


def test_other_weights_in_the_middle_of_an_episode_end_the_run() -> None:
    policy = toy_policy()
    with serving(policy.model) as fake:
        server = VllmServer(policy, settings_of(fake), 2)
        server.take_weights(policy)
        sampling = SamplingConfig(max_response_tokens=3)
        assert len(server.sample([[5, 6, 7]], [1], sampling, [])) == 1
        with torch.no_grad():
            for parameter in fake.model.parameters():  # another run hands its own over
                parameter.mul_(1.5)
        with pytest.raises(RunFailed, match=r"have changed by .* while it played: another run uses it"):
            server.sample([[5, 6, 7]], [1], sampling, [])


def test_an_answer_that_takes_too_long_is_not_waited_for_again() -> None:
    policy = toy_policy()
    with serving(policy.model) as fake:
        server = VllmServer(policy, VllmSettings(url=fake.url, timeout_s=3.0), 2)
        fake.slow_s, before = PATIENCE_S, fake.came
        with pytest.raises(RunFailed, match=r"no whole reply within 3 s; rollout\.vllm\.timeout_s=3"):
            server.prompt_log_probs([1, 2, 3])
        until(lambda: fake.came > before)  # it may read a request that is given up already
        assert fake.came == before + 1


def test_weights_that_have_not_changed_are_not_handed_over_again() -> None:
    policy = toy_policy(lora={"rank": 2})
    with serving(toy_policy().model) as fake:
        server = VllmServer(policy, settings_of(fake), 2)
        for _ in range(2):
            server.take_weights(policy)
        assert len(fake.loaded) == 1
        adapter = next(weight for weight in policy.model.parameters() if weight.requires_grad)
        with torch.no_grad():
            adapter[0, 0] += 1e-6
        server.take_weights(policy)
        assert len(fake.loaded) == 2


def test_quantized_models_are_refused() -> None:
    with pytest.raises(UserError, match="takes no quantized model, got nf4"):
        VllmServer(replace(toy_policy(), quantization="nf4"), VllmSettings(url="http://127.0.0.1:9"), 2)


def test_a_server_needs_no_vllm_here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "vllm", None)
    generators(toy_rollout(backend="vllm", vllm=VllmSettings(url="http://127.0.0.1:8000")))


@pytest.mark.e2e
def test_a_whole_run_plays_its_rollouts_and_panels_there_and_continues_at_another_address(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    folder = save_tiny(tmp_path / "model", context_tokens=1024)
    policy = load_model(str(folder), "toy", "model.path", dtype="float32")
    common = [
        "experiment=smoke", "environment=arithmetic", "algorithm=grpo_opsd_initial", f"model.path={folder}",
        "evaluation.baselines=false", "threads=1", "rollout.backend=vllm", f"rollout.vllm.weights_folder={tmp_path}",
    ]  # fmt: skip
    with serving(policy.model, context=1024) as fake:
        assert main([*common, f"rollout.vllm.url={fake.url}", "run_dir=run"]) == 0
        # Three panels without and with skills, and two iterations: of the start, and after each iteration.
        assert len(fake.loaded) == 3
    (kept,) = tmp_path.glob("sdar-weights-*")
    assert list(kept.iterdir()) == []
    with serving(policy.model, context=1024) as fake:
        elsewhere = [f"rollout.vllm.url={fake.url}", "ckpt_path=run/checkpoints/last.ckpt", "trainer.max_epochs=3"]
        assert main([*common, *elsewhere, "run_dir=continued"]) == 0
        assert fake.loaded
    figures = json.loads((tmp_path / "continued" / "results.json").read_text())
    assert figures["training"]["iterations"] == 3
