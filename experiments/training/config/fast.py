"""`--fast` in a config: execution that changes a training by no more than rounding."""

from __future__ import annotations

import torch
from mmengine import Config, ConfigDict

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
    config.default_hooks.runtime_info = ConfigDict(type="DeferredRuntimeInfoHook", every=interval)
    preprocessor = config.model.get("data_preprocessor") or {}
    if torch.cuda.is_available() and preprocessor.get("type") == "DetDataPreprocessor":
        preprocessor["non_blocking"] = True
