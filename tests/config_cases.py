"""Wrong command lines and what the one sentence about each must mention."""

from __future__ import annotations

import math
from typing import Any

WRONG_SETTINGS: dict[str, tuple[list[str], list[str]]] = {
    "unknown method": (["algorithm=ggrpo"], ["algorithm=ggrpo", "grpo", "sdar"]),
    "unknown model": (["model=tinny"], ["model=tinny", "hf", "tiny"]),
    "unknown environment": (["environment=alfwrld"], ["environment=alfwrld", "alfworld"]),
    "two methods": (["algorithm=grpo,sdar"], ["algorithm=grpo,sdar", "--multirun"]),
    "a list of methods": (["algorithm=[grpo,sdar]"], ["algorithm=", "grpo", "sdar"]),
    "no method": (["algorithm=null"], ["algorithm=null", "grpo", "sdar"]),
    "a method removed": (["~algorithm"], ["algorithm"]),
    "group of one": (["rollout.group_size=1"], ["rollout.group_size must", ">= 2, got 1"]),
    "negative beta": (["gate.beta=-0.5"], ["gate.beta must be a number >= 0, got -0.5"]),
    "beta is a word": (["gate.beta=five"], ["gate.beta must be a number >= 0, got 'five'"]),
    "beta is empty": (["gate.beta="], ["gate.beta must be a number", "got ''"]),
    "beta is not finite": (["gate.beta=inf"], ["gate.beta must be a number", "got inf"]),
    "beta refers to nothing": (["gate.beta=${nothing}"], ["beta", "nothing"]),
    "typo in a setting": (["trainer.max_epoch=3"], ["trainer.max_epoch=3", "trainer.max_epochs"]),
    "typo behind a plus": (["+trainer.max_epoch=3"], ["trainer.max_epoch=3", "trainer.max_epochs"]),
    "typo behind two": (["++trainer.max_epoch=3"], ["trainer.max_epoch=3", "trainer.max_epochs"]),
    "word for a number": (["trainer.max_epochs=abc"], ["trainer.max_epochs must be a whole number", "got 'abc'"]),
    "no iteration": (["trainer.max_epochs=0"], ["trainer.max_epochs", ">= 1, got 0"]),
    "typo at the top": (["sed=3"], ["sed=3", "did you mean seed"]),
    "typo in a group's name": (["algoritm=grpo"], ["algoritm='grpo'", "did you mean algorithm"]),
    "typo in a constructor's setting": (
        ["optimizer.learn_rate=1"],
        ["optimizer.learn_rate=1", "did you mean optimizer.learning_rate"],
    ),
    "typo in a callback's setting": (["callbacks.episodes.token_gap=true"], ["token_gap", "token_gaps"]),
    "typo deep inside": (["algorithm.objective.clip_hihg=0.3"], ["clip_hihg", "clip_high"]),
    "a fraction of a seed": (["seed=1.5"], ["seed must be a whole number", "got 1.5"]),
    "negative seed": (["seed=-1"], ["seed", ">= 0", "got -1"]),
    "no thread": (["threads=0"], ["threads", ">= 1", "got 0"]),
    "unknown context": (["rollout.context=sliding"], ["rollout.context must be 'append' or 'window', got 'sliding'"]),
    "negative history": (["rollout.history_turns=-1"], ["rollout.history_turns", ">= 0, got -1"]),
    "the release's statistics of conversations": (
        ["loss_aggregation=reference_code"],
        ["loss_aggregation=reference_code", "rollout=window"],
    ),
    "steps counted twice": (
        ["optimizer.rows_per_step=4", "optimizer.episodes_per_step=2"],
        ["optimizer.rows_per_step=4", "optimizer.episodes_per_step=2"],
    ),
    "rows that do not divide": (
        ["loss_aggregation=reference_code", "rollout=window", "optimizer.rows_per_step=100"],
        ["optimizer.rows_per_step", "loss_aggregation.micro_batch_rows=32", "got 100"],
    ),
    "no room for a prompt": (["rollout.max_prompt_tokens=0"], ["rollout.max_prompt_tokens", ">= 1", "got 0"]),
    "greedy training": (["rollout.sampling.temperature=0"], ["rollout.sampling.temperature must be > 0, got 0"]),
    "filtered training": (["rollout.sampling.top_p=0.9"], ["rollout.sampling.top_p must be 1, got 0.9"]),
    "top k in training": (["rollout.sampling.top_k=50"], ["rollout.sampling.top_k must be 0, got 50"]),
    "a setting the program fills in": (["+trainer.callbacks=[]"], ["trainer.callbacks", "the group callbacks"]),
    "learning rate that is no number": (
        ["optimizer.learning_rate=nan"],
        ["optimizer.learning_rate", ">= 1e-12 and <= 1, got nan"],
    ),
    "gradient clipping in the trainer": (["trainer.gradient_clip_val=1"], ["gradient_clip_val", "max_grad_norm"]),
    "something else to build": (["trainer._target_=os.system"], ["os.system", "sdar"]),
    "nothing to build": (["trainer._target_=lightning.Trainr"], ["lightning.Trainr"]),
    "a callback that is none": (["+callbacks.mine=3"], ["callbacks.mine", "_target_", "got 3"]),
    "no teacher to distil from": (["teacher=none"], ["distillation_coefficient", "teacher"]),
    "a method that distils without a teacher": (["algorithm=opsd", "teacher=none"], ["teacher=none", "algorithm=opsd"]),
    "a gate without a teacher": (
        ["algorithm=grpo", "teacher=none", "gate=entropy"],
        ["gate=entropy", "algorithm.score_teacher=false"],
    ),
    "a divergence without a teacher": (
        ["algorithm=grpo", "divergence=sampled_rkl"],
        ["divergence=sampled_rkl", "algorithm.score_teacher=false"],
    ),
    "an old teacher's distributions": (["divergence=jsd"], ["divergence=jsd", "teacher.source=old", "keep_hidden"]),
    "states that nobody needs": (["teacher.keep_hidden=true"], ["teacher.keep_hidden=true", "divergence=sampled"]),
    "states of a teacher that is there": (
        ["algorithm=opsd", "teacher.keep_hidden=true"],
        ["teacher.keep_hidden=true", "teacher.source=current"],
    ),
    "gaps nobody measures": (
        ["algorithm=skill_grpo", "retrieval=ucb", "retrieval.reward=gap_on_success"],
        ["retrieval.reward=gap_on_success", "algorithm.score_teacher=false", "retrieval.reward=return"],
    ),
    "a copy of another temperature": (
        ["module.temperature=0.5"],
        ["module.temperature is now rollout.sampling.temperature"],
    ),
    "a copy of another context": (["collector.context=window"], ["collector.context is now rollout.context"]),
    "a copy of another seed": (["datamodule.seed=4"], ["datamodule.seed is now seed"]),
    "a copy of another group": (["datamodule.group_size=3"], ["datamodule.group_size is now rollout.group_size"]),
    "a copy of another coefficient": (["module.objective.clip_high=0.4"], ["module.objective", "algorithm.objective"]),
    "a seed beyond 32 bits": (["seed=4294967296"], ["seed", "<= 4294967295, got 4294967296"]),
    "a limit in steps": (["trainer.max_steps=1"], ["trainer.max_steps=1", "trainer.max_epochs"]),
    "no batch": (["trainer.limit_train_batches=0"], ["trainer.limit_train_batches=0", "trainer.max_epochs"]),
    "a trial run of the trainer": (["trainer.fast_dev_run=true"], ["trainer.fast_dev_run=true", "experiment=smoke"]),
    "no checkpoint at all": (["callbacks.checkpoint.every_n_iterations=0"], ["every_n_iterations", ">= 1, got 0"]),
    "a folder as checkpoint": (["ckpt_path=."], ["ckpt_path=.", "checkpoints/last.ckpt"]),
    "data that a variable should name": (
        ["experiment=paper/webshop_qwen2_5_3b"],
        ["environment.data_dir is not set", "WEBSHOP_DATA=VALUE"],
    ),
    "a number of tasks below nothing": (
        ["environment.num_tasks=-4"],
        ["environment.num_tasks must be a list of whole", "got -4"],
    ),
    "skills chosen for nobody": (["teacher=hindsight", "retrieval=ucb"], ["retrieval", "UCB", "teacher=skills"]),
    "skills chosen beside a demonstration": (["teacher=demonstration", "retrieval=none"], ["retrieval=keyword"]),
    "another teacher without a model": (["teacher.source=other"], ["teacher.source", "teacher.other"]),
    "unknown source": (["teacher.source=young"], ["teacher.source", "young", "ema"]),
    "raw entropy in the soft or": (
        ["gate=soft_or", "gate.entropy_scale=raw"],
        ["gate.entropy_scale", "gate.allow_raw_entropy=true"],
    ),
    "unknown entropy scale": (
        ["gate=entropy", "gate.entropy_scale=bits"],
        ["gate.entropy_scale must be 'normalized' or 'raw', got 'bits'"],
    ),
    "an empty top": (["algorithm=opsd", "divergence.top_k=0"], ["divergence.top_k", ">= 1", "got 0"]),
    "a slope for no gate": (
        ["gate=none", "schedule.beta.value=2"],
        ["schedule.beta", "gate=none"],
    ),
    "feedback from a gate that ignores the teacher": (
        ["gate=entropy", "schedule=feedback"],
        ["schedule.coefficient", "gate=entropy"],
    ),
    "feedback of a teacher that nobody asks": (
        ["algorithm=grpo", "~schedule.policy", "+schedule.policy={_target_:sdar.objective.schedule.Feedback}"],
        ["schedule.policy", "algorithm.score_teacher=false"],
    ),
    "a share of no term": (
        ["algorithm=rlsd", "schedule=share"],
        ["schedule.coefficient=Share", "algorithm.objective.distillation_coefficient=0"],
    ),
    "a warm-down that ends before it begins": (
        ["schedule=warm_down", "schedule.coefficient.hold=9", "schedule.coefficient.zero_at=9"],
        ["zero_at must be > hold=9, got 9"],
    ),
    "k1 as a loss": (["algorithm.objective.kl_kind=k1"], ["kl_kind must be 'k2' or 'k3' or 'k1_in_reward', got 'k1'"]),
    "a charge on rewards that nobody learns from": (
        ["algorithm=opsd", "algorithm.objective.kl_coefficient=0.01", "algorithm.objective.kl_kind=k1_in_reward"],
        ["kl_kind", "k1_in_reward", "policy_coefficient"],
    ),
    "a model without a name": (["model=hf"], ["model.name"]),
    "adapters without a rank": (["model.lora.rank=0"], ["model.lora.rank", ">= 1, got 0"]),
    "adapters that drop all": (["model.lora.dropout=1"], ["model.lora.dropout", "< 1, got 1"]),
    "typo in the adapters": (["model.lora.rnk=8"], ["model.lora.rnk=8", "did you mean model.lora.rank"]),
    "adapters that are a number": (["model.lora=8"], ["model.lora must be a mapping (LoraSettings) or null, got 8"]),
    "a setting for a group": (["trainer=3"], ["trainer=3", "cpu"]),
    "settings below a number": (["seed.x=3"], ["seed"]),
    "no setting at all": (["nonsense"], ["'nonsense'", "name=value"]),
    "an open bracket": (["seed=["], ["'seed=['", "name=value"]),
    "Hydra's own settings": (["hydra.run.dir=x"], ["hydra.run.dir=x", "run_dir"]),
    "removing what is not there": (["~nothing"], ["nothing"]),
    "training without a term": (["algorithm=skill_prompt", "train=true"], ["every coefficient is 0", "train=false"]),
    "one ratio for rows that part": (
        ["algorithm.objective.ratio=episode", "rollout=window"],
        ["ratio=episode", "rollout.context=window", "rollout=append"],
    ),
    "a ratio of nothing": (["algorithm.objective.ratio=word"], ["ratio", "'turn'", "got 'word'"]),
    "a constant length for means of micro-batches": (
        [
            "algorithm=grpo",
            "loss_aggregation=reference_code",
            "rollout=window",
            "algorithm.objective.policy_length={_target_: "
            "sdar.objective.objective.ConstantLength, turns: 3, response_tokens: 4}",
        ],
        ["policy_length", "loss_aggregation=reference_code"],
    ),
    "the release's statistics of another advantage": (
        ["algorithm=gigpo", "loss_aggregation=reference_code", "rollout=window"],
        ["loss_aggregation=reference_code", "StepGroupAdvantage", "algorithm=grpo"],
    ),
    "shaping without a scored teacher": (
        ["algorithm=rlsd", "algorithm.score_teacher=false"],
        ["algorithm.shaping", "algorithm.score_teacher=false"],
    ),
    "shaping of advantages that nobody learns from": (
        ["algorithm=rlsd", "algorithm.objective.policy_coefficient=0"],
        ["algorithm.shaping.weight=0.5", "policy_coefficient=0"],
    ),
    "shaping without its class": (["algorithm.shaping.weight=0.5"], ["algorithm.shaping", "no _target_"]),
    "an advantage as supervision": (
        ["algorithm.supervision={_target_: sdar.objective.gigpo.StepGroupAdvantage}"],
        ["algorithm.supervision._target_", "StepGroupAdvantage", "sdar.learning.supervision.Supervision"],
    ),
    "a shaping as the advantage": (
        ["algorithm.advantage._target_=sdar.objective.shaping.RLSD"],
        ["algorithm.advantage._target_", "sdar.objective.estimator.AdvantageEstimator"],
    ),
    "a schedule of the coefficient as all schedules": (
        ["schedule._target_=sdar.objective.schedule.Linear"],
        ["schedule._target_", "sdar.objective.schedule.Schedules"],
    ),
    "a divergence as the gate": (
        ["gate._target_=sdar.objective.divergence.Sampled"],
        ["gate._target_", "sdar.objective.gate.Gate"],
    ),
    "an analyzer as the teacher": (
        ["algorithm=hindsight", "teacher._target_=sdar.teacher.hindsight.RuleAnalyzer"],
        ["teacher._target_", "sdar.teacher.base.Teacher"],
    ),
    "a teacher as its own analyzer": (
        ["algorithm=hindsight", "teacher.analyzer._target_=sdar.teacher.hindsight.HindsightTeacher"],
        ["teacher.analyzer._target_", "sdar.teacher.hindsight.Analyzer"],
    ),
    "nobody to score": (
        ["algorithm=grpo", "algorithm.score_teacher=true", "teacher=none"],
        ["algorithm.score_teacher=true", "teacher=none"],
    ),
    "a schedule of nothing": (
        ["algorithm=grpo", "schedule=warm_down"],
        ["schedule.coefficient", "algorithm.score_teacher=false"],
    ),
    "hindsight in the prompt": (
        ["algorithm=skill_grpo", "teacher=hindsight"],
        ["skills_in_prompt=true", "only known after the episode", "teacher=skills"],
    ),
    "a sibling in the prompt": (
        ["algorithm=skill_prompt", "teacher=sibling"],
        ["skills_in_prompt=true", "only known after the episode"],
    ),
    "hindsight of no action": (
        ["algorithm=hindsight", "teacher.analyzer.at_most=0"],
        ["teacher.analyzer.at_most", ">= 1, got 0"],
    ),
    "skills in the prompt and a teacher with the same": (
        ["algorithm=skill_grpo", "algorithm.score_teacher=true"],
        ["skills_in_prompt=true", "score_teacher=true"],
    ),
    "no skills for the prompt": (["algorithm=skill_grpo", "teacher=none"], ["skills_in_prompt=true", "teacher=none"]),
    "shaping beyond itself": (
        ["algorithm=rlsd", "algorithm.shaping.weight=1.5"],
        ["algorithm.shaping.weight", "<= 1, got 1.5"],
    ),
    "rounds below none": (["rollout.resample_rounds=-1"], ["rollout.resample_rounds", ">= 0, got -1"]),
    "a discount that grows": (
        ["algorithm=gigpo", "algorithm.advantage.gamma=1.1"],
        ["algorithm.advantage.gamma", "<= 1, got 1.1"],
    ),
    "a mode that is none": (
        ["algorithm=gigpo", "algorithm.advantage.mode=none"],
        ["mode", "'mean_std_norm'", "got 'none'"],
    ),
    "no such checkpoint": (["ckpt_path=no/such/file.ckpt"], ["ckpt_path=no/such/file.ckpt", "last"]),
    "empty panel": (["evaluation.panel_size=0"], ["evaluation.panel_size", ">= 1, got 0"]),
    "tasks that processes cannot share": (
        ["trainer=ddp", "trainer.accelerator=cpu", "trainer.devices=4"],
        ["rollout.tasks_per_iteration", "4 processes", "got 6"],
    ),
    "tasks that nodes cannot share": (
        ["trainer=fsdp2", "trainer.accelerator=cpu", "trainer.num_nodes=4"],
        ["rollout.tasks_per_iteration", "8 processes", "got 6"],
    ),
    "steps that processes cannot share": (
        ["trainer=ddp", "trainer.accelerator=cpu", "optimizer.episodes_per_step=9"],
        ["optimizer.episodes_per_step", "2 processes", "got 9"],
    ),
    "no device": (["trainer.devices=0"], ["trainer.devices", ">= 1", "got 0"]),
    "devices in words": (["trainer.devices=two"], ["trainer.devices", "a number", "got 'two'"]),
    "a precision with loss scaling": (
        ["trainer.precision=16-mixed"],
        ["trainer.precision", "bf16-mixed", "got 16-mixed"],
    ),
    "a precision that would need it": (
        ["trainer.precision=16-true"],
        ["trainer.precision", "bf16-true", "got 16-true"],
    ),
    "a precision that is not sharded": (
        ["trainer=fsdp2", "trainer.accelerator=cpu", "trainer.precision=64-true"],
        ["trainer.precision", "32-true", "got 64-true"],
    ),
    "an average of weights that are spread": (
        ["trainer=fsdp2", "trainer.accelerator=cpu", "teacher.source=ema"],
        ["teacher.source=ema", "trainer.strategy", "trainer=ddp"],
    ),
    "adapters that are not sharded": (
        ["trainer=fsdp2", "trainer.accelerator=cpu", "model=hf", "model.name=x", "model.lora={rank: 8}"],
        ["model.lora", "ddp"],
    ),
}
"""name -> (overrides, what the message contains)"""

WRONG_SETTINGS |= {
    "a name that leads out": (["name=.."], ["name must be a folder's name below logs_dir", "got '..'"]),
    "a name that leads out inside": (["name=a/../../b"], ["name must be", "below logs_dir"]),
    "a name that is a path": (["name=/abs"], ["name must be", "below logs_dir"]),
    "a run without a folder": (["run_dir=''"], ["run_dir must be a path, got ''"]),
    "two settings that are each other": (["name=${logs_dir}", "logs_dir=${name}"], ["name", "Recursive"]),
    "a setting that is itself": (["gate.beta=${gate.beta}"], ["gate.beta", "Recursive"]),
    "a group that is its child": (["gate.beta=${gate}"], ["gate.beta", "parent"]),
    "a resolver that does not exist": (["seed=${oc.nope:3}"], ["seed", "oc.nope"]),
    "a variable without a name": (["seed=${oc.env:}"], ["seed", "env()"]),
    "a variable that is a text": (["seed=${oc.env:PATH}"], ["seed must be a whole number"]),
    "a variable that is not set": (["seed=${oc.env:SDAR_NOT_SET}"], ["seed is not set", "SDAR_NOT_SET=VALUE"]),
    "a required setting": (["seed=???"], ["seed is not set"]),
    "a trainer removed": (["~trainer"], ["trainer"]),
    "a length removed": (["~trainer.max_epochs"], ["trainer.max_epochs must be a whole number >= 1, got null"]),
    "a seed removed": (["~seed"], ["seed is missing"]),
    "a teacher removed": (["~teacher"], ["teacher"]),
    "a gate that is a mapping": (["gate={}"], ["gate={}", "entropy, gap"]),
    "a choice with a dot": (["gate=entropy.x"], ["gate=entropy.x", "did you mean entropy"]),
    "a choice outside": (["experiment=../train"], ["experiment=../train", "--help lists"]),
    "a choice that is a file": (["algorithm=sdar.yaml"], ["did you mean sdar"]),
    "an index into a list": (["optimizer.betas.x=3"], ["optimizer.betas.x=3", "cannot be applied"]),
    "an index that is not there": (["optimizer.betas.5=3"], ["optimizer.betas.5=3", "cannot be applied"]),
    "a unit that is none": (["trainer.max_time={fortnights: 2}"], ["trainer.max_time must be DD:HH:MM:SS"]),
    "a validation loop that there is not": (
        ["+trainer.limit_val_batches=0"],
        ["trainer.limit_val_batches=0", "evaluation.every_n_iterations"],
    ),
    "less patience than none": (
        ["callbacks.x={_target_: lightning.pytorch.callbacks.EarlyStopping, monitor: a, patience: -5}"],
        ["callbacks.x.patience must be a whole number >= 0, got -5"],
    ),
    "a callback that steps the optimizer": (
        ["callbacks.x={_target_: lightning.pytorch.callbacks.StochasticWeightAveraging, swa_lrs: 1}"],
        ["StochasticWeightAveraging", "the module steps its optimizer itself"],
    ),
    "a callback that changes the weights": (
        ["callbacks.x={_target_: lightning.pytorch.callbacks.EMAWeightAveraging}"],
        ["EMAWeightAveraging", "callbacks must leave the weights alone"],
    ),
    "weights spread over other devices": (
        ["trainer=fsdp2", "trainer.accelerator=cpu", "trainer.strategy.devices=3"],
        ["trainer.strategy.devices must be trainer.devices=2, got 3"],
    ),
    "a longer least than most": (
        ["trainer.min_epochs=50", "trainer.max_epochs=2"],
        ["trainer.min_epochs must be <= trainer.max_epochs=2, got 50"],
    ),
}

LONG = "n" * 100_000

WRONG_VALUES: dict[str, list[Any]] = {
    "name": [None, 3, "", ".", "..", "/", "a//b", "a/", "a/./b", "a\\b", "a\0b", "\x1b[31mred", "a\nb", LONG],
    "seed": [None, True, "3", 3.0, math.nan, [1], {"a": 1}, 10**30],
    "train": [None, 1, "true", []],
    "threads": [True, -1, 1.0, "two", []],
    "ckpt_path": ["", " ", "a\0b", LONG, "/dev/zero", 3, []],
    "logs_dir": [None, "", "a\0b", LONG, 3],
    "run_dir": ["", "a\0b", LONG, 3],
    "skills": [None, "", LONG],
    "teacher.library.folder": [None, "", LONG],
    "model.path": [None, "", LONG, {}],
    "optimizer.learning_rate": [0, -1, 1e300, 1e-300, 2, math.inf, "1e-4", True, None],
    "optimizer.betas": [[2, 3], [0.9], [], [0.9, 0.99, 0.999], [0.9, 1.0], [0.9, math.nan], 0.9, "ab", None, {"a": 1}],
    "optimizer.eps": [0, 1e-30, 2, None],
    "optimizer.weight_decay": [-0.1, 1e300, None],
    "optimizer.max_grad_norm": [0, -1, 1e-30, 1e300],
    "rollout.group_size": [10**10, 2.0, None],
    "rollout.tasks_per_iteration": [0, 10**10],
    "rollout.sampling.temperature": [1e-30, 0.001, 1e30, 101, -1, None],
    "rollout.sampling": [None, 3, []],
    "evaluation.sampling.temperature": [1e-30, -1, math.nan],
    "evaluation.panel_size": [-1, 10**30, True],
    "gate.beta": [1e300, 10**400, True, None, [5.0]],
    "gate._target_": [None, 3, "", "sdar", "sdar.", "sdar..x", "sdar.objective", LONG, [], {}],
    "schedule.coefficient.value": [1e300, -1, None],
    "environment.max_turns": [10**12, 1.5, None],
    "environment.num_tasks": [3, ["a"], [0, 1, 1], [10**9, 1, 1]],
    "environment.data_dir": ["", "a\0b", LONG],
    "environment.generator.receptacles": [[8], [8, 99], "ab"],
    "callbacks.episodes.directory": ["", LONG, 3],
    "callbacks.curriculum.patience": [-5, 0, 1.5],
    "logger.tensorboard.name": [LONG],
    "logger.tensorboard.save_dir": [None, ""],
    "trainer.max_epochs": [None, -1, 10**12],
    "trainer.max_time": ["abc", "00:00:00:00", {}, {"hours": -1}, 3],
    "trainer.accelerator": ["", "abc", "tpu", None],
    "trainer.devices": [[], [0, 0], [-1], "0,0", -2, 1.5, True, None, ""],
    "trainer.strategy": ["abc", "fsdp", "deepspeed", 3, None],
    "trainer.profiler": ["abc", 3],
    "trainer.log_every_n_steps": [0, -1],
    "trainer.check_val_every_n_epoch": [2],
    "trainer.val_check_interval": [1],
    "trainer.num_sanity_val_steps": [2],
    "trainer.use_distributed_sampler": [True],
    "trainer.reload_dataloaders_every_n_epochs": [1],
    "trainer.default_root_dir": ["x"],
    "trainer.barebones": [True],
}
"""Setting -> values that it must not take, each by itself in a configuration that is right."""

UNREADABLE: dict[str, str] = {
    "name=m\u00fcller": "\u00fc",
    "name=\u65e5": "\u65e5",
    "name=a=b": "=",
    "name=a(b": "(",
    "name=a[b": "[",
    "name=a~b": "~",
    "name=it's": "'",
    'name=say "x"': '"',
    "name=a&b": "&",
    "name=a#b": "#",
    "name=a;b": ";",
    "name=a(b)": "(",
    "+name=a{b": "{",
}
"""An override -> the letter that Hydra's grammar cannot read."""

NO_OVERRIDES = [
    "",
    "=",
    "==",
    "=3",
    "+",
    "++",
    "~=",
    "a b=3",
    "gr\u00f6\u00dfe=3",
    "'seed'=3",
    "seed..x=3",
    "gate@x=gap",
    LONG,
]
NO_OVERRIDES += [
    f"{LONG}=1",
    "seed=${",
    "seed=${}",
    "seed='\x1b",
    "x=" + "[" * 500 + "]" * 500,
    "x=" + "{a:" * 99 + "1" + "}" * 99,
]
NO_OVERRIDES += ["seed=" + "9" * 5000, "seed=tag(a,b)", "trainer:x=3"]
"""Words that are no override at all."""
