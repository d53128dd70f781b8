"""The hook that writes `progress.json` and `metrics.csv` while a run works."""

from __future__ import annotations

import contextlib
import time
from pathlib import Path
from typing import Any

from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from mmengine.runner import Runner

from experiments.common.files import write_json
from experiments.detection.level_weighting.hook import unwrap
from experiments.runs.run_folder import RunFolder
from experiments.training.side_files import read_metrics, write_metrics


@HOOKS.register_module()
class ProgressHook(Hook):
    """Write `progress.json` about once a second, and one row of `metrics.csv` per evaluation.

    Reading a loss waits for the device, so this happens by the clock, not by the iteration.

    Attributes:
        metrics: Of the last evaluation.
        seconds_per_iteration: Of this attempt; None before its first.
    """

    priority = "LOW"

    def __init__(self, every_s: float = 1.0) -> None:
        self.every_s = every_s
        self._last_write = 0.0
        self.metrics: dict[str, float] = {}
        self.seconds_per_iteration: float | None = None

    def before_train(self, runner: Runner) -> None:
        self._run = RunFolder(Path(runner.work_dir))
        self._first, self._train_s, self._epoch_started = runner.iter, 0.0, time.monotonic()
        if runner.rank == 0:
            self._cut_metrics(runner.iter)
            self._write(runner, "train", runner.iter)

    def before_train_epoch(self, runner: Runner) -> None:
        self._epoch_started = time.monotonic()

    def after_train_epoch(self, runner: Runner) -> None:
        self._train_s += time.monotonic() - self._epoch_started

    def after_train_iter(self, runner: Runner, outputs: Any = None, **_: Any) -> None:
        if runner.rank == 0 and time.monotonic() - self._last_write >= self.every_s:
            loss = float(outputs["loss"].detach()) if outputs else None
            self._write(runner, "train", runner.iter + 1, loss=loss)

    def before_val(self, runner: Runner) -> None:
        self._write_evaluation(runner, 0)

    def after_val_iter(self, runner: Runner, batch_idx: int, **_: Any) -> None:
        self._write_evaluation(runner, batch_idx + 1)

    def _write_evaluation(self, runner: Runner, batch: int) -> None:
        """Write the progress of an evaluation; the last batch always, for computing the metrics takes long."""
        if runner.rank == 0 and hasattr(self, "_run"):  # `msdet eval` has no training to tell of
            total = len(runner.val_loop.dataloader)
            if batch in (0, total) or time.monotonic() - self._last_write >= self.every_s:
                self._write(runner, "evaluate", runner.iter, batch=batch, batches=total)

    def after_val_epoch(self, runner: Runner, metrics: dict[str, float] | None = None) -> None:
        if runner.rank == 0 and metrics and hasattr(self, "_run"):
            # A run that is killed behind an evaluation resumes from the checkpoint before it.
            self._cut_metrics(runner.iter - 1, {"iteration": runner.iter, "epoch": runner.epoch, **metrics})
            self.metrics = {name: float(value) for name, value in metrics.items()}

    def _cut_metrics(self, iteration: int, *new: dict[str, Any]) -> None:
        """Drop rows of evaluations after `iteration`, and add new ones."""
        rows = read_metrics(self._run.metrics) if self._run.metrics.exists() else []
        kept = [*(row for row in rows if int(row["iteration"]) <= iteration), *new]
        if kept:
            write_metrics(self._run.metrics, kept)
        elif rows:
            self._run.metrics.unlink()

    def _write(self, runner: Runner, phase: str, done: int, **more: Any) -> None:
        self._last_write = time.monotonic()
        ran = done - self._first
        trained = self._train_s + (self._last_write - self._epoch_started if phase == "train" else 0.0)
        self.seconds_per_iteration = seconds = trained / ran if ran else None
        content = {
            "phase": phase,
            "iteration": done,
            "total": runner.max_iters,
            "epoch": runner.epoch + 1 if phase == "train" else runner.epoch,
            "epochs": runner.max_epochs,
            "seconds_per_iteration": seconds,
            "eta_s": None if seconds is None else seconds * (runner.max_iters - done),  # of training
            "lr": runner.optim_wrapper.get_lr()["lr"][0] if phase == "train" else None,
            "loss": None,
            "heads": [_head(head) for head in unwrap(runner.model).weighting],
            **more,
        }
        with contextlib.suppress(OSError):  # it is only looked at: the training goes on without
            write_json(self._run.progress, content)


def _head(head: Any) -> dict[str, Any]:
    rule = head.rule
    probabilities = {} if rule.probabilities is None else dict(zip(rule.actions, rule.probabilities.tolist()))
    weights = dict(zip(head.levels, rule.weights.detach().tolist()))
    return {"head": head.head, "weights": weights, "action": rule.action, "probabilities": probabilities}
