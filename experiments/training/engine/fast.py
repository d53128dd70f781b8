"""What `--fast` does to a training: execution that changes it by no more than rounding."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import torch
from mmengine import Config
from mmengine.hooks import RuntimeInfoHook
from mmengine.registry import HOOKS
from mmengine.runner import Runner

FUSED = ("SGD", "Adam", "AdamW")  # optimizers that PyTorch has as one kernel, on a CPU, too


def make_fast(config: Config) -> None:
    """Change a config to the faster execution, in place.

    `fast` is read by `StrictRunner`: channels-last memory and, on a GPU, TF32 and batches that are on the device
    before their turn. Heads work on a batch at once, the optimizer is fused, and losses are read from the device when
    they are logged.
    """
    config.fast = config.model.fast = True
    optimizer = config.optim_wrapper.optimizer
    # Where the gradients' scale makes GradScaler skip the first step, PyTorch's fused SGD goes on with a momentum that
    # nothing was written to, and weights become NaN.
    scaled = optimizer.type == "SGD" and config.optim_wrapper.get("dtype") == "float16"
    if optimizer.type in FUSED and "foreach" not in optimizer and not scaled:
        optimizer.setdefault("fused", True)
    interval = (config.default_hooks.get("logger") or {}).get("interval", 10)
    config.default_hooks.runtime_info = dict(type="DeferredRuntimeInfoHook", every=interval)
    preprocessor = config.model.get("data_preprocessor") or {}
    if torch.cuda.is_available() and preprocessor.get("type") == "DetDataPreprocessor":
        preprocessor["non_blocking"] = True


def set_device_math(fast: bool) -> None:
    """Let a GPU multiply in TF32, or set PyTorch's defaults; without one do nothing.

    cuDNN does not choose algorithms by trying: images of a batch have many sizes, and each new one stopped an H100 for
    half a second and took up to 68 GB of memory for the trial.
    """
    if torch.cuda.is_available():
        torch.set_float32_matmul_precision("high" if fast else "highest")
        torch.backends.cudnn.allow_tf32 = True


def move_ahead(batches: Iterable[Any], move: Callable[[Any], Any], cuda: Any = torch.cuda) -> Iterator[Any]:
    """Yield batches on the device, each copied while the device still works on the step before.

    Copies run on a stream of their own. A copy may reuse the memory of the batch before the last one, so it waits for
    the steps that had been queued before the last one.

    Args:
        batches: On the host, in pinned memory.
        move: Copies a batch to the device without waiting.
    """
    stream = cuda.Stream()
    earlier = cuda.current_stream().record_event()
    for batch in batches:
        stream.wait_event(earlier)
        with cuda.stream(stream):
            moved = move(batch)
        earlier = cuda.current_stream().record_event()
        cuda.current_stream().wait_stream(stream)
        yield moved


def fit_optimizer_state(saved: Mapping[str, Any], optimizer: Any) -> None:
    """Give an optimizer's saved state dict, in place, the kernels and memory layout of the one that loads it.

    PyTorch would take over those of the training that saved it, and a fused kernel does not look at layouts.
    """
    for group, own in zip(saved["param_groups"], optimizer.param_groups):
        group.update({key: own[key] for key in ("foreach", "fused") if key in own})
        for number, parameter in zip(group["params"], own["params"]):
            state = saved["state"].get(number, {})
            for key, value in state.items():
                if isinstance(value, torch.Tensor) and value.shape == parameter.shape:
                    like = torch.empty_like(parameter, device=value.device, dtype=value.dtype)
                    state[key] = like.copy_(value)


@HOOKS.register_module()
class DeferredRuntimeInfoHook(RuntimeInfoHook):
    """MMEngine's RuntimeInfoHook that waits for the device once every few iterations, with the same log.

    Args:
        every: Iterations of an epoch between two lines of the log.
    """

    def __init__(self, every: int) -> None:
        self.every = every
        self._pending: list[dict[str, Any]] = []
        self._norm: torch.Tensor | None = None

    def before_train(self, runner: Runner) -> None:
        """Keep the norm of gradients, which MMEngine reads from the device at each step."""
        super().before_train(runner)
        clip = getattr(runner.optim_wrapper, "clip_func", None)
        if clip is not None:
            runner.optim_wrapper.clip_func = functools.partial(self._clip, clip)

    def _clip(self, clip: Callable[..., Any], *args: Any, **kwargs: Any) -> None:
        self._norm = clip(*args, **kwargs)

    def after_train_iter(self, runner: Runner, batch_idx: int, outputs: Any = None, **_: Any) -> None:
        """Keep the losses; pass on those that are kept before the log needs them."""
        clipped = {} if self._norm is None else {"grad_norm": self._norm}
        self._pending.append({name: _detach(value) for name, value in {**clipped, **(outputs or {})}.items()})
        is_last = self.is_last_train_iter(runner) or self.end_of_epoch(runner.train_dataloader, batch_idx)
        if not is_last and not self.every_n_inner_iters(batch_idx, self.every):
            return
        values = [value for losses in self._pending for value in losses.values()]
        if all(isinstance(value, torch.Tensor) for value in values) and values:
            values = torch.stack([value.float() for value in values]).tolist()
        names = (name for losses in self._pending for name in losses)
        for name, value in zip(names, values):
            runner.message_hub.update_scalar(f"train/{name}", value)
        self._pending = []


def _detach(value: Any) -> Any:
    return value.detach() if isinstance(value, torch.Tensor) else value
