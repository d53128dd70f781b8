"""Annotations of COCO's size, parsed once: 20 seconds and gigabytes of memory, for the next process a file to map."""

from __future__ import annotations

import sys
from pathlib import Path

from experiments.common import cache
from experiments.data.problems import ProblemLog
from experiments.data.readers.annotations import Annotations
from experiments.data.readers.coco import read_coco

MIN_BYTES = 5_000_000  # smaller files are parsed in a fraction of a second, and are not stored


def recall_coco(path: Path, folder: Path, masks: bool = False) -> Annotations:
    """Return what `read_coco` returns; from the cache if the file is unchanged, and then its images are a table.

    Of several processes that need a file at the same time one parses it, and the others wait.

    Raises:
        UserError: As `read_coco` with a strict log.
    """
    stamp = cache.read_stamp(path)
    if stamp is None or stamp[2] < MIN_BYTES:
        return read_coco(path, folder, ProblemLog(strict=True), masks)
    with cache.only_maker(_key(path, folder, masks)):
        known = _recall(path, folder, masks)
        if known is None:
            read = store_coco(path, folder, ProblemLog(strict=True), masks)
            known = _recall(path, folder, masks) or read
    return known


def store_coco(path: Path, folder: Path, log: ProblemLog, masks: bool = False) -> Annotations:
    """Do as `read_coco`, and store what it returns for `recall_coco` if the file is large and without faults."""
    from experiments.data.readers.image_table import ImageTable

    before = cache.read_stamps([path])
    read = read_coco(path, folder, log, masks)
    stamp = before[str(path)]
    if log.error is None and stamp is not None and stamp[2] >= MIN_BYTES:
        table = ImageTable.of(read)
        (digest,) = [[images, raw.hex()] for images, raw in read.raw_digests]
        answer = {"classes": read.classes, "category_ids": read.category_ids, "raw_digest": digest}
        # Ids of 20 digits are no plain numbers, and so are not stored.
        is_plain = not any(column.dtype.hasobject for column in table.columns.values())
        try:
            if is_plain:
                cache.remember_arrays(_key(path, folder, masks), answer, table.columns, before)
        except (OSError, RuntimeError) as error:
            reason = getattr(error, "strerror", None) or error
            print(
                f"note: {path} is parsed in every process: no cache can be written: {reason}", file=sys.stderr
            )
    return read


def _recall(path: Path, folder: Path, masks: bool) -> Annotations | None:
    found = cache.recall_arrays(_key(path, folder, masks))
    if found is None:
        return None
    from experiments.data.readers.image_table import ImageTable

    answer, columns = found
    images, raw = answer["raw_digest"]
    table = ImageTable(columns, answer["classes"])
    return Annotations(
        table, answer["classes"], answer["category_ids"], [path], [(images, bytes.fromhex(raw))]
    )


def _key(path: Path, folder: Path, masks: bool) -> list:
    return ["annotations", str(path.absolute()), str(folder), masks]
