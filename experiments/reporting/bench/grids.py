"""The measurements of `msdet bench` as grids of text, one function a part."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from experiments.reporting.tables.sections import Grid

Part = Mapping[str, Any]


def build_overhead_grids(part: Part) -> list[Grid]:
    """Return time per iteration of each loop with the rule's own step, and the loops' ratios."""
    result = part["result"]
    rows, label = [], {}
    for loop in result["loops"]:
        rule = loop["rule"]
        own = ["", ""] if rule is None else [f"{1e6 * rule['iteration_s']:.0f}", f"{100 * rule['share']:.2f}"]
        rows.append([loop["label"], format_times(loop["iteration"]), *own])
        label[loop["id"]] = loop["label"]
    ratios = [
        [f"{label[r['of']]} / {label[r['to']]}", format_ratio(r), format_ratio(r["cpu"]) if r["cpu"] else "-"]
        for r in result["ratios"]
    ]
    return [
        Grid(
            ["training", "ms per iteration", "rule's step, µs", "% of it"],
            rows,
            title=f"{_training(result)}. {describe_measurement(part)}",
        ),
        Grid(
            ["ratio", "of time", "of processor time"], ratios, title="Within each round, with 95 % intervals"
        ),
    ]


def describe_loops(part: Part) -> str:
    """Return which detector each loop trained, in a sentence."""
    of: dict[str, list[str]] = {}
    for loop in part["result"]["loops"]:
        of.setdefault(f"{loop['detector']} under {loop['runner']} and {loop['loop']}", []).append(
            loop["label"]
        )
    return "; ".join(f"{', '.join(labels)}: {what}" for what, labels in of.items()) + "."


def build_inference_grids(part: Part) -> list[Grid]:
    """Return time of an image by neck (Fig. 4)."""
    result = part["result"]
    rows = []
    for model in result["models"]:
        flops = "" if model["flops"] is None else f"{model['flops'] / 1e9:.3g}"
        row = [model["label"], f"{model['parameters'] / 1e6:.2f}", flops]
        for kind in ("model", "end_to_end"):
            found = model[f"{kind}_ratio"]
            row += [format_times(model[kind]), "" if found is None else format_ratio(found)]
        rows.append(row)
    header = ["model", "parameters, M", "multiply-adds, G", "model only, ms", "to baseline", "end to end, ms",
              "to baseline"]  # fmt: skip
    what = f"batch 1 at {_by(result['size'])}{_profile(result)}, {result['candidates']} candidates to NMS"
    rounds = f"{result['rounds']} rounds of {result['repeats']}"
    return [Grid(header, rows, title=f"{what}; {rounds}. {describe_measurement(part)}")]


def build_evaluation_grids(part: Part) -> list[Grid]:
    """Return time of faster-coco-eval beside that of pycocotools."""
    result = part["result"]
    rows = [
        [name, format_times(result[key], 1), "" if ratio is None else f"{ratio['ratio']:.3g}"]
        for name, key, ratio in (
            ("faster-coco-eval", "faster_coco_eval", None),
            ("pycocotools", "pycocotools", result["ratio"]),
        )
    ]
    what = f"{result['images']} images, {result['detections']} detections of {result['classes']} classes"
    same = f"largest difference of COCO's twelve metrics {result['largest_difference']:.1g}"
    verdict = "equal" if result["equal"] else "NOT equal"
    header = ["evaluation with", "seconds", "times as long"]
    return [Grid(header, rows, title=f"{what}; {same} ({verdict}). {describe_measurement(part)}")]


def build_dispatch_grids(part: Part) -> list[Grid]:
    """Return what a step asks of the host, by recipe and rule."""
    result = part["result"]
    rows = []
    for recipe, counts in result["recipes"].items():
        stock = counts["stock"]["operations"]
        for rule, count in counts.items():
            more = "" if rule == "stock" else f"{count['operations'] - stock:+d}"
            rows.append(
                [recipe, rule, str(count["operations"]), more, str(count["waits"]), str(count["allocations"])]
            )
    header = ["recipe", "rule", "operations", "to stock", "waits", "allocations"]
    title = (
        f"batch {result['batch']} at {_by(result['size'])}{_profile(result)}. {describe_measurement(part)}"
    )
    return [Grid(header, rows, 2, title)]


def train(part: Part) -> list[Grid]:
    """Return images per second of each loop, a grid for each batch."""
    header = ["training", "images per second", "ms per iteration", "times stock's", "of processor time",
              "peak memory, GB"]  # fmt: skip
    grids = []
    for result in part["result"]["batches"]:
        speeds, rows = {"stock": ["", ""]}, []
        for found in result["ratios"]:
            speeds[found["to"]] = [format_ratio(found), format_ratio(found["cpu"]) if found["cpu"] else "-"]
        for loop in result["loops"]:
            images = f"{result['batch'] / loop['iteration']['median_s']:.3g}"
            memory = "-" if loop["peak_bytes"] is None else f"{loop['peak_bytes'] / 1e9:.2f}"
            rows.append([loop["label"], images, format_times(loop["iteration"]), *speeds[loop["id"]], memory])
        grids.append(Grid(header, rows, title=f"{_training(result)}. {describe_measurement(part)}"))
    return grids


def make_grid_builder(name: str) -> Callable[[Part], list[Grid]]:
    """Return a function that lists figures by name, however nested."""

    def grids(part: Part) -> list[Grid]:
        rows = [[label, value] for label, value in _flat(part["result"])]
        return [Grid(["figure", "value"], rows, title=f"{name}. {describe_measurement(part)}")]

    return grids


def build_grids(name: str, part: Part) -> list[Grid]:
    """Return the grids of a part.

    Raises:
        KeyError, TypeError, ValueError, AttributeError: It does not fit the schema.
    """
    known = {
        "dispatch": build_dispatch_grids,
        "overhead": build_overhead_grids,
        "train": train,
        "inference": build_inference_grids,
        "eval": build_evaluation_grids,
    }
    return known.get(name, make_grid_builder(name))(part)


def describe_measurement(part: Part) -> str:
    """Return device, versions and day of a measurement."""
    environment = part["environment"]
    packages = environment["packages"]
    words = [describe_device(part), f"torch {packages['torch']}"]
    words += [
        f"{key} {packages[name]}" for key, name in (("MMDetection", "onedl-mmdetection"),) if name in packages
    ]
    words += [f"operators {environment['operators']}"] if environment.get("operators") else []
    if environment.get("gpus"):
        words += [f"CUDA {environment['cuda']}", f"cuDNN {environment['cudnn']}"]
        on = {
            "tf32_matmul": "TF32 matmul",
            "tf32_cudnn": "TF32 convolutions",
            "cudnn_benchmark": "cuDNN benchmark",
        }
        words += [
            f"{text} {'on' if environment[key] else 'off'}" for key, text in on.items() if key in environment
        ]
    return ", ".join([*words, str(part["measured"])[:10]])


def describe_device(part: Part) -> str:
    """Return what a part was measured on, in words."""
    environment = part["environment"]
    threads = environment.get("cpu_threads", "?")
    cpu = f"{environment.get('cpu', 'CPU')}, {threads} thread{'' if threads == 1 else 's'}"
    return ", ".join(environment.get("gpus") or [cpu])


def format_times(times: Mapping[str, Any], unit: float = 1000) -> str:
    """Return median and quartiles of TIMES in seconds times `unit`: `41.2 (40.9-41.8)`."""
    median, low, high = (unit * times[key] for key in ("median_s", "q1_s", "q3_s"))
    digits = 0 if median >= 100 else 1 if median >= 10 else 2
    return f"{median:.{digits}f} ({low:.{digits}f}-{high:.{digits}f})"


def format_ratio(ratio: Mapping[str, Any]) -> str:
    """Return a RATIO with its interval: `1.002 [0.998, 1.006]`."""
    return f"{ratio['ratio']:.3f} [{ratio['low']:.3f}, {ratio['high']:.3f}]"


def _profile(result: Part) -> str:
    return f" ({result['profile']})" if result["profile"] else ""


def _training(result: Part) -> str:
    """Return what was trained, and for how long."""
    what = f"{result['recipe']}{_profile(result)} on {result['dataset']}, batch {result['batch']}"
    size = f", {_by(result['size'])}" if result["size"] else ""
    rounds = f"{result['rounds']} rounds of {result['steps']} iterations, alpha {result['alpha']}"
    return f"{what}{size}; {rounds}"


def _by(size: Sequence[int]) -> str:
    return " x ".join(str(side) for side in size)


def _flat(figures: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    rows = []
    for name, value in figures.items():
        if isinstance(value, Mapping):
            rows += _flat(value, f"{prefix}{name} ")
        else:
            rows.append((f"{prefix}{name}", f"{value:.4g}" if isinstance(value, float) else str(value)))
    return rows
