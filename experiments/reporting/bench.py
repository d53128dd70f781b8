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
                "loops": [{"id": "stock", "label": ..., "detector": "RetinaNet", "loop": "EpochBasedTrainLoop",
                           "iteration": TIMES, "rule": {"iteration_s", "share"} or null}, ...],
                "ratios": [{"of": "rlo", "to": "uniform", **RATIO}, ...]}
    eval       {"images", "classes", "truths", "detections", "repeats", "faster_coco_eval": TIMES,
                "pycocotools": TIMES, "ratio": RATIO or null, "metrics": {"AP": [faster, pycocotools], ...},
                "largest_difference": 1e-16, "equal": true}
    any other  Figures by name, nested.

    TIMES  {"median_s", "q1_s", "q3_s", "n"}                 over single inferences, blocks of iterations, evaluations
    RATIO  {"ratio", "low", "high", "rounds"}                geometric mean of the rounds' ratios, 95 % interval
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

SCHEMA = 1


def read(folders: Sequence[Path]) -> tuple[list[dict[str, Any]], list[str]]:
    """All bench files below the results folders, newest first, and a sentence for each that cannot be read.

    Each is the file's content, with `file`, its path as text, and without parts that do not fit the schema.
    """
    benches, problems = [], []
    for path in sorted(path for folder in folders for path in Path(folder).glob("bench/*.json")):
        try:
            benches.append({**read_file(path), "file": str(path)})
        except ValueError as error:
            problems.append(f"{path}: {error}")
    benches.sort(key=lambda bench: (str(bench["date"]), bench["file"]), reverse=True)
    return benches, problems


def read_file(path: Path) -> dict[str, Any]:
    """One bench file.

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


def newest(benches: Sequence[dict[str, Any]], part: str) -> list[dict[str, Any]]:
    """The measurements of a part, the newest of each machine and device, newest first.

    Each is a PART, with `host`, `date` and `file` of where it stands.
    """
    found: dict[tuple[str, str], dict[str, Any]] = {}
    for bench in benches:
        measured = bench["parts"].get(part)
        if measured is not None:
            where = {key: str(bench[key]) for key in ("host", "date", "file")}
            found.setdefault((where["host"], device(measured)), {**measured, **where})
    return sorted(found.values(), key=lambda m: str(m.get("measured", "")), reverse=True)


def device(part: dict[str, Any]) -> str:
    """What a part was measured on, in words."""
    environment = part.get("environment", {})
    gpus = environment.get("gpus") or []
    return (
        ", ".join(gpus) or f"{environment.get('cpu', 'CPU')}, {environment.get('cpu_threads', '?')} threads"
    )
