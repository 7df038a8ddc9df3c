"""vLLM itself plays the rollouts of a run (skipped where it is not installed)."""

from __future__ import annotations

import copy
import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace

import numpy as np
import pytest
import torch

from sdar.policy.generation import TurnGenerator
from sdar.policy.language_model import LanguageModel, load_model
from sdar.policy.lora import LoraSettings, add_adapters
from sdar.rollout.settings import SamplingConfig
from sdar.rollout.vllm.engine import Engine
from sdar.rollout.vllm.generator import VllmFactory, VllmGenerator
from sdar.rollout.vllm.settings import VllmSettings
from toys.models import save_tiny
from toys.training import toy_datamodule, toy_module, train

pytest.importorskip("vllm")
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def engine_and_policy(tmp_path_factory) -> tuple[Engine, LanguageModel]:
    """vLLM wants heads of at least 32 numbers, which the toys do not have."""
    folder = save_tiny(tmp_path_factory.mktemp("model"), context_tokens=256, hidden_size=128)
    policy = load_model(str(folder), "toy", "model.path", dtype="float32")
    return Engine(policy, VllmSettings(), 8), policy


def test_greedy_responses_are_those_of_the_policys_own_loop(engine_and_policy) -> None:
    engine, policy = engine_and_policy
    engine.take_weights(policy)
    sampling = SamplingConfig(temperature=0.0, max_response_tokens=12)
    theirs = VllmGenerator(engine, policy, sampling)
    ours = TurnGenerator(
        policy.model, pad_id=policy.pad_id, end_ids=policy.chat.end_ids, temperature=0.0, max_response_tokens=12
    )
    uniforms = {slot: np.zeros(12) for slot in range(3)}
    said = {}
    for generator in (theirs, ours):
        generator.start(3)
        turns = []
        new = {slot: list(policy.chat.opening(f"Say {slot}")[0]) for slot in range(3)}
        for _ in range(2):
            turns.append(generator.respond(new, uniforms))
            new = {slot: list(policy.chat.between("Go on")) for slot in range(3)}
        said[generator] = turns
    assert said[theirs] == said[ours]


@pytest.mark.parametrize("lora", [None, LoraSettings(rank=2)])
@pytest.mark.parametrize("context", ["append", "window"])
def test_a_run_learns_and_hands_its_weights_over_every_iteration(engine_and_policy, lora, context) -> None:
    engine, plain = engine_and_policy
    policy = replace(plain, model=copy.deepcopy(plain.model), lora=lora)
    if lora is not None:
        add_adapters(policy.model, lora, "toy")
    module = toy_module(
        policy, None, episodes_per_step=None, distillation_coefficient=0.0, context=context, learning_rate=1e-2
    )
    module.rollout = replace(module.rollout, backend="vllm")
    data = toy_datamodule(policy, context=context)
    data.collector.settings = module.rollout
    data.collector.generator_factory = VllmFactory(module.rollout.vllm, 8, engine)  # one a process
    before = [parameter.detach().clone() for parameter in policy.model.parameters()]
    curve = train(module, data, 3).curve()
    assert any(not torch.equal(a, b) for a, b in zip(before, policy.model.parameters(), strict=True))
    for figures in curve.values():
        assert 0 <= figures["rollout/sampler_mismatch"] < 1e-6


@pytest.fixture(scope="module", params=[1, 2])
def server(request, tmp_path_factory) -> Iterator[tuple[str, LanguageModel]]:
    """vLLM's own server, its model whole or split in two, started with other weights than the policy's."""
    folder = save_tiny(tmp_path_factory.mktemp("served"), context_tokens=256, hidden_size=128)
    policy = load_model(str(folder), "toy", "model.path", dtype="float32")
    with torch.no_grad():
        for parameter in policy.model.parameters():
            parameter.mul_(0.5)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    options = ["--host=127.0.0.1", f"--port={port}", "--dtype=float32", "--max-model-len=256", "--max-num-seqs=8"]
    options += ["--logprobs-mode=processed_logprobs", "--generation-config=vllm", "--enforce-eager"]
    options += [f"--tensor-parallel-size={request.param}"]
    options += ["--no-enable-chunked-prefill"]  # vLLM 0.32 cannot cut the prompt of a seeded response on a CPU
    of_a_cpu = {"VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_CPU_OMP_THREADS_BIND": "nobind", "OMP_NUM_THREADS": "1"}
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "vllm.entrypoints.openai.api_server", f"--model={folder}", *options],
            env=os.environ | of_a_cpu | {"VLLM_SERVER_DEV_MODE": "1", "VLLM_NO_USAGE_STATS": "1"},
            stdout=log,
            stderr=log,
        )
    url = f"http://127.0.0.1:{port}"
    try:
        for _ in range(240):
            with suppress(OSError), urllib.request.urlopen(f"{url}/health", timeout=5):
                break
            assert process.poll() is None, (folder / "log").read_text()[-3000:]
            time.sleep(1)
        yield url, policy
    finally:
        process.terminate()
        process.wait(60)


@pytest.mark.parametrize("lora", [None, LoraSettings(rank=2)])
@pytest.mark.parametrize("context", ["append", "window"])
def test_a_run_learns_and_hands_its_weights_to_a_server(server, lora, context, tmp_path) -> None:
    url, plain = server
    policy = replace(plain, model=copy.deepcopy(plain.model), lora=lora)
    if lora is not None:
        add_adapters(policy.model, lora, "toy")
    module = toy_module(
        policy, None, episodes_per_step=None, distillation_coefficient=0.0, context=context, learning_rate=1e-2
    )
    vllm = VllmSettings(url=url, weights_folder=str(tmp_path), max_mismatch=1e-4)
    module.rollout = replace(module.rollout, backend="vllm", vllm=vllm)
    data = toy_datamodule(policy, context=context)
    data.collector.settings = module.rollout
    data.collector.generator_factory = VllmFactory(vllm, 8)
    for figures in train(module, data, 3).curve().values():
        assert 0 <= figures["rollout/sampler_mismatch"] < 1e-6
