"""The hook that saves what a run resumes from: whole checkpoints, or none."""

from __future__ import annotations

import contextlib
import os
from typing import Any

from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from mmengine.runner import Runner

from experiments.common.errors import INTERRUPTED, UserError
from experiments.common.files import sync_folder
from experiments.runs.run_folder import KEPT_CHECKPOINTS, RunFolder
from experiments.training.engine.checkpoints import write_digest
from experiments.training.engine.stopping import Interrupted, StopConsensus


@HOOKS.register_module()
class ResumableCheckpointHook(Hook):
    """Save `checkpoints/iter_<n>.pth` every `every` iterations, before an evaluation, and when asked to stop.

    Each is written under another name, brought to the disk and renamed; the last `keep` stay. What a step draws
    at random follows from its number (see `ResumableTrainLoop`), so no random state is saved.
    """

    priority = "VERY_LOW"

    def __init__(self, every: int = 500, keep: int = KEPT_CHECKPOINTS) -> None:
        self.every = every
        self.keep = keep

    def before_train(self, runner: Runner) -> None:
        self.run = RunFolder(runner.work_dir)
        self.run.checkpoints.mkdir(exist_ok=True)
        self.asked_to_stop = StopConsensus()
        if runner.rank == 0:
            for unfinished in self.run.checkpoints.glob("*.tmp"):
                unfinished.unlink()

    def after_train_iter(self, runner: Runner, batch_idx: int, **_: Any) -> None:
        if not runner.optim_wrapper.should_update():
            return  # only whole optimizer steps can be resumed
        done = runner.iter + 1
        last = self.is_last_train_iter(runner) or self._is_evaluated(runner, batch_idx)
        stop = self.asked_to_stop()
        if stop or done % self.every == 0 or last:
            self.save(runner, done)
        if stop:
            self.asked_to_stop.wait_for_all()  # a rank that has ended would take the one that saves with it
            raise Interrupted(done)

    def _is_evaluated(self, runner: Runner, batch_idx: int) -> bool:
        """Return whether an evaluation comes next."""
        if runner.val_loop is None or not self.end_of_epoch(runner.train_dataloader, batch_idx):
            return False
        return (runner.epoch + 1) % runner.train_loop.val_interval == 0

    def after_val_iter(self, runner: Runner, batch_idx: int, **_: Any) -> None:
        loader = runner.val_loop.dataloader
        on_all_ranks = len(loader)
        if not getattr(loader.sampler, "round_up", runner.world_size == 1):  # else some ranks have fewer
            on_all_ranks = len(loader.dataset) // (runner.world_size * (loader.batch_size or 1))
        if batch_idx < on_all_ranks and self.asked_to_stop():
            self.asked_to_stop.wait_for_all()
            raise Interrupted(runner.iter)  # what training reached is saved already

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        # Only smooths what is printed, and holds objects that weights_only loading refuses.
        checkpoint["message_hub"] = dict(log_scalars={}, runtime_info={}, resumed_keys={})

    def save(self, runner: Runner, done: int) -> None:
        """Write a checkpoint and remove old ones; all ranks call it, rank 0 writes.

        Raises:
            UserError: The disk is full, or cannot be written; older checkpoints are as they were.
        """
        name = f"iter_{done}.pth"
        temporary = self.run.checkpoints / f"{name}.tmp"
        try:
            runner.save_checkpoint(str(self.run.checkpoints), temporary.name, by_epoch=False)
            if runner.rank == 0:
                with open(temporary, "rb+") as stream:
                    os.fsync(stream.fileno())
                write_digest(self.run, name, temporary, self.keep)
                os.replace(temporary, self.run.checkpoints / name)
                sync_folder(self.run.checkpoints)
        except OSError as error:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)
            last = self.run.last_checkpoint()
            good = f"the last good one is {last.name}" if last else "there is none yet"
            reason = error.strerror or str(error)
            place = f"the checkpoint of iteration {done} cannot be written to {self.run.checkpoints}"
            raise UserError(f"{place}: {reason}; {good}", exit_code=INTERRUPTED) from error
        if runner.rank == 0:
            for old in self.run.saved_checkpoints()[self.keep :]:
                old.unlink()
