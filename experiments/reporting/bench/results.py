"""What `msdet bench` measured, from `bench/<date>-<host>.json` of a results folder to sections of a page.

A file is one machine's measurements of one day (schema 1; times in seconds, unless a name says otherwise):

    {"schema": 1, "date": "2026-11-24", "host": "laptop",
     "parts": {"inference": PART, "overhead": PART, "eval": PART, "startup": PART, ...}}
    PART   {"measured": "2026-11-24T22:40:11+00:00",        when it ended, UTC
            "took_s": 93.1,
            "load": 2.1,                                     running processes of the machine when it began; or null
            "command": "msdet bench inference -p tiny",
            "environment": {"gpus": [...], "cpu": ..., "cpu_threads": 2, "packages": {"torch": ...}, "cuda": ..., ...},
            "git": {"commit": ..., "dirty": false} or null,
            "result": {...}}

    inference  {"profile": "tiny" or null, "dataset": "shapes", "device": "cpu" or "cuda", "image": [640, 384],
                "size": [1333, 800], "tensor": [1, 3, 800, 1344], "rounds": 20, "repeats": 5, "candidates": 4441,
                "models": [{"id": "rlo", "label": "RetinaNet w/ RLO", "recipe": "retinanet-r50-rlo",
                            "parameters": 37969237, "flops": 2.5e11 or null,
                            "model": TIMES, "end_to_end": TIMES,
                            "model_ratio": RATIO or null, "end_to_end_ratio": RATIO or null}, ...]}
               In the order of table fig4, whose rows `id` names; ratios are to `baseline` (null for itself).
    overhead   {"recipe", "profile", "dataset", "device", "batch": 8, "size": [160, 160] or null, "alpha": 10,
                "rounds": 24, "steps": 10,
                "loops": [{"id": "stock", "label": ..., "detector": "RetinaNet", "runner": "Runner",
                           "loop": "EpochBasedTrainLoop",
                           "iteration": TIMES, "rounds_s": [...], "rule": {"iteration_s", "share"} or null}, ...],
                "ratios": [{"of": "rlo", "to": "uniform", **RATIO, "cpu": RATIO of processor time, or null}, ...]}
    train      {"batches": [as overhead, of other loops; "peak_bytes" of each is the GPU's memory, or null]}
    eval       {"images", "classes", "truths", "detections", "repeats", "faster_coco_eval": TIMES,
                "pycocotools": TIMES, "ratio": RATIO (how many times as long pycocotools takes),
                "metrics": {"AP": [faster, pycocotools], ...},
                "largest_difference": 1e-16, "equal": true}
    dispatch   {"profile", "batch", "size", "recipes": {"retinanet-r50": {"stock": COUNTS, "uniform": COUNTS,
                "rlo": COUNTS, "fast": COUNTS}, ...}}, COUNTS {"operations", "waits", "allocations"}
    any other  Figures by name, nested.

    TIMES  {"median_s", "q1_s", "q3_s", "n"}                 over single inferences, blocks of iterations, evaluations
    RATIO  {"ratio", "low", "high", "rounds"}                geometric mean of the rounds' ratios, 95 % interval
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from experiments.reporting.bench.grids import build_grids, describe_device, describe_loops, format_ratio
from experiments.reporting.tables.sections import Section

SCHEMA = 1
BUSY = 0.5  # load from which it is worth a word


def read(folders: Sequence[Path]) -> tuple[list[dict[str, Any]], list[str]]:
    """Return all bench files of results folders, newest first, and a sentence for each unreadable one.

    Each is the file's content, with `file`, its path as text, and without parts that do not fit the schema.
    """
    benches, problems = [], []
    for path in sorted(path for folder in folders for path in Path(folder).glob("bench/*.json")):
        try:
            bench = read_file(path)
        except ValueError as error:
            problems.append(f"{path} {error}")
            continue
        parts = {name: part for name, part in bench["parts"].items() if _fits(name, part)}
        odd = sorted(bench["parts"].keys() - parts.keys())
        problems += [f"{path}: its part '{name}' does not have the figures it should" for name in odd]
        benches.append({**bench, "parts": parts, "file": str(path)})
    benches.sort(key=lambda bench: (str(bench["date"]), bench["file"]), reverse=True)
    return benches, problems


def read_file(path: Path) -> dict[str, Any]:
    """Return one bench file.

    Raises:
        ValueError: It cannot be read, is no bench file, or was written by a newer msdet.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:  # UnicodeDecodeError is a ValueError
        raise ValueError(f"cannot be read: {error}") from None
    schema = content.get("schema") if isinstance(content, dict) else None
    if not isinstance(schema, int):
        raise ValueError("is no file of msdet bench: it has no 'schema'")
    if schema > SCHEMA:
        raise ValueError(f"has schema {schema}, this msdet reads up to {SCHEMA}: it is of a newer version")
    if not isinstance(content.get("parts"), dict) or not all(key in content for key in ("date", "host")):
        raise ValueError("is no file of msdet bench: it lacks 'date', 'host' or 'parts'")
    return content


def _fits(name: str, part: Any) -> bool:
    try:
        build_grids(name, part)
        _notes([(name, {**part, "host": "", "date": ""})])
    except (KeyError, TypeError, ValueError, AttributeError):
        return False
    return True


def find_newest(benches: Sequence[dict[str, Any]], part: str) -> list[dict[str, Any]]:
    """Return a part's newest measurement of each machine and device, newest first.

    Each is a PART, with `host`, `date` and `file` of where it stands.
    """
    found: dict[tuple[str, str], dict[str, Any]] = {}
    for bench in benches:
        measured = bench["parts"].get(part)
        if measured is not None:
            where = {key: str(bench[key]) for key in ("host", "date", "file")}
            found.setdefault((where["host"], describe_device(measured)), {**measured, **where})
    return sorted(found.values(), key=lambda m: str(m.get("measured", "")), reverse=True)


def build_bench_sections(benches: Sequence[dict[str, Any]]) -> list[Section]:
    """Return a section for each kind of measurement that there is, with the newest of each machine."""
    made = []
    others = {part for bench in benches for part in bench["parts"]} - {part for _, part, _ in SECTIONS}
    for title, own_part, text in SECTIONS:
        parts = sorted(others) if own_part is None else [own_part]
        measured = [(part, m) for part in parts for m in find_newest(benches, part)]
        if measured:
            grids = [grid for part, m in measured for grid in build_grids(part, m)]
            made.append(Section(title, [text, *_notes(measured)], grids))
    return made


SECTIONS = (  # title, part, text; None: all parts that have no section
    (
        "What level weighting costs in training",
        "overhead",
        "Whole training iterations, loading and augmentation included, of trainings that took turns in one "
        "process. Medians with quartiles over rounds; ratios are means over rounds (geometric) with 95 % "
        "intervals, of time and, without a GPU, of processor time, which other work on the machine touches less. "
        "'Uniform again' is uniform itself: how far its ratio lies from 1 is the error of the measurement; in the "
        "other ratios uniform is the mean of both. The rule's step (observe, decide, write the trace) is timed "
        "directly, for it is less than the ratios can show; on a GPU it includes waiting for the device at an "
        "interval's end.",
    ),
    (
        "Images per second in training",
        "train",
        "Whole trainings, loading included, that took turns in one process: MMDetection's own detector under "
        "MMEngine's own loop, and msdet's. Images per second are of the median iteration; ratios are means over "
        "rounds (geometric) with 95 % intervals, above 1 where msdet is faster. The paper reports that RLO adds "
        "0.45 % to an iteration.",
    ),
    (
        "What a training step asks of the host",
        "dispatch",
        "Operations that PyTorch dispatches in one step inside an interval, forward, backward and optimizer; those "
        "that wait for the device on a GPU; tensors allocated. Stock is MMDetection's own detector.",
    ),
    (
        "Inference time",
        "inference",
        "One image at a time, medians with quartiles over all inferences. Model only: a tensor on the device in, "
        "detections out, NMS included; end to end: from the image file to detections in its own coordinates. "
        "Ratios are means over rounds (geometric) of the rounds' medians, with 95 % intervals. Weights are "
        "untrained and the score threshold is 0, so that every model gives NMS equally many candidates: the most "
        "that its settings allow. Parameters are those that inference uses.",
    ),
    (
        "Evaluation time",
        "eval",
        "From a list of made-up detections to COCO's twelve metrics, seconds as medians with quartiles.",
    ),
    ("Other measurements", None, "Times are medians. Names say the units: s, ms, us."),
)


def _notes(measured: Sequence[tuple[str, dict[str, Any]]]) -> list[str]:
    """Return warnings about the measurements: a busy machine, noise above the stated interval."""
    notes = []
    for part, m in measured:
        load, where = m.get("load"), f"{m['host']}, {m['date']}"
        notes += [describe_loops(m)] if part == "overhead" else []
        if load is not None and load >= BUSY and part not in ("dispatch", "decisions"):  # no times
            cores = m["environment"].get("cpu_cores", "?")
            notes.append(
                f"{where}, {part}: the machine was at other work when it began (load {load} on {cores} cores)."
            )
        for name, found in _same(part, m["result"]).items():
            if not found["low"] <= 1 <= found["high"]:
                notes.append(
                    f"{where}, {part}: {name} is the same program and measures {format_ratio(found)}: "
                    "take differences of that size for noise."
                )
    return notes


def _same(part: str, result: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the ratios that are 1 by construction."""
    if part == "overhead":
        (again,) = (r for r in result["ratios"] if r["of"] == "again")
        found = {"uniform again": again, "uniform again, processor time,": again["cpu"]}
        return {name: ratio for name, ratio in found.items() if ratio}
    if part == "inference":
        models = {model["id"]: model for model in result["models"]}
        if rlo := models.get("rlo"):
            return {"RLO (model)": rlo["model_ratio"], "RLO (end to end)": rlo["end_to_end_ratio"]}
    return {}
