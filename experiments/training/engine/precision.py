"""Mixed precision by bfloat16, on the CPU too."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch
from mmengine.optim import OptimWrapper
from mmengine.registry import OPTIM_WRAPPERS
from mmengine.runner import autocast
from torch import nn

from experiments.common.errors import UserError


@OPTIM_WRAPPERS.register_module()
class BFloat16OptimWrapper(OptimWrapper):
    """Run forward passes under autocast to bfloat16, whose range is that of float32: no loss is scaled.

    MMEngine's own wrapper scales it all the same, looks for overflow at each step, and needs a GPU.
    """

    @contextlib.contextmanager
    def optim_context(self, model: nn.Module) -> Iterator[None]:
        with super().optim_context(model), autocast(dtype=torch.bfloat16):
            yield


def check_precision(amp: str | None) -> None:
    """Check that this machine can train in a mixed precision.

    Raises:
        UserError: It cannot; names the one that works.
    """
    if amp == "fp16" and not torch.cuda.is_available():
        raise UserError("amp: fp16 needs a GPU, and torch sees none", "--amp bf16 works on a CPU, too")
    if amp == "bf16" and torch.cuda.is_available() and not torch.cuda.is_bf16_supported():
        raise UserError(f"amp: {torch.cuda.get_device_name()} lacks bf16", "--amp fp16 works there")
