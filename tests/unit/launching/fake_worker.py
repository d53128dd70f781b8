"""A worker for tests of the queue, without torch; the first argument is the run folder.

It does what `plan.json` says for its seed and attempt: an exit code (negative: a signal), and whether it saves before
that, or the class of its end. Asked to stop, or left by the command, it saves and ends like a worker.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from pathlib import Path

launcher, me = os.getppid(), os.getpid()
asked: list[int] = []
signal.signal(signal.SIGTERM, lambda number, frame: asked.append(number))
folder, place = Path(sys.argv[1]), Path(os.environ["PLACE"])
record = json.loads((folder / "record.json").read_text())


def write_record() -> None:
    new = folder / "record.json.new"
    new.write_text(json.dumps(record))
    new.replace(folder / "record.json")


def note(what: str) -> None:
    word = [record["seed"], what, os.environ.get("CUDA_VISIBLE_DEVICES"), record["launch"]["micro_batch"]]
    with open(place / "events", "a") as stream:
        stream.write(json.dumps(word) + "\n")


attempt = {"started": "", "host": os.uname().nodename, "pid": me}
record["attempts"].append(attempt)
record["status"] = "running"
write_record()
note("start")
todo, number = (
    json.loads((place / "plan.json").read_text()).get(str(record["seed"]), []),
    len(record["attempts"]),
)
code, saves = todo[number - 1] if number <= len(todo) else (0, False)
end = time.monotonic() + float(os.environ["SECONDS"])
while time.monotonic() < end and not asked and os.getppid() == launcher:
    time.sleep(0.01)
if asked or os.getppid() != launcher:
    code, saves = 75, True
if saves is True:
    (folder / "checkpoints").mkdir(exist_ok=True)
    (folder / f"checkpoints/iter_{number}.pth").touch()
note("end" if code else "done")
if code < 0:
    os.kill(me, -code)
attempt.update(exit_code=code, message=f"said {code}", exit_class=saves if isinstance(saves, str) else None)
record["status"] = {0: "done", 75: "interrupted"}.get(code, "failed")
write_record()
sys.exit(code)
