"""What `--fast` does to a training beside its config: memory format, precision of a GPU's products, batches ahead."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import nn


def set_memory_format(model: nn.Module, memory_format: torch.memory_format = torch.channels_last) -> None:
    """Lay out the weights of convolutions with channels last, or otherwise."""
    model.to(memory_format=memory_format)


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
        cuda: `torch.cuda`.
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
    """Give an optimizer's saved state the kernels and the memory layout of the one that loads it.

    PyTorch would take over those of the training that saved it, and a fused kernel does not look at layouts.

    Args:
        saved: An optimizer's state dict; changed in place.
        optimizer: Whose parameters it is for.
    """
    for group, own in zip(saved["param_groups"], optimizer.param_groups):
        group.update({key: own[key] for key in ("foreach", "fused") if key in own})
        for number, parameter in zip(group["params"], own["params"]):
            state = saved["state"].get(number, {})
            for key, value in state.items():
                if isinstance(value, torch.Tensor) and value.shape == parameter.shape:
                    like = torch.empty_like(parameter, device=value.device, dtype=value.dtype)
                    state[key] = like.copy_(value)
