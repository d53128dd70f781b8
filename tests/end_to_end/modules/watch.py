"""A module of the user's own: each rank keeps the level weights and a sum over all parameters at every step."""

import json
from typing import Any

import torch
from mmengine.hooks import Hook
from mmengine.registry import HOOKS

from experiments.detection.level_weighting.hook import unwrap


@HOOKS.register_module()
class Watch(Hook):
    priority = "VERY_LOW"

    def before_train(self, runner: Any) -> None:
        self.steps: list[list[Any]] = []

    def after_train_iter(
        self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        model = unwrap(runner.model)
        total = sum(p.detach().double().sum() for p in model.parameters()).item()
        rule = model.weighting[0].rule
        self.steps.append([rule.weights.tolist(), rule.probabilities.tolist(), total])

    def after_train(self, runner: Any) -> None:
        parameters = {k: v.detach() for k, v in unwrap(runner.model).named_parameters()}
        torch.save(parameters, f"{runner.work_dir}/rank{runner.rank}.pt")
        with open(f"{runner.work_dir}/rank{runner.rank}.steps", "w") as stream:
            json.dump(self.steps, stream)
