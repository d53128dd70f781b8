"""Checkpoints that a run resumes from: whole or absent, holding every random state, read without running code."""

from __future__ import annotations

import os
import pickle
import random
import threading
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from mmengine.runner import Runner

from experiments.errors import INTERRUPTED, UserError

STOP = threading.Event()  # set by a signal; honoured after the optimizer step under way


class Interrupted(UserError):
    """The run was asked to stop and has saved where it is."""

    def __init__(self, iteration: int) -> None:
        super().__init__(f"stopped at iteration {iteration}", "type the same command to go on", INTERRUPTED)
        self.iteration = iteration


@HOOKS.register_module()
class ResumableCheckpointHook(Hook):
    """Saves `checkpoints/iter_<n>.pth` every `every` iterations, before an evaluation, and when asked to stop.

    Each is written under another name and renamed; the last `keep` stay. Data order, augmentation in this
    process and the weighting rule go on as if nothing had happened.
    """

    priority = "VERY_LOW"

    def __init__(self, every: int = 500, keep: int = 2) -> None:
        self.every = every
        self.keep = keep
        self._restored: dict[str, Any] | None = None

    def before_train(self, runner: Runner) -> None:
        self.folder = Path(runner.work_dir) / "checkpoints"
        self.folder.mkdir(exist_ok=True)
        if runner.rank == 0:
            for unfinished in self.folder.glob("*.tmp"):
                unfinished.unlink()

    def before_train_batches(self, runner: Runner) -> None:
        if self._restored is not None:  # behind the start of the data loader, which draws a number itself
            set_random_states(self._restored)
            self._restored = None

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        if not runner.optim_wrapper.should_update():
            return  # only whole optimizer steps can be resumed
        done = runner.iter + 1
        last = self.is_last_train_iter(runner) or self._is_evaluated(runner, batch_idx)
        if STOP.is_set() or done % self.every == 0 or last:
            self.save(runner, done)
        if STOP.is_set():
            raise Interrupted(done)

    def _is_evaluated(self, runner: Runner, batch_idx: int) -> bool:
        """Whether an evaluation comes next."""
        if runner.val_loop is None or not self.end_of_epoch(runner.train_dataloader, batch_idx):
            return False
        return (runner.epoch + 1) % runner.train_loop.val_interval == 0

    def after_val_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        if STOP.is_set():
            raise Interrupted(runner.iter)  # what training reached is saved already

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        checkpoint["random"] = random_states()
        # Only smooths what is printed, and holds objects that weights_only loading refuses.
        checkpoint["message_hub"] = dict(log_scalars={}, runtime_info={}, resumed_keys={})

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        if runner._resume:
            self._restored = checkpoint.get("random")

    def save(self, runner: Runner, done: int) -> None:
        temporary = self.folder / f"iter_{done}.pth.tmp"
        runner.save_checkpoint(str(self.folder), temporary.name, by_epoch=False)
        if runner.rank == 0:
            with open(temporary, "rb+") as stream:
                os.fsync(stream.fileno())
            os.replace(temporary, self.folder / f"iter_{done}.pth")
            saved = sorted(self.folder.glob("iter_*.pth"), key=lambda p: int(p.stem.removeprefix("iter_")))
            for old in saved[: -self.keep]:
                old.unlink()


class StrictRunner(Runner):
    """MMEngine's Runner that never unpickles code: checkpoints are read with `weights_only=True`."""

    @property
    def timestamp(self) -> str:
        """MMEngine's own log goes into one folder `mmengine/` of the run, not into one for each start."""
        return "mmengine"

    def dump_config(self) -> None:
        """The worker has written `config.py` already."""

    def load_checkpoint(
        self, filename: str, map_location: Any = "cpu", strict: bool = False, **kwargs: Any
    ) -> dict:
        path = Path(filename)
        if not path.is_file():
            return super().load_checkpoint(
                filename, map_location, strict, **kwargs
            )  # torchvision:// and the like
        checkpoint = read_checkpoint(path)
        self.call_hook("after_load_checkpoint", checkpoint=checkpoint)
        model = self.model.module if hasattr(self.model, "module") else self.model
        state, own = dict(checkpoint.get("state_dict", checkpoint)), model.state_dict()
        misfits = [name for name, value in state.items() if name in own and _shape(value) != own[name].shape]
        fitting = {name: value for name, value in state.items() if name not in misfits}
        missing, unexpected = model.load_state_dict(fitting, strict=False)
        if self._resume and (missing or unexpected):
            raise UserError(f"{path} is of another model: missing {missing[:3]}, unexpected {unexpected[:3]}")
        if len(missing) == len(own):
            raise UserError(f"{path} holds none of the model's weights")
        for name, keys in (
            ("of another shape, left as initialised", misfits),  # a head for other classes, say
            ("not in the file, left as initialised", [name for name in missing if name not in misfits]),
            ("in the file only, unused", unexpected),
        ):
            if keys:
                self.logger.warning(f"{path}: {len(keys)} weights {name}: {', '.join(keys[:5])} ...")
        self._has_loaded = True
        self.logger.info(f"loaded {path}")
        return checkpoint


def read_checkpoint(path: Path) -> dict[str, Any]:
    """A checkpoint's content, on the CPU.

    Raises:
        UserError: The file is missing, cut short, or holds more than weights and plain values.
    """
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise UserError(f"no checkpoint {path}") from None
    except pickle.UnpicklingError as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"{path} is no checkpoint of weights and plain values: {reason}") from None
    except Exception as error:  # bytes that are no checkpoint break the unpickler in any way
        reason = f"{type(error).__name__}: {error}".strip(": ").splitlines()[0]
        raise UserError(f"{path} cannot be read, it may be cut short: {reason}") from None
    if not isinstance(content, dict):
        raise UserError(f"{path} is no checkpoint: it holds a {type(content).__name__}, not named weights")
    return content


def _shape(value: Any) -> Any:
    return getattr(value, "shape", None)


def random_states() -> dict[str, Any]:
    """States of Python's, NumPy's and torch's generators as tensors and plain values."""
    version, internal, gauss = random.getstate()
    name, keys, position, has_gauss, cached = np.random.get_state()
    states = {
        "python": [version, list(internal), gauss],
        "numpy": [
            name,
            torch.from_numpy(keys.astype(np.int64)),
            int(position),
            int(has_gauss),
            float(cached),
        ],
        "torch": torch.get_rng_state(),
    }
    if torch.cuda.is_available():
        states["cuda"] = torch.cuda.get_rng_state()
    return states


def set_random_states(states: dict[str, Any]) -> None:
    """Goes on from `random_states()`."""
    version, internal, gauss = states["python"]
    random.setstate((version, tuple(internal), gauss))
    name, keys, position, has_gauss, cached = states["numpy"]
    np.random.set_state((name, keys.numpy().astype(np.uint32), position, has_gauss, cached))
    torch.set_rng_state(states["torch"])
    if "cuda" in states and torch.cuda.is_available():
        torch.cuda.set_rng_state(states["cuda"])
