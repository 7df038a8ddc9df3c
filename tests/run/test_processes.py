"""How many processes the settings ask for, which one this is, and what does not fit together."""

from __future__ import annotations

from typing import cast

import pytest

from sdar.config.compose import compose_config
from sdar.errors import UserError
from sdar.learning.strategies import fully_sharded
from sdar.processes import Launched, count_devices, is_first_process, launched_from_outside, world_size
from sdar.run.rules import processes as parallel
from sdar.run.validate import validate
from toys.fake_vllm import install

TORCHRUN = {"TORCHELASTIC_RUN_ID": "x", "RANK": "3", "LOCAL_RANK": "1", "WORLD_SIZE": "4", "GROUP_RANK": "1"}
SLURM = {"SLURM_NTASKS": "8", "SLURM_PROCID": "0", "SLURM_JOB_NAME": "train"}


def check(*overrides: str) -> None:
    validate(compose_config(["experiment=smoke", "run_dir=somewhere", *overrides]))


@pytest.mark.parametrize(
    ("devices", "count"), [(3, 3), ("3", 3), ([0, 2], 2), ("0,2", 2), ("1,", 1), ("auto", 1), (-1, 1), ("-1", 1)]
)
def test_devices_are_counted_as_lightning_counts_them(devices: object, count: int) -> None:
    assert count_devices(devices, "cpu") == count


@pytest.mark.parametrize("devices", [0, -2, "two", "", True, 1.5, None])
def test_what_is_no_number_of_devices_is_an_error(devices: object) -> None:
    with pytest.raises(ValueError, match=r".*"):
        count_devices(devices, "cpu")


def test_the_world_is_devices_times_nodes_and_shards_go_over_all_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    assert world_size({"devices": 4, "num_nodes": 2, "accelerator": "cpu"}) == 8
    monkeypatch.setattr("sdar.learning.strategies.ModelParallelStrategy", dict)
    asked = cast("dict[str, object]", fully_sharded(4, 2, "cpu"))
    assert (asked["data_parallel_size"], asked["tensor_parallel_size"]) == (8, 1)


@pytest.mark.parametrize(
    ("environ", "launched", "first"),
    [
        ({}, None, True),
        (TORCHRUN, Launched(3, 4), False),
        (TORCHRUN | {"RANK": "0"}, Launched(0, 4), True),
        (SLURM, Launched(0, 8), True),
        (SLURM | {"SLURM_PROCID": "5"}, Launched(5, 8), False),
        (SLURM | {"SLURM_JOB_NAME": "interactive"}, None, True),
        ({"NODE_RANK": "1", "MASTER_ADDR": "first"}, None, False),
        ({"NODE_RANK": "0", "LOCAL_RANK": "1"}, None, False),
    ],
)
def test_one_process_of_a_run_is_the_first(environ: dict[str, str], launched: Launched | None, first: bool) -> None:
    assert launched_from_outside(environ) == launched
    assert is_first_process(environ) is first


def test_processes_started_from_outside_must_be_those_of_the_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (TORCHRUN | {"RANK": "0"}).items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UserError, match=r"trainer\.devices=1.*4 processes"):
        check()
    ddp = ["trainer=ddp", "trainer.accelerator=cpu", "rollout.tasks_per_iteration=4"]
    check(*ddp, "trainer.devices=4")
    check(*ddp, "trainer.devices=2", "trainer.num_nodes=2")
    with pytest.raises(UserError, match="4 processes that were launched"):
        check(*ddp, "trainer.devices=2")


def test_more_gpus_than_there_are_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parallel, "available_gpus", lambda: 0)
    with pytest.raises(UserError, match=r"trainer\.accelerator=gpu, but no GPU"):
        check("trainer=gpu")
    monkeypatch.setattr(parallel, "available_gpus", lambda: 1)
    check("trainer=gpu")
    with pytest.raises(UserError, match=r"trainer\.devices=2, but only 1 GPUs"):
        check("trainer=fsdp2", "trainer.accelerator=gpu")


def test_one_process_may_be_sharded() -> None:
    check("trainer=fsdp2", "trainer.accelerator=cpu", "trainer.devices=1")
    check("trainer=fsdp2", "trainer.accelerator=cpu", "trainer.devices=1", "algorithm=grpo_opsd_initial")


def test_ranks_hand_over_shares_of_the_weights_at_the_same_times(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch)
    sharded = ["rollout.backend=vllm", "trainer=fsdp2", "trainer.accelerator=cpu", "rollout.tasks_per_iteration=4"]
    check(*sharded)
    check(*sharded[:1], "trainer=ddp", *sharded[2:], "rollout.resample_rounds=1")
    with pytest.raises(UserError, match=r"rollout\.resample_rounds must be 0 with rollout\.backend=vllm.*got 1"):
        check(*sharded, "rollout.resample_rounds=1")


def test_a_server_that_nobody_would_ask_is_refused() -> None:
    with pytest.raises(UserError, match=r"rollout\.vllm\.url=http://127\.0\.0\.1:8000 needs rollout\.backend=vllm"):
        check("rollout.vllm.url=http://127.0.0.1:8000")


def test_ranks_that_share_a_server_hand_weights_over_together() -> None:
    served = ["rollout.backend=vllm", "rollout.vllm.url=http://127.0.0.1:8000", "rollout.tasks_per_iteration=4"]
    check(*served, "rollout.resample_rounds=1")  # a process alone
    several = [*served, "trainer=ddp", "trainer.accelerator=cpu"]
    check(*several)
    with pytest.raises(UserError, match=r"rollout\.resample_rounds must be 0 with .*rollout\.vllm\.url.*got 1"):
        check(*several, "rollout.resample_rounds=1")


def test_the_reference_codes_micro_batches_must_be_shared_evenly() -> None:
    release = ["loss_aggregation=reference_code", "rollout=window", "trainer=ddp", "trainer.accelerator=cpu"]
    check(*release, "loss_aggregation.micro_batch_rows=8", "optimizer.rows_per_step=32")
    with pytest.raises(UserError, match=r"optimizer\.rows_per_step.*2 processes.*8 rows.*got 24"):
        check(*release, "loss_aggregation.micro_batch_rows=8", "optimizer.rows_per_step=24")
