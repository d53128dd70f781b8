"""What is handed to Slurm: the text that sbatch gets, and the run folders. Slurm's commands are made up."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from experiments.common.errors import UserError
from experiments.launching.execution import Execution
from experiments.launching.plan import PlannedRun, PlanOptions, plan
from experiments.launching.slurm.options import parse
from experiments.launching.slurm.submission import BOOT, check_installed, resolve_execution, submit
from experiments.recipes.loading import load_recipe

from .test_slurm_state import calls, command

GOLDEN = Path(__file__).with_name("golden_sbatch.sh")


@pytest.fixture
def slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Made-up commands of Slurm: every job is number 42."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")
    monkeypatch.chdir(tmp_path)
    command(folder, "sbatch", "Submitted batch job 42\n")
    command(folder, "sinfo", "gpu:a100:4(S:0-1)\n(null)\n")
    for name in ("srun", "squeue", "scontrol", "scancel"):
        command(folder, name)
    return folder


def planned(
    place: Path, options: str, seeds: int = 1, execution: Execution | None = None, **more: bool
) -> list[PlannedRun]:
    execution = resolve_execution(execution or Execution(), parse(options))
    recipe = load_recipe("retinanet-r50-rlo", "tiny")
    return plan(
        [("", recipe)],
        PlanOptions(range(seeds), place / "results", generate=False, execution=execution, **more),
    )


def submitted(place: Path, options: str, runs: list[PlannedRun]) -> list[tuple[str | None, str | None]]:
    done = submit(runs, parse(options), place / "results", ["msdet", "run"])
    assert [one.run for one in done] == runs
    return [(one.job_id, one.why) for one in done]


def sbatch_text(place: Path) -> str:
    (script,) = place.glob("results/slurm/*/42_submission.sh")
    return script.read_text().replace(str(script.parent), "LOGS").replace(sys.executable, "PYTHON")


FULL = (
    "partition=gpu,time=12h,mem=64G,gpus=4,cpus=16,account=vision,qos=low,constraint=a100,max=2,"
    "sbatch.exclude=n1,n2,sbatch.exclusive"
)


def test_what_sbatch_gets_for_a_sweep(slurm: Path, tmp_path: Path) -> None:
    runs = planned(tmp_path, FULL, seeds=3)
    assert submitted(tmp_path, FULL, runs) == [("42_0", None), ("42_1", None), ("42_2", None)]
    assert sbatch_text(tmp_path) == GOLDEN.read_text()
    record = runs[1].folder.read()
    assert record.status == "queued" and record.command == ["msdet", "run"]
    assert record.launch.processes == 4 and record.launch.nodes == 1
    assert record.slurm["job_id"] == "42_1"
    assert (Path(record.slurm["folder"]) / "42_1_submitted.pkl").exists()
    # held back until all folders were ready
    assert [call.split()[0] for call in calls(slurm)] == ["sinfo", "sbatch", "scontrol"][1:]
    assert calls(slurm)[-1] == "scontrol release 42"


def test_no_file_of_the_working_directory_hides_a_module_of_the_job(tmp_path: Path) -> None:
    (tmp_path / "signal.py").write_text("raise SystemExit('the wrong signal')")
    command = [sys.executable, "-u", "-c", BOOT, "-u", "-m", "submitit.core._submit", "--help"]
    said = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert said.returncode == 0 and "usage: " in said.stdout, said.stderr


def test_one_run_is_one_job(slurm: Path, tmp_path: Path) -> None:
    options = "time=90m"
    assert submitted(tmp_path, options, planned(tmp_path, options)) == [("42", None)]
    text = sbatch_text(tmp_path)
    assert "--array" not in text
    assert "#SBATCH --time=90\n" in text and "#SBATCH --job-name=retinanet-r50-rlo\n" in text


def test_workers_are_what_the_recipe_names_where_the_partition_has_gpus(slurm: Path, tmp_path: Path) -> None:
    (run,) = planned(tmp_path, "time=1h,partition=gpu")
    assert run.launch.processes == run.recipe.schedule.gpus
    submitted(tmp_path, "time=1h,partition=gpu", [run])
    assert f"#SBATCH --gpus-per-node={run.launch.processes}\n" in sbatch_text(tmp_path)
    assert "sinfo --noheader --format=%G --partition=gpu" in calls(slurm)


@pytest.mark.parametrize("options", ["time=1h", "time=1h,gpus=0"])
def test_one_worker_and_no_gpu_where_there_are_none(slurm: Path, tmp_path: Path, options: str) -> None:
    if "gpus" not in options:
        command(slurm, "sinfo", "(null)\n")
    runs = planned(tmp_path, options)
    assert runs[0].launch.processes == 1
    submitted(tmp_path, options, runs)
    assert "gpus" not in sbatch_text(tmp_path)


def test_several_nodes_share_a_run(slurm: Path, tmp_path: Path) -> None:
    options = "time=1h,nodes=2,gpus=2"
    (run,) = planned(tmp_path, options)
    assert (run.launch.processes, run.launch.nodes) == (2, 2)
    submitted(tmp_path, options, [run])
    text = sbatch_text(tmp_path)
    assert "#SBATCH --nodes=2\n" in text and "#SBATCH --ntasks-per-node=1\n" in text
    assert "--kill-on-bad-exit=1" in text


def test_the_options_of_the_command_and_of_slurm_may_not_differ(slurm: Path, tmp_path: Path) -> None:
    assert planned(tmp_path, "time=1h", execution=Execution(gpus=2))[0].launch.processes == 2
    with pytest.raises(UserError, match="gpus=4 contradicts 2 workers"):
        planned(tmp_path, "time=1h,gpus=4", execution=Execution(gpus=2))


def test_a_job_in_the_queue_is_not_submitted_again(slurm: Path, tmp_path: Path) -> None:
    options = "time=1h,gpus=0"
    submitted(tmp_path, options, planned(tmp_path, options, seeds=2))
    command(slurm, "squeue", "42_0|PENDING|Priority\n42_1|CANCELLED|None\n")
    (slurm / "calls").unlink()
    again = planned(tmp_path, options, seeds=2, force=True)
    assert submitted(tmp_path, options, again) == [
        (None, "in Slurm already, as job 42_0 (pending)"),
        ("42", None),
    ]
    command(slurm, "squeue", "42_0|RUNNING|None\n42|PENDING|None\n")
    (slurm / "calls").unlink()
    assert [job for job, _ in submitted(tmp_path, options, again)] == [None, None]
    assert not any(call.startswith("sbatch") for call in calls(slurm))


def test_done_runs_are_left_alone(slurm: Path, tmp_path: Path) -> None:
    options = "time=1h,gpus=0"
    submitted(tmp_path, options, planned(tmp_path, options))
    (run,) = planned(tmp_path, options)
    record = run.folder.read()
    record.status = "done"
    run.folder.write(record)
    (slurm / "calls").unlink()
    assert submitted(tmp_path, options, planned(tmp_path, options)) == [(None, "done")]
    # done between plan and submission: its job is taken back
    command(slurm, "sbatch", "Submitted batch job 43\n")
    assert submitted(tmp_path, options, [run]) == [(None, "done")]
    assert "scancel 43" in calls(slurm)


def test_where_slurm_refuses_nothing_is_changed(
    slurm: Path, tmp_path: Path, capfd: pytest.CaptureFixture
) -> None:
    options = "time=1h,gpus=0"
    (run,) = planned(tmp_path, options)
    submitted(tmp_path, options, [run])
    (run.folder.path / "trace.csv").write_text("of before")
    said = "sbatch: error: invalid partition specified: gpuu"
    (slurm / "sbatch").write_text(f"#!/bin/sh\necho '{said}' >&2\nexit 1\n")
    command(slurm, "squeue", "42|CANCELLED|None\n")
    with pytest.raises(UserError) as error:
        submitted(tmp_path, options, planned(tmp_path, options, force=True))
    assert error.value.message == "sbatch rejected the job: invalid partition specified: gpuu"
    assert (run.folder.path / "trace.csv").read_text() == "of before"
    assert capfd.readouterr().err == ""


def test_what_is_missing_is_named(slurm: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    check_installed()
    monkeypatch.setitem(sys.modules, "submitit", None)
    with pytest.raises(UserError, match="submitit is not installed") as error:
        check_installed()
    assert error.value.hint == "pip install 'msdet[slurm]'"
    monkeypatch.setenv("PATH", str(slurm))
    (slurm / "sbatch").unlink()
    with pytest.raises(UserError, match="there is no sbatch"):
        check_installed()
