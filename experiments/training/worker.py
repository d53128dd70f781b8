"""The worker: a process that trains and evaluates one run, and writes its record however that ends.

The launcher has prepared the run folder: `recipe.yaml` says what to do, `record.json` has the seed and the place of
the data. Under `torchrun` each process is one rank, and rank 0 keeps the record.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import socket
import sys
import time
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any

from experiments.common.errors import DONE, EXIT_CLASSES, FAILED, INTERRUPTED, UserError
from experiments.common.files import write_json, write_text
from experiments.common.printable import hide_secrets
from experiments.common.processes import LAUNCHER, die_with, identify_process
from experiments.runs.lookup import find_starting_weights
from experiments.runs.outputs import digest_outputs
from experiments.runs.record import Attempt, Record, format_now
from experiments.runs.run_folder import RunFolder, acquire_lock, inherits_lock, parse_iteration
from experiments.training.outcome import Outcome, classify_outcome

if TYPE_CHECKING:  # imported where it is needed
    from experiments.recipes.schema import Recipe


def main(arguments: list[str] | None = None) -> int:
    """Train and evaluate one run; return the exit code."""
    parent = os.getppid()  # before anything that takes time: it may die at any moment
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path, help="the run folder")
    run = RunFolder(parser.parse_args(arguments).run)
    rank = int(os.environ.get("RANK", 0))
    try:
        # torchrun keeps the lock if msdet has started it.
        is_locked = rank > 0 or LAUNCHER in os.environ or inherits_lock(run)
        with contextlib.nullcontext() if is_locked else acquire_lock(run):
            return _attempt(run, rank, parent)
    except Exception as error:
        # the folder is locked, no run folder, or cannot be written: nothing is recorded
        outcome = classify_outcome(error)
        if outcome.code == FAILED:
            raise
        _print_error(outcome.message)
        return outcome.code


def _attempt(run: RunFolder, rank: int, parent: int) -> int:
    """Make one attempt at a locked run and record how it ends; return its exit code."""
    world_size = int(os.environ.get("WORLD_SIZE", 1))
    if world_size > 1:
        die_with(parent)
    record = run.read()
    if record.status == "done":  # by the process that had the lock before
        return DONE
    began = time.monotonic()
    attempt = Attempt(started=format_now(), world_size=world_size, **identify_process())
    record.attempts.append(attempt)
    record.status = "running"
    run.failure_of_rank(rank).unlink(missing_ok=True)
    _write_record(run, record, rank)
    outcome = Outcome(DONE, EXIT_CLASSES[DONE])
    try:
        from experiments.training.engine import stopping

        stopping.stop_when_asked(world_size)
        if int(os.environ.get("LOCAL_RANK", 0)) == 0:
            stopping.start_heartbeat(run, parent)
        train(run, record, attempt, rank)
    except BaseException as error:
        outcome = classify_outcome(error)
        if outcome.code == FAILED:
            with contextlib.suppress(OSError):
                print(hide_secrets(traceback.format_exc()), end="", file=sys.stderr, flush=True)
    message = outcome.message and hide_secrets(outcome.message)
    for number in (signal.SIGINT, signal.SIGTERM):  # writing the record takes a moment
        signal.signal(number, signal.SIG_IGN)
    # torch raises an error where a data worker dies, at any moment
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    if message:
        _print_error(message)
    attempt.ended, attempt.exit_code, attempt.exit_class = format_now(), outcome.code, outcome.exit_class
    attempt.message, attempt.hint = message, outcome.hint
    # of all attempts but those that were killed
    record.timings["total_s"] = record.timings.get("total_s", 0.0) + time.monotonic() - began
    record.status = (
        "done" if outcome.code == DONE else "interrupted" if outcome.code == INTERRUPTED else "failed"
    )
    if outcome.code == INTERRUPTED and rank == 0 and run.cancel.exists():
        record.status = "cancelled"
        run.cancel.unlink(missing_ok=True)
    try:
        if outcome.code == DONE and rank == 0:
            record.digests = digest_outputs(run, record)
        _write_record(run, record, rank)
    except OSError as error:  # a full disk: the run still reads as interrupted
        _print_error(f"{run.record_file} cannot be written: {error}")
        return outcome.code or classify_outcome(error).code
    return outcome.code


def _print_error(message: str | None) -> None:
    with contextlib.suppress(OSError):  # the log's disk may be full, too
        print(f"error: {message}", file=sys.stderr, flush=True)


def _write_record(run: RunFolder, record: Record, rank: int) -> None:
    """Write the record as rank 0, or this rank's failure, if it failed, as another."""
    if rank == 0:
        run.write(record)
    elif record.attempts[-1].exit_code:
        attempt = record.attempts[-1].model_dump(include={"exit_code", "exit_class", "message", "hint"})
        write_json(run.failure_of_rank(rank), attempt)


def train(run: RunFolder, record: Record, attempt: Attempt, rank: int) -> None:
    """Train from the last checkpoint, if any, to the end; evaluate; fill in the record."""
    from experiments.detection.level_weighting.hook import find_weighted_heads
    from experiments.recipes import loading as recipes
    from experiments.training import components  # noqa: F401
    from experiments.training.config import pretrained
    from experiments.training.config.builder import build_config, build_runner
    from experiments.training.config.foreground_prior import set_prior
    from experiments.training.engine.fast import make_fast
    from experiments.training.engine.precision import check_precision
    from experiments.training.environment import SLOW_OPERATORS, describe, read_git_state, set_origin
    from experiments.training.hooks import tracking
    from experiments.training.hooks.progress import ProgressHook

    recipe = recipes.load_recipe(str(run.recipe))
    check_precision(recipe.amp)
    start_processes(attempt.world_size)
    data = record.dataset
    attempt.micro_batch = record.launch.micro_batch or recipe.schedule.micro_batch(attempt.world_size)
    root, work_dir = Path(data["root"]), run.path.resolve()
    config = build_config(
        recipe, data["classes"], root, work_dir, record.seed, attempt.world_size, attempt.micro_batch
    )
    attempt.fast = record.launch.fast
    if attempt.fast:
        make_fast(config)
    prior = set_prior(config, recipe, data["fingerprint"], trained_with=data.get("foreground_prior"))
    if prior is not None:
        data["foreground_prior"] = prior
    checkpoint, notes = _find_start(run, recipe) if rank == 0 else (None, [])
    if rank == 0:
        write_text(run.config, config.pretty_text)
    for note in notes:
        print(f"warning: {note}", file=sys.stderr)
    record.notes += [note for note in notes if note not in record.notes]
    config.launcher = "pytorch" if attempt.world_size > 1 else "none"
    if config.get("randomness", {}).get("deterministic"):
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # without it cuBLAS is not deterministic
    attempt.first_iteration = _start_from(config, checkpoint, run, recipe)
    tracking.add(config, record.launch.track, run, attempt.first_iteration)
    if config.load_from is None:
        pretrained.check_pretrained(config.model)
    else:  # all weights come from there
        pretrained.without_pretrained(config.model)
    set_origin(record, describe(recipe), read_git_state())
    attempt.accumulation = config.optim_wrapper.get("accumulative_counts", 1)
    attempt.device = (record.environment["gpus"] or ["cpu"])[0]
    if record.environment["gpus"] and record.environment["operators"] == "pytorch" and rank == 0:
        print(f"warning: {SLOW_OPERATORS}", file=sys.stderr)
    runner = build_runner(config)
    try:
        _write_record(run, record, rank)
        runner.train()
    except Exception:
        for head in find_weighted_heads(runner):
            head.check_finite()  # a loss that is NaN may be the cause of a later error
        raise
    finally:
        is_built = not isinstance(runner._train_loop, dict)  # to ask the runner would build it
        # the runner counts an iteration behind its last hook
        attempt.last_iteration = getattr(sys.exc_info()[1], "iteration", runner.iter) if is_built else 0
        runner.visualizer.close()  # trackers write the last values when they close
    record.iterations = runner.iter
    progress = next(hook for hook in runner.hooks if isinstance(hook, ProgressHook))
    record.metrics = progress.metrics
    if progress.seconds_per_iteration is not None:
        record.timings["seconds_per_iteration"] = progress.seconds_per_iteration


def _find_start(run: RunFolder, recipe: Recipe) -> tuple[Path | None, list[str]]:
    """Return the checkpoint to resume, if any, and a note on each file of the run that is damaged."""
    from experiments.training.engine.checkpoints import find_latest_checkpoint
    from experiments.training.side_files import check_side_files, clear_the_way

    notes = clear_the_way(run)
    checkpoint, epoch, of_checkpoints = find_latest_checkpoint(run)
    done = parse_iteration(checkpoint) if checkpoint else 0
    evaluations = epoch // (recipe.schedule.eval_every or 10**9)
    of_files = check_side_files(run, done, evaluations, recipe.weighting.get("alpha"))
    return checkpoint, [*notes, *of_checkpoints, *of_files]


def _start_from(config: Any, checkpoint: Path | None, run: RunFolder, recipe: Recipe) -> int:
    """Make the config start at rank 0's checkpoint; return the iterations done. A collective."""
    from mmengine.dist import broadcast_object_list

    found = [checkpoint]
    broadcast_object_list(found)
    checkpoint = found[0]
    if checkpoint is None:
        if recipe.init_from is not None:
            config.load_from = str(find_starting_weights(recipe.init_from, run.path.parents[3]))
        return 0
    if not checkpoint.is_file():
        raise UserError(
            f"{checkpoint} does not exist on {socket.gethostname()}",
            "--results-dir DIR with a folder that all machines share",
        )
    config.load_from, config.resume = str(checkpoint), True
    return parse_iteration(checkpoint)


def start_processes(world_size: int) -> None:
    """Join the process group that torchrun's environment describes; without CUDA, MMEngine needs it early."""
    if world_size > 1:
        import torch
        import torch.distributed as dist

        if torch.cuda.is_available():
            torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", 0)))
        if not dist.is_initialized():
            dist.init_process_group("nccl" if torch.cuda.is_available() else "gloo")


if __name__ == "__main__":
    sys.exit(main())
