"""What TensorBoard shows of a run beside its curves, and what every logger is told of the settings."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from lightning import LightningModule, Trainer
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.plugins.custom_scalar.layout_pb2 import Layout

from sdar.callbacks.base import IterationCallback
from sdar.callbacks.board import token_lists
from sdar.callbacks.board.canvas import can_draw
from sdar.callbacks.board.card import TAG, run_card
from sdar.callbacks.board.episodes import SOLVED, UNSOLVED, chosen, episode_page
from sdar.callbacks.board.heat_map import heat_maps
from sdar.callbacks.board.histograms import histograms
from sdar.callbacks.board.hparams import session_end, session_start
from sdar.callbacks.board.layout import layout, layout_summary
from sdar.callbacks.board.record import RunRecord, flat
from sdar.callbacks.board.text import text_summary
from sdar.callbacks.board.tokens import episode_tokens, token_picture
from sdar.callbacks.board.turns import TurnHistory
from sdar.callbacks.evaluation import PanelEvaluation
from sdar.callbacks.loggers.harmless import harmless
from sdar.callbacks.tensorboard import Curves
from sdar.config.fields import Count, checked
from sdar.learning.datamodule import Iteration
from sdar.learning.module import SDARModule
from sdar.policy.checkpoint import finished_iterations

log = logging.getLogger(__name__)
_TOKENS = {SOLVED: "pictures/tokens_solved", UNSOLVED: "pictures/tokens_unsolved"}
"""Tag of an episode's text -> that of its picture."""


class Board(IterationCallback):
    """Arranges TensorBoard's pages, and fills those of text, histograms, images and HPARAMS.

    Its failures end no training. Where the trainer's folder is a run's, all loggers also get its settings. Texts,
    histograms and the pictures of tokens are of the first process's episodes. What the pictures of turns show is kept
    in the checkpoint.

    Args:
        episodes_every_n_iterations: how often an episode that solved its task and one that did not are shown as text,
            from iteration 0 on; 0: never. A text has at most 20,000 letters.
        histograms_every_n_iterations: the same for the histograms of gap and gate.
        pictures_every_n_iterations: the same for the pictures: gap and gate by iteration and turn, and the tokens of
            an episode that solved its task and of one that did not. A picture has 700 x 440 pixels; it needs Pillow.
        token_lists_every_n_iterations: the same for the most endorsed and most rejected tokens as text.
    """

    @checked
    def __init__(
        self,
        episodes_every_n_iterations: Count = 10,
        histograms_every_n_iterations: Count = 5,
        pictures_every_n_iterations: Count = 5,
        token_lists_every_n_iterations: Count = 1,
    ) -> None:
        self.episodes_every_n_iterations = episodes_every_n_iterations
        self.histograms_every_n_iterations = histograms_every_n_iterations
        self.pictures_every_n_iterations = pictures_every_n_iterations
        self.token_lists_every_n_iterations = token_lists_every_n_iterations
        self._learned = 0
        self._turns = TurnHistory()
        self._draws = False

    def state_dict(self) -> dict[str, Any]:
        """What was seen of the turns: the pictures of a continued run begin where those before began."""
        return {"turns": self._turns.state()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore it."""
        with harmless("what TensorBoard showed of the turns before"):
            self._turns = TurnHistory.restored(state_dict["turns"])

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:  # noqa: ARG002
        """Note how far the run is that is continued: its texts go on from there."""
        self._learned = finished_iterations(checkpoint)

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Introduce the run."""
        if not trainer.is_global_zero or not trainer.loggers:
            return
        if self.pictures_every_n_iterations and any(_boards(trainer)):
            self._draws = can_draw()
            if not self._draws:
                log.warning("TensorBoard shows no pictures: they need the package pillow, which is not installed")
        with harmless("what TensorBoard shows of the settings"):
            record = RunRecord.of(Path(trainer.default_root_dir))
            if record is not None:
                _tell_settings(trainer, record)
                for summary in (*session_start(record), text_summary(TAG, run_card(record))):
                    _write(trainer, summary, self._learned)
            _write(trainer, layout_summary(_layout(trainer, pl_module)), self._learned)

    def on_iteration(self, trainer: Trainer, module: SDARModule, iteration: Iteration) -> None:
        """Show what is due."""
        if not trainer.is_global_zero:
            return
        with harmless("what TensorBoard shows of the turns"):
            assert module.report is not None
            self._turns.add(iteration.index, module.report.by_turn)
        if not any(_boards(trainer)):
            return
        with harmless("an iteration's texts and histograms"):
            if _due(self.episodes_every_n_iterations, iteration.index):
                _show_episodes(trainer, module, iteration)
            if _due(self.histograms_every_n_iterations, iteration.index):
                _show_histograms(trainer, module, iteration.index)
            if _due(self.token_lists_every_n_iterations, iteration.index):
                _show_token_lists(trainer, module, iteration.index)
        if self._draws and _due(self.pictures_every_n_iterations, iteration.index):
            self._show_turns(trainer, iteration.index)
            with harmless("a picture of tokens"):
                _show_tokens(trainer, module, iteration)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:  # noqa: ARG002
        """Draw the turns of all iterations, and note that the run came to its end."""
        if trainer.is_global_zero:
            last = trainer.current_epoch - 1
            if self._draws and not _due(self.pictures_every_n_iterations, last):
                self._show_turns(trainer, last)
            _write(trainer, session_end(success=True), trainer.current_epoch)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:  # noqa: ARG002
        """Note that it did not."""
        if trainer.is_global_zero:
            _write(trainer, session_end(success=False), trainer.current_epoch)

    def _show_turns(self, trainer: Trainer, step: int) -> None:
        with harmless("a picture of turns"):
            for summary in heat_maps(self._turns):
                _write(trainer, summary, step)


def _boards(trainer: Trainer) -> Iterable[Curves]:
    return (logger for logger in trainer.loggers if isinstance(logger, Curves))


def _write(trainer: Trainer, summary: Summary, step: int) -> None:
    for board in _boards(trainer):
        board.write(summary, step)


def _due(every: int, iteration: int) -> bool:
    return every > 0 and iteration % every == 0


def _tell_settings(trainer: Trainer, record: RunRecord) -> None:
    settings = dict(flat(record.settings))
    for logger in trainer.loggers:
        if isinstance(logger, Curves):
            continue  # HPARAMS has room for a few
        with harmless(f"the log of {type(logger).__name__}"):
            logger.log_hyperparams(settings)


def _layout(trainer: Trainer, module: LightningModule) -> Layout:
    panels = [one for one in trainer.callbacks if isinstance(one, PanelEvaluation)]  # type: ignore[attr-defined]
    return layout(
        teacher=isinstance(module, SDARModule) and module.method.score_teacher,
        with_skills=any(panel.privileged is not None for panel in panels),
        measured=isinstance(module, SDARModule) and module.optimizer_settings.measure_terms_every_n_iterations > 0,
        lines=sorted({tag for board in _boards(trainer) for tag in board.baselines}),
    )


def _show_episodes(trainer: Trainer, module: SDARModule, iteration: Iteration) -> None:
    report = module.report
    assert report is not None
    for tag, position in chosen(iteration.episodes, iteration.index).items():
        reads = None if report.contexts is None else report.contexts[position]
        advantages = report.prepared.advantages[position]
        text = episode_page(iteration.episodes[position], advantages, iteration.index, reads)
        _write(trainer, text_summary(tag, text), iteration.index)


def _show_histograms(trainer: Trainer, module: SDARModule, index: int) -> None:
    report = module.report
    assert report is not None
    tokens = report.prepared.scored()
    if tokens is None:
        return
    for summary in histograms(tokens, report.gate):
        _write(trainer, summary, index)


def _show_token_lists(trainer: Trainer, module: SDARModule, index: int) -> None:
    report = module.report
    assert report is not None
    if report.token_table is not None:
        text = token_lists.token_lists(report.token_table, index)
        _write(trainer, text_summary(token_lists.TAG, text), index)


def _show_tokens(trainer: Trainer, module: SDARModule, iteration: Iteration) -> None:
    report, tokenizer = module.report, module.policy.tokenizer
    assert report is not None
    for tag, position in chosen(iteration.episodes, iteration.index).items():
        tokens = episode_tokens(report.prepared, position, lambda token: str(tokenizer.decode([token])))
        if not tokens:
            continue
        outcome = "solved" if tag == SOLVED else "not solved"
        title = f"iteration {iteration.index}, {outcome}: {iteration.episodes[position].task.description}"
        _write(trainer, token_picture(_TOKENS[tag], title, tokens), iteration.index)
