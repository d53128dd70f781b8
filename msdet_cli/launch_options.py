"""The options that say how runs are executed, given to `run`, `ablate` and `reproduce` in one place."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any, get_type_hints

import typer

from experiments.common.errors import UserError
from experiments.common.trackers import TRACKERS
from experiments.common.trackers import check as check_trackers
from experiments.launching.execution import Execution
from experiments.launching.gpus import Gpu, visible_gpus

if TYPE_CHECKING:
    from experiments.launching.slurm.options import SlurmOptions

AMP = ("bf16", "fp16")


@dataclass(frozen=True)
class LaunchOptions:
    """What the options say, checked.

    Attributes:
        gpus: This machine's.
        slurm: What a job asks Slurm for.
    """

    execution: Execution = field(default_factory=Execution)
    gpus: tuple[Gpu, ...] = ()
    detach: bool = False
    slurm: SlurmOptions | None = None


def launch_options(
    gpus: Annotated[
        int | None,
        typer.Option(
            "--gpus",
            metavar="N",
            min=1,
            help="Workers of a run: GPUs, or processes. Default: the schedule's.",
        ),
    ] = None,
    gpus_per_run: Annotated[
        int | None,
        typer.Option(
            "--gpus-per-run", metavar="M", min=1, help="The same, with --gpus for all runs together."
        ),
    ] = None,
    jobs: Annotated[
        int | None,
        typer.Option(
            "--jobs", metavar="J", min=1, help="Most runs at once. Default: as the GPUs allow, or 1."
        ),
    ] = None,
    nodes: Annotated[int, typer.Option("--nodes", metavar="N", min=1, help="Machines that share a run.")] = 1,
    rdzv: Annotated[
        str | None,
        typer.Option("--rdzv", metavar="HOST:PORT", help="Where they meet: one of them, and a free port."),
    ] = None,
    scale_lr: Annotated[
        bool,
        typer.Option("--scale-lr", help="Let batch and learning rate grow with --gpus: another experiment."),
    ] = False,
    amp: Annotated[
        str | None, typer.Option("--amp", metavar="bf16|fp16", help="Mixed precision: another experiment.")
    ] = None,
    track: Annotated[
        str | None, typer.Option("--track", metavar="NAMES", help=f"Trackers: {', '.join(TRACKERS)}.")
    ] = None,
    detach: Annotated[bool, typer.Option("--detach", help="Plan, go on in the background, return.")] = False,
    slurm: Annotated[
        str | None,
        typer.Option(
            "--slurm", metavar="KEY=VALUE,...", help="Submit to Slurm: partition=gpu,time=12h,mem=64G."
        ),
    ] = None,
) -> LaunchOptions:
    """The options as one value.

    Raises:
        UserError: One is not allowed, or two contradict each other.
    """
    trackers = [name.strip() for name in (track or "").split(",") if name.strip()]
    check_trackers(trackers)
    if amp is not None and amp not in AMP:
        raise UserError(f"--amp: '{amp}' is not allowed: {', '.join(AMP)}")
    execution = Execution(gpus, gpus_per_run, jobs, nodes, rdzv, scale_lr, amp, tuple(trackers))  # type: ignore[arg-type]
    if slurm is None:
        execution.check()
        return LaunchOptions(execution, tuple(visible_gpus()), detach)
    from experiments.launching.slurm.options import parse
    from experiments.launching.slurm.submission import on_slurm

    options = parse(slurm)
    execution = on_slurm(execution, options)
    execution.check()
    return LaunchOptions(execution, (), detach, options)


def with_launch_options(command: Callable[..., None]) -> Callable[..., None]:
    """Gives a command the options of `how` in the place of its parameter `how`."""
    hints, shared = (
        get_type_hints(command, include_extras=True),
        get_type_hints(launch_options, include_extras=True),
    )
    names = list(inspect.signature(launch_options).parameters)

    def with_options(**values: Any) -> None:
        chosen = {name: values.pop(name) for name in names}
        command(**values, launch_options=launch_options(**chosen))

    own = [
        p.replace(annotation=hints[p.name])
        for p in inspect.signature(command).parameters.values()
        if p.name != "launch_options"
    ]
    added = [
        p.replace(annotation=shared[p.name]) for p in inspect.signature(launch_options).parameters.values()
    ]
    parameters = [p.replace(kind=p.KEYWORD_ONLY) for p in (*own, *added)]
    with_options.__name__, with_options.__doc__ = command.__name__, command.__doc__
    with_options.__annotations__ = {p.name: p.annotation for p in parameters}
    with_options.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    return with_options
