"""SDARModule: one iteration of self-distilled agentic reinforcement learning in one training step.

PREPARE (:mod:`sdar.learning.prepare`) fixes everything that theta_old decides; UPDATE (:mod:`sdar.learning.update`) is
token-local and moves theta. Here are the models, the checkpoint, and the order of an iteration.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NoReturn

import torch
from lightning import Callback, LightningModule
from lightning.pytorch.strategies import ModelParallelStrategy
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig
from transformers import PreTrainedModel

from sdar.episode import Episode
from sdar.errors import UserError
from sdar.learning.costs import FedTokens, ModelSizes, add_costs, fed_tokens
from sdar.learning.datamodule import Iteration, RolloutDataModule
from sdar.learning.logs import log_metrics
from sdar.learning.method import Method
from sdar.learning.metric_sums import MetricSums
from sdar.learning.metrics import (
    RESPONSE_TOKENS,
    IterationReport,
    add_rollout,
    add_sampling,
    add_scores,
    add_update,
    iteration_metrics,
)
from sdar.learning.optimizer import OptimizerSettings
from sdar.learning.outcomes import task_outcomes
from sdar.learning.pairing import check_pair
from sdar.learning.prepare import prepare
from sdar.learning.prepared import Prepared
from sdar.learning.ranks import Ranks
from sdar.learning.response_parts import TokenTexts
from sdar.learning.update import BadSteps, UpdateLoop
from sdar.policy.checkpoint import (
    CHECKPOINT_KEY,
    OPTIMIZER_KEY,
    check_optimizer,
    check_origin,
    check_parameters,
    keep_trained,
    origin,
)
from sdar.policy.copies import move_as
from sdar.policy.dropout import update_mode
from sdar.policy.language_model import LanguageModel, autocast_of
from sdar.policy.lora import adapters_off
from sdar.policy.sharding import gathered, is_sharded, shard
from sdar.policy.trainable import trainable
from sdar.rollout.settings import RolloutSettings
from sdar.teacher.answers import checked_contexts, checked_teacher_metrics, checked_teacher_record
from sdar.teacher.base import Teacher
from sdar.teacher.weights import TeacherModel, TeacherSource

SCHEDULES_KEY = "sdar_schedules"
TEACHER_KEY = "sdar_teacher"
CONTEXT_KEY = "sdar_teacher_context"
BAD_STEPS_KEY = "sdar_bad_steps"
"""Where the states of schedules, of an averaged teacher, of what a teacher remembers, and how many bad steps there were
in a row lie in the checkpoint."""


class SDARModule(LightningModule):
    """Trains a policy on the episodes it played, with rewards and with itself as a better-informed teacher.

    Args:
        policy: the language model; its weights at this moment are the reference of the KL term. With adapters
            (``policy.lora``) these alone are trained and saved, and the reference is the model with them off.
        method: what is learned from an iteration.
        teacher: gives the privileged text of every episode; it is scored where the method says so.
        optimizer: which one, its learning rate, and how an iteration is cut into its steps.
        rollout: how the episodes are played; None: as the data module's collector does.
        seed: of the adapters' dropout, the only thing that training draws; the data module's.

    Attributes:
        report: what callbacks may read of the last iteration; None before the first.

    Raises:
        UserError: settings that cannot be trained together, or a model without a parameter to train.
    """

    def __init__(
        self,
        policy: LanguageModel,
        method: Method,
        teacher: Teacher | None = None,
        optimizer: OptimizerSettings | None = None,
        rollout: RolloutSettings | None = None,
        seed: int = 1,
    ) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.policy = policy
        self.model = policy.model
        self.method = method
        self.teacher = teacher
        self.optimizer_settings = optimizer or OptimizerSettings()
        self.rollout = rollout or RolloutSettings()
        self._stand_in = self.rollout if rollout is None else None
        self.seed = seed
        self.bad_steps = BadSteps(self.optimizer_settings.max_bad_steps)
        if rollout is not None:
            method.check(teacher, rollout, self.optimizer_settings, train=False)
        # Feedback remembers, and the method may belong to another module, too.
        self.schedules = copy.deepcopy(method.schedules)
        self.report: IterationReport | None = None
        # A checkpoint of adapters does not hold the frozen weights; check_parameters sees to it that all else is there.
        self.strict_loading = policy.lora is None
        if policy.quantization is not None and policy.lora is None:
            raise UserError(
                f"model: the weights of {policy.name!r} are quantized ({policy.quantization}) and cannot be trained; "
                "set model.lora, which trains adapters on them"
            )
        if not trainable(self.model):
            raise UserError(f"model: {policy.name!r} has no parameter to train; all are frozen")
        weights = teacher.weights if teacher is not None and method.score_teacher else None
        # In a list, so that torch does not register it: it is neither trained nor saved nor seen by DDP.
        self._reference: list[PreTrainedModel] = []
        needs_initial = weights is not None and weights.source is TeacherSource.INITIAL
        if (method.objective.kl_coefficient != 0 or needs_initial) and policy.lora is None:
            self._reference.append(copy.deepcopy(self.model).requires_grad_(False).train(False))
        self._teacher_model = None if weights is None else TeacherModel(weights, policy, self.initial)
        self._update_loop: UpdateLoop | None = None
        self._token_texts = TokenTexts(policy.tokenizer)

    @classmethod
    def load_from_checkpoint(cls, *args: Any, **kwargs: Any) -> NoReturn:  # noqa: ARG003
        """UserError: a checkpoint says neither how the model is loaded nor what is learned."""
        raise UserError(
            "SDARModule.load_from_checkpoint cannot know model and method, which are not in a checkpoint; make the "
            "module and call sdar.policy.checkpoint.load_student(module, policy, PATH), or continue training with "
            "Trainer.fit(module, datamodule=..., ckpt_path=PATH)"
        )

    def configure_callbacks(self) -> list[Callback]:
        """No callbacks; UserError where the trainer was asked for anything but a fit (its first hook of all)."""
        word = self.trainer.state.fn
        if word is not None and word != TrainerFn.FITTING:
            raise UserError(
                f"Trainer.{word.value} does not evaluate an SDARModule, which only learns; play a panel with "
                "sdar.evaluation.evaluate.evaluate, add the callback sdar.callbacks.evaluation.PanelEvaluation to "
                "Trainer.fit, or run sdar train train=false ckpt_path=PATH"
            )
        return []

    def configure_model(self) -> None:
        """Spread student and reference over the processes where the strategy asks for it (FSDP2)."""
        strategy = self.trainer.strategy
        if not isinstance(strategy, ModelParallelStrategy):
            return
        self._take_rollout()
        self._check(sharded=True)
        mesh = strategy.device_mesh["data_parallel"]
        precision = self.trainer.precision
        for model in (self.model, *self._reference):
            if precision == "bf16-true" and not is_sharded(model):
                torch.nn.Module.to(model, dtype=torch.bfloat16)
            shard(model, mesh, torch.bfloat16 if precision == "bf16-mixed" else None)

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        """The optimizer of the settings, and its warm-up, counted in optimizer steps."""
        return self.optimizer_settings.build(self.model)

    def on_fit_start(self) -> None:
        """Check what depends on the trainer, and bring the reference to the model's device."""
        data = self._take_rollout()
        # One that collects in its own way knows whose episodes these are.
        if data is not None and type(data).collect is RolloutDataModule.collect:
            check_pair(self.model, self.method, self.teacher, self.rollout, data)
        self._check(sharded=isinstance(self.trainer.strategy, ModelParallelStrategy))
        precision = self.trainer.precision
        if precision in ("16-mixed", "16-true"):
            raise UserError(f"trainer.precision must be '32-true', 'bf16-mixed' or 'bf16-true', got {precision!r}")
        schedule, iterations = self.optimizer_settings.lr_schedule, self.trainer.max_epochs
        if schedule != "constant" and (iterations is None or iterations < 0):
            raise UserError(f"optimizer.lr_schedule={schedule} needs trainer.max_epochs, got {iterations}")
        self.policy.compute_dtype = autocast_of(precision)  # rollouts are outside Lightning's autocast
        # Lightning warns of modules that begin in evaluation mode; training_step sets the mode it needs.
        self.model.train()
        for frozen in self.frozen:
            move_as(frozen, self.model, self.device)
        if self._teacher_model is not None:
            self._teacher_model.check_precision()  # the strategy may have turned the weights into 16 bits
        temperature = self.rollout.sampling.temperature
        self._update_loop = UpdateLoop(
            self,
            self.model,
            self.optimizer_settings,
            temperature,
            self._teacher_model,
            self.bad_steps,
            dropout_seed=self.seed if self.policy.lora is not None and self.policy.lora.dropout > 0 else None,
        )

    def _take_rollout(self) -> RolloutDataModule | None:
        """The data module of this fit, whose settings of rollouts hold where none were given."""
        data = getattr(self.trainer, "datamodule", None)
        if not isinstance(data, RolloutDataModule):
            return None
        if self.rollout is self._stand_in:
            self.rollout = self._stand_in = data.collector.settings
        return data

    def on_train_start(self) -> None:
        """Apply the present settings to an optimizer that a checkpoint restored with its own."""
        optimizer, scheduler = self.optimizers(use_pl_optimizer=False), self.lr_schedulers()
        assert isinstance(optimizer, torch.optim.Optimizer)
        assert isinstance(scheduler, torch.optim.lr_scheduler.LambdaLR)
        self.optimizer_settings.apply(optimizer, scheduler, self.model)

    def _check(self, *, sharded: bool) -> None:
        processes = int(self.trainer.world_size)
        self.method.check(self.teacher, self.rollout, self.optimizer_settings, processes=processes, sharded=sharded)

    @property
    def frozen(self) -> list[PreTrainedModel]:
        """Whole models beside the student: the reference, and a teacher with weights of its own."""
        return [*self._reference, *([] if self._teacher_model is None else self._teacher_model.copies)]

    @contextmanager
    def reference(self) -> Iterator[PreTrainedModel | None]:
        """The frozen policy of the KL term, for a while; None: the term is left out."""
        if self.method.objective.kl_coefficient == 0:
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
        checkpoint[OPTIMIZER_KEY] = self.optimizer_settings.name
        keep_trained(checkpoint, self, self.policy)
        checkpoint[SCHEDULES_KEY] = self.schedules.state()
        checkpoint[BAD_STEPS_KEY] = self.bad_steps.in_a_row
        if self._teacher_model is not None:
            checkpoint[TEACHER_KEY] = self._teacher_model.state()
        if self.teacher is not None:
            checkpoint[CONTEXT_KEY] = self.teacher.state()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuse a checkpoint of other initial weights, which are the reference, or of another kind of optimizer."""
        check_origin(checkpoint, self.policy)
        check_optimizer(checkpoint, self.optimizer_settings.name)
        if "state_dict" in checkpoint:  # a sharded strategy has loaded the weights by itself
            check_parameters(checkpoint, self, self.policy)
        if SCHEDULES_KEY in checkpoint:
            self.schedules.load_state(checkpoint[SCHEDULES_KEY])
        self.bad_steps.in_a_row = int(checkpoint.get(BAD_STEPS_KEY, 0))
        if self._teacher_model is not None:
            self._teacher_model.load_state(checkpoint.get(TEACHER_KEY, {}))
        if self.teacher is not None:
            self.teacher.load_state(checkpoint.get(CONTEXT_KEY, {}))

    def training_step(self, iteration: Iteration) -> None:
        """Learn from one iteration: PREPARE, UPDATE, log.

        Raises:
            RunFailed: loss or gradient was not finite in too many steps in a row.
        """
        assert self._update_loop is not None
        # Without dropout the ratio of the first step is exactly 1.
        self.model.train(False)
        started = time.perf_counter()
        schedules = self.schedules
        parts = (schedules.coefficient, schedules.beta, schedules.policy)
        method = self.method.at(*(part.factor(iteration.index) for part in parts))
        ranks = Ranks.of(self)
        prepared, contexts = self._prepare(iteration.episodes, method, ranks)
        sums = MetricSums()
        add_rollout(sums, iteration.drawn)
        if iteration.sampled is not None:
            add_sampling(sums, iteration.sampled)
        for name, (total, count) in sorted(method.estimator.metrics(iteration.episodes).items()):
            sums.mean(name, total, count)
        sums.total(RESPONSE_TOKENS, int(prepared.batch.response_mask.sum()))
        add_costs(sums, self._fed_tokens(iteration, prepared, method), self._sizes())
        scored = time.perf_counter()
        update_mode(self.model)
        reports, prepared = self._update_loop.run(prepared, method)
        add_update(sums, reports)
        table = add_scores(sums, prepared, method.objective.gate, self._token_texts)
        seconds = {**iteration.timings, "score_s": scored - started, "update_s": time.perf_counter() - scored}
        for name, value in seconds.items():
            sums.maximum(f"time/{name}", value)
        metrics = iteration_metrics(sums.to(self.device) if ranks.size > 1 else sums)
        metrics |= self._schedule_metrics(method) | self._observe(iteration, prepared, ranks)
        self._finish(metrics)
        self._log(metrics, iteration.index)
        record = {} if self.teacher is None else checked_teacher_record(self.teacher, self.teacher.record())
        gate = method.objective.gate
        self.report = IterationReport(iteration.index, metrics, prepared, gate, contexts, record, table)

    def _prepare(self, episodes: Sequence[Episode], method: Method, ranks: Ranks) -> tuple[Prepared, list[str] | None]:
        """PREPARE, and what the teacher reads of each episode; None: it is not scored."""
        # Autocast keeps casts of weights; those made under no_grad or before an optimizer step must not be used again.
        torch.clear_autocast_cache()
        # Ranks have different numbers of forward passes: for rows, and for a teacher that lets the policy write.
        with gathered(self.model):
            contexts: list[str] | None = None
            if self.teacher is not None and self.method.score_teacher:
                contexts = checked_contexts(self.teacher, self.teacher.contexts(episodes), len(episodes))
            # Every text is tokenized once.
            read = [(text, episode.preface) for text, episode in zip(contexts or (), episodes, strict=False)]
            chat = self.policy.chat
            blocks = {(text, preface): chat.prefaced(preface).privileged(text) for text, preface in set(read)}
            prepared = prepare(
                episodes,
                method,
                self.rollout,
                self.optimizer_settings,
                policy=self.policy,
                device=self.device,
                reference=self.reference,
                privileged=None if contexts is None else [blocks[key] for key in read],
                teacher=self._teacher_model,
                ranks=ranks,
            )
        return prepared, contexts

    @property
    def asks_a_frozen_teacher(self) -> bool:
        """Whether every micro-batch of the update is scored by the initial weights, for whole distributions."""
        teacher = self._teacher_model
        frozen = teacher is not None and teacher.settings.source is TeacherSource.INITIAL
        return frozen and self.method.objective.divergence.full_vocabulary

    def _fed_tokens(self, iteration: Iteration, prepared: Prepared, method: Method) -> FedTokens:
        moves = self._teacher_model is not None and self._teacher_model.moves_during_update
        played = [*iteration.episodes, *iteration.replaced]
        return fed_tokens(played, prepared, method.objective, teacher_moves=moves)

    def _sizes(self) -> ModelSizes:
        copies = [] if self._teacher_model is None else self._teacher_model.copies
        return ModelSizes.of(self.model, next(iter(copies), None))

    def _schedule_metrics(self, method: Method) -> dict[str, float]:
        """What the schedules made of lambda, shaping and beta; nothing where no teacher is scored."""
        if not self.method.score_teacher:
            return {}
        metrics = {"objective/distillation_coefficient": method.objective.distillation_coefficient}
        if self.method.shaping is not None:
            metrics["objective/shaping_weight"] = 0.0 if method.shaping is None else method.shaping.weight
        beta = getattr(method.objective.gate, "beta", None)
        return metrics if beta is None else metrics | {"objective/beta": beta}

    def _observe(self, iteration: Iteration, prepared: Prepared, ranks: Ranks) -> dict[str, float]:
        """Tell the teacher what became of the iteration, on every rank the same; returns its metrics.

        Its text may be in the prompts where it is not scored.
        """
        if self.teacher is None:
            return {}
        outcomes = task_outcomes(iteration.tasks, iteration.episodes, prepared.batch, ranks, iteration.replaced)
        self.teacher.observe(outcomes, ranks.gather(self.teacher.gather(iteration.episodes)))
        return checked_teacher_metrics(self.teacher, self.teacher.metrics())

    def _finish(self, metrics: dict[str, float]) -> None:
        """Let schedules and teacher follow the iteration; the metrics are those of all ranks."""
        # Of gaps that are not finite, whose step was skipped, a share says nothing.
        finite = math.isfinite(metrics.get("curriculum/gap_mean", 0.0))
        activity = metrics.get("curriculum/strongly_gated_fraction") if finite else None
        share = metrics.get("objective/distillation_share")
        self.schedules.observe(gate_activity=activity, distillation_share=share)
        if self._teacher_model is not None:
            self._teacher_model.follow()

    def _log(self, metrics: dict[str, float], index: int) -> None:
        """To the loggers with the iteration on the x axis, and to whatever monitors a metric (checkpoints)."""
        # Not by self.log: its step counts optimizer steps, and it takes half a millisecond per metric.
        self.trainer.callback_metrics.update({name: torch.tensor(value) for name, value in metrics.items()})
        log_metrics(self.trainer.loggers, metrics, index)
