"""A module of the user's own that breaks a run before iteration 8 (counted from 1), unless the file `mended` exists."""

from pathlib import Path
from typing import Any

import torch
from mmengine.hooks import Hook
from mmengine.registry import HOOKS


@HOOKS.register_module()
class Break(Hook):
    def __init__(self, how: str) -> None:
        self.how = how

    def before_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None) -> None:
        if runner.iter + 1 != 8 or Path("mended").exists():
            return
        with torch.no_grad():
            runner.model.bbox_head.retina_reg.bias.fill_(float(self.how))
