"""SDARModule: one iteration of self-distilled agentic reinforcement learning in one training step.

PREPARE (:mod:`sdar.learning.prepare`) fixes everything that theta_old decides; UPDATE (:mod:`sdar.learning.update`,
:mod:`sdar.learning.loss`) is token-local and moves theta. Here are settings, checkpoint, and the order of an iteration.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from lightning.pytorch.strategies import ModelParallelStrategy
from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig
from transformers import PreTrainedModel

from sdar.checks import check_not_negative, check_positive
from sdar.episode import Episode
from sdar.errors import UserError
from sdar.learning.datamodule import Iteration
from sdar.learning.metrics import (
    RESPONSE_TOKENS,
    IterationReport,
    Tally,
    add_rollout,
    add_sampling,
    add_scores,
    iteration_metrics,
)
from sdar.learning.outcomes import task_outcomes
from sdar.learning.prepare import Prepared, PrepareSettings, prepare
from sdar.learning.step_plan import check_step_settings
from sdar.learning.supervision import Supervision, supervised_steps
from sdar.learning.update import OptimisingModule
from sdar.objective.estimator import AdvantageEstimator, GroupAdvantage
from sdar.objective.objective import ObjectiveConfig, check_policy_loss
from sdar.objective.schedule import Schedules
from sdar.objective.shaping import Shaping
from sdar.policy.checkpoint import CHECKPOINT_KEY, check_origin, check_parameters, keep_trained, origin
from sdar.policy.language_model import LanguageModel
from sdar.policy.lora import adapters_off
from sdar.policy.sharding import gathered, is_sharded, shard
from sdar.policy.trainable import trainable
from sdar.rollout.conversation import CONTEXTS
from sdar.teacher.base import Teacher
from sdar.teacher.weights import TeacherModel, TeacherSource, check_needs, check_sharding

SCHEDULES_KEY = "sdar_schedules"
TEACHER_KEY = "sdar_teacher"
CONTEXT_KEY = "sdar_teacher_context"
"""Where the states of schedules, of an averaged teacher, and of what a teacher remembers lie in the checkpoint."""


class SDARModule(OptimisingModule):
    """Trains a policy on the episodes it played, with rewards and with itself as a better-informed teacher.

    Args:
        policy: the language model; its weights at this moment are the reference of the KL term. With adapters
            (``policy.lora``) these alone are trained and saved, and the reference is the model with them off.
        objective: terms and coefficients.
        teacher: gives the privileged text of every episode; None leaves the teacher out.
        score_teacher: whether the teacher is scored (and ``curriculum/*`` logged). With a distillation coefficient
            of 0 scoring changes no weight, episode or other metric.
        learning_rate: > 0, of AdamW; constant after the warm-up.
        weight_decay: >= 0, of AdamW.
        betas: of AdamW, each in [0, 1).
        warmup_steps: optimiser steps over which the learning rate rises linearly to its value; 0: none.
        max_grad_norm: > 0, the gradient's largest Euclidean norm; None: no limit.
        advantage: credit of every turn; None: that of GRPO.
        shaping: what the teacher makes of the advantages, token by token; None: nothing.
        supervision: rows that are imitated beside; None: none.
        temperature: > 0, the sampling temperature; log-probs are those of the sampling distribution.
        episodes_per_step: episodes of all ranks per optimiser step, a multiple of the number of ranks; None: one
            step per iteration.
        rows_per_step: rows of all ranks per optimiser step (a row is an episode with append, a turn with window),
            instead of ``episodes_per_step``; None: steps are counted in episodes.
        statistics: ``episode``, group statistics over episodes and means over all tokens of an optimiser step; or
            ``release``, those of the paper's code: group statistics over turn rows, means over each micro-batch.
        micro_batch_rows: rows per micro-batch with ``release``; None with ``episode``.
        token_budget: padded tokens per micro-batch (with ``release``: of the teacher's scoring alone); a longer row
            is one by itself.
        schedules: how the distillation coefficient and the gate's slope change over the iterations; None: not at all.
        context: how the episodes are played, append or window; it decides what a row is.

    Raises:
        UserError: a setting is out of its range, or the model has no parameter to train.
    """

    def __init__(
        self,
        policy: LanguageModel,
        objective: ObjectiveConfig,
        teacher: Teacher | None = None,
        *,
        score_teacher: bool = True,
        learning_rate: float = 1e-6,
        weight_decay: float = 0.01,
        betas: Sequence[float] = (0.9, 0.999),
        warmup_steps: int = 0,
        max_grad_norm: float | None = 1.0,
        advantage: AdvantageEstimator | None = None,
        shaping: Shaping | None = None,
        supervision: Supervision | None = None,
        temperature: float = 1.0,
        episodes_per_step: int | None = None,
        rows_per_step: int | None = None,
        statistics: str = "episode",
        micro_batch_rows: int | None = None,
        token_budget: int = 16384,
        schedules: Schedules | None = None,
        context: str = "append",
    ) -> None:
        super().__init__()
        self.automatic_optimization = False
        check_positive(learning_rate=learning_rate, temperature=temperature)
        check_not_negative(weight_decay=weight_decay, warmup_steps=warmup_steps)
        if max_grad_norm is not None:
            check_positive(max_grad_norm=max_grad_norm)
        self.policy = policy
        self.model = policy.model
        self.objective = objective
        self.teacher = teacher if score_teacher else None
        # Skills may be in the prompts where no teacher is scored: whoever chose them is told how it went.
        self._informed = teacher
        for what, value in (
            ("distillation_coefficient", objective.distillation_coefficient),
            ("the weight of the shaping", 0.0 if shaping is None else shaping.weight),
        ):
            if self.teacher is None and value != 0:
                raise UserError(f"{what} is {value}, but no teacher is scored; give a teacher or set it to 0")
        self.learning_rate = learning_rate
        self.weight_decay = weight_decay
        self.betas = (float(betas[0]), float(betas[1]))
        self.warmup_steps = warmup_steps
        self.max_grad_norm = max_grad_norm
        self.shaping = shaping
        self.supervision = None if supervision is None or supervision.coefficient == 0 else supervision
        self.temperature = temperature
        self.episodes_per_step = episodes_per_step
        self.token_budget = token_budget
        self.schedules = schedules or Schedules()
        if context not in CONTEXTS:
            raise UserError(f"context is {context!r}, allowed are {' and '.join(CONTEXTS)}")
        check_policy_loss(objective, context=context, statistics=statistics)
        check_step_settings(
            statistics=statistics,
            context=context,
            episodes_per_step=episodes_per_step,
            rows_per_step=rows_per_step,
            micro_batch_rows=micro_batch_rows,
        )
        self.context = context
        self.rows_per_step = rows_per_step
        self.statistics = statistics
        estimator = advantage or GroupAdvantage()
        self.advantage = estimator.over_turn_rows() if statistics == "release" else estimator
        self.micro_batch_rows = micro_batch_rows
        self.report: IterationReport | None = None
        self._contexts: list[str] | None = None
        # A checkpoint of adapters does not hold the frozen weights; check_parameters sees to it that all else is there.
        self.strict_loading = policy.lora is None
        self._moves = False
        if not trainable(self.model):
            raise UserError(f"model: {policy.name!r} has no parameter to train; all are frozen")
        # In a list, so that torch does not register it: it is neither trained nor saved nor seen by DDP.
        self._reference: list[PreTrainedModel] = []
        source = self.teacher.weights.source if self.teacher is not None else None
        if (objective.kl_coefficient != 0 or source is TeacherSource.INITIAL) and policy.lora is None:
            self._reference.append(copy.deepcopy(self.model).requires_grad_(False).train(False))
        self._teacher_model: TeacherModel | None = None
        if self.teacher is not None:
            weights = self.teacher.weights
            check_needs(objective.divergence, weights.source, keep_hidden=weights.keep_hidden)
            self._teacher_model = TeacherModel(self.teacher.weights, policy, self.initial)

    def configure_model(self) -> None:
        """Spread student and reference over the processes where the strategy asks for it (FSDP2)."""
        strategy = self.trainer.strategy
        if not isinstance(strategy, ModelParallelStrategy):
            return
        if self._teacher_model is not None:
            check_sharding(self.objective.divergence, self._teacher_model.settings.source)
        mesh = strategy.device_mesh["data_parallel"]
        precision = self.trainer.precision
        for model in (self.model, *self._reference):
            if precision == "bf16-true" and not is_sharded(model):
                torch.nn.Module.to(model, dtype=torch.bfloat16)
            shard(model, mesh, torch.bfloat16 if precision == "bf16-mixed" else None)

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        """AdamW with a constant learning rate after an optional linear warm-up, counted in optimiser steps."""
        optimizer = torch.optim.AdamW(
            trainable(self.model), lr=self.learning_rate, betas=self.betas, weight_decay=self.weight_decay
        )
        warmup = self.warmup_steps
        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: min(1.0, (step + 1) / (warmup + 1)))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def on_fit_start(self) -> None:
        """Check what depends on the trainer, and bring the reference to the model's device."""
        self.objective.check_terms()
        precision = self.trainer.precision
        if precision in ("16-mixed", "16-true"):
            raise UserError(f"trainer.precision is {precision!r}, allowed are '32-true', 'bf16-mixed' and 'bf16-true'")
        world_size = self.trainer.world_size
        if self.episodes_per_step is not None and self.episodes_per_step % world_size != 0:
            raise UserError(
                f"episodes_per_step is {self.episodes_per_step}, but it must be a multiple of the {world_size} "
                f"processes of the run"
            )
        if self.statistics == "release":
            assert self.rows_per_step is not None
            assert self.micro_batch_rows is not None
            if self.rows_per_step % (world_size * self.micro_batch_rows) != 0:
                raise UserError(
                    f"rows_per_step is {self.rows_per_step}, but it must be a multiple of the {world_size} processes "
                    f"of the run times the {self.micro_batch_rows} rows of a micro-batch"
                )
        # Lightning warns of modules that begin in evaluation mode; training_step sets the mode it needs.
        self.model.train()
        copies = [] if self._teacher_model is None else self._teacher_model.copies
        for frozen in (*self._reference, *copies):
            torch.nn.Module.to(frozen, self.device, self.model.dtype)

    @contextmanager
    def reference(self) -> Iterator[PreTrainedModel | None]:
        """The frozen policy of the KL term, for a while; None: the term is left out."""
        if self.objective.kl_coefficient == 0:
            yield None
        else:
            with self.initial() as model:
                yield model

    @contextmanager
    def initial(self) -> Iterator[PreTrainedModel]:
        """The policy that the run started from, for a while.

        A copy of the initial weights, or, where adapters are trained, the student itself with its adapters off: the
        student must not be used as such meanwhile.
        """
        if self.policy.lora is None:
            with gathered(self._reference[0]):
                yield self._reference[0]
        else:
            with adapters_off(self.model) as frozen:
                yield frozen

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Record the frozen initial weights by their hash; they are not in the checkpoint."""
        checkpoint[CHECKPOINT_KEY] = origin(self.policy)
        keep_trained(checkpoint, self, self.policy)
        checkpoint[SCHEDULES_KEY] = self.schedules.state()
        if self._teacher_model is not None:
            checkpoint[TEACHER_KEY] = self._teacher_model.state()
        if self._informed is not None:
            checkpoint[CONTEXT_KEY] = self._informed.state()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuse a checkpoint whose run started from other weights: the reference would be another one."""
        check_origin(checkpoint, self.policy)
        check_parameters(checkpoint, self, self.policy)
        if SCHEDULES_KEY in checkpoint:
            self.schedules.load_state(checkpoint[SCHEDULES_KEY])
        if self._teacher_model is not None:
            self._teacher_model.load_state(checkpoint.get(TEACHER_KEY, {}))
        if self._informed is not None:
            self._informed.load_state(checkpoint.get(CONTEXT_KEY, {}))

    def training_step(self, iteration: Iteration) -> None:
        """Learn from one iteration: PREPARE, UPDATE, log.

        Raises:
            FloatingPointError: loss or gradient is not finite; the optimiser has not moved since.
        """
        # Without dropout the ratio of the first step is exactly 1; gradient checkpointing needs the training mode.
        self.model.train(False)
        tally = Tally()
        started = time.perf_counter()
        prepared = self._prepare(iteration.episodes, iteration.index)
        add_rollout(tally, iteration.drawn)
        if iteration.sampled is not None:
            add_sampling(tally, iteration.sampled)
        for name, (total, count) in self.advantage.figures(iteration.episodes).items():
            tally.mean(name, total, count)
        objective = self._scheduled(iteration.index)
        add_scores(tally, prepared, objective.gate)
        tally.total(RESPONSE_TOKENS, int(prepared.batch.response_mask.sum()))
        scored = time.perf_counter()
        dropout = self.policy.lora is not None and self.policy.lora.dropout > 0
        self.model.train(
            dropout or any(getattr(part, "gradient_checkpointing", False) for part in self.model.modules())
        )
        self._supervise(iteration.episodes, prepared)
        self._update(iteration.index, prepared, objective, tally)
        updated = time.perf_counter()
        seconds = {**iteration.timings, "score_s": scored - started, "update_s": updated - scored}
        for name, value in seconds.items():
            tally.maximum(f"time/{name}", value)
        metrics = iteration_metrics(tally.reduced(self._reduce)) | self._schedule_figures(objective, iteration.index)
        metrics |= self._observe(iteration, prepared)
        self._finish(metrics)
        self._log_figures(metrics, iteration.index)
        record = {} if self._informed is None else self._informed.record()
        self.report = IterationReport(iteration.index, metrics, prepared, self._contexts, record)

    # ------------------------------------------------------------------ schedules

    def _scheduled(self, index: int) -> ObjectiveConfig:
        """The objective of an iteration."""
        return self.objective.scheduled(self.schedules.coefficient.factor(index), self.schedules.beta.factor(index))

    def _scheduled_shaping(self, index: int) -> Shaping | None:
        """The shaping of an iteration; None where its weight is 0: then nothing is touched."""
        shaping = self.shaping and self.shaping.scaled(self.schedules.coefficient.factor(index))
        return None if shaping is None or shaping.weight == 0 else shaping

    def _schedule_figures(self, objective: ObjectiveConfig, index: int) -> dict[str, float]:
        """What the schedules made of lambda and beta; nothing where no teacher is scored."""
        if self.teacher is None:
            return {}
        figures = {"objective/distillation_coefficient": objective.distillation_coefficient}
        if self.shaping is not None:
            shaping = self._scheduled_shaping(index)
            figures["objective/shaping_weight"] = 0.0 if shaping is None else shaping.weight
        beta = getattr(objective.gate, "beta", None)
        return figures if beta is None else figures | {"objective/beta": beta}

    def _finish(self, metrics: dict[str, float]) -> None:
        """Let schedules and teacher follow the iteration; the figures are those of all ranks."""
        if (activity := metrics.get("curriculum/strongly_gated_fraction")) is not None:
            self.schedules.observe(activity)
        if self._teacher_model is not None:
            self._teacher_model.follow()

    def _observe(self, iteration: Iteration, prepared: Prepared) -> dict[str, float]:
        """Tell the teacher what became of the iteration, on every rank the same; returns its figures."""
        if self._informed is None:
            return {}
        outcomes = task_outcomes(iteration.tasks, iteration.episodes, prepared.batch, self._reduce, iteration.replaced)
        self._informed.observe(outcomes, self._gathered(self._informed.gather(iteration.episodes)))
        return self._informed.figures()

    def _gathered(self, values: list[Any]) -> list[Any]:
        """The values of all ranks, rank by rank."""
        if self._world_size == 1:
            return values
        parts: list[list[Any]] = [[] for _ in range(self._world_size)]
        torch.distributed.all_gather_object(parts, values)
        return [value for part in parts for value in part]

    # ------------------------------------------------------------------ PREPARE

    def _prepare(self, episodes: Sequence[Episode], index: int) -> Prepared:
        # Autocast keeps casts of weights; those made under no_grad or before an optimiser step must not be used again.
        torch.clear_autocast_cache()
        settings = PrepareSettings(
            temperature=self.temperature,
            advantage=self.advantage,
            shaping=self._scheduled_shaping(index),
            reward_kl_coefficient=self.objective.reward_kl_coefficient,
            episodes_per_step=None if self.episodes_per_step is None else self.episodes_per_step // self._world_size,
            token_budget=self.token_budget,
            context_tokens=self.policy.context_tokens,
            pad_id=self.policy.pad_id,
            context=self.context,
            rows_per_step=self.rows_per_step,
            micro_batch_rows=self.micro_batch_rows,
            statistics=self.statistics,
            world_size=self._world_size,
        )
        # Ranks have rows of different lengths, and so different numbers of forward passes.
        with gathered(self.model):
            return prepare(
                episodes,
                settings,
                student=self.model,
                device=self.device,
                privileged=self._privileged_ids(episodes),
                reference=self.reference,
                teacher=self._teacher_model,
                combine=lambda value, operation: int(
                    self._reduce(torch.tensor([value], dtype=torch.float64), operation)
                ),
            )

    def _privileged_ids(self, episodes: Sequence[Episode]) -> list[list[int]] | None:
        """The privileged block of each episode; every text is tokenised once."""
        if self.teacher is None:
            return None
        texts = self._contexts = self.teacher.contexts(episodes)
        blocks = {text: list(self.policy.chat.privileged(text)) for text in set(texts)}
        return [blocks[text] for text in texts]

    def _supervise(self, episodes: Sequence[Episode], prepared: Prepared) -> None:
        """Plan the rows that are imitated beside, one share per optimiser step."""
        if self.supervision is not None:
            prepared.supervised = supervised_steps(
                self.supervision,
                episodes,
                context=self.context,
                pad_id=self.policy.pad_id,
                steps=len(prepared.steps),
                token_budget=self.token_budget,
                reduce=self._reduce,
            )

    # ------------------------------------------------------------------ figures

    def _log_figures(self, metrics: dict[str, float], index: int) -> None:
        """To the loggers with the iteration on the x axis, and to whatever monitors a metric (checkpoints)."""
        # Lightning's own step counts optimiser steps, so self.log must not reach the loggers.
        self.log_dict(dict(metrics), logger=False, batch_size=1)
        for logger in self.loggers:
            logger.log_metrics(metrics, step=index)
