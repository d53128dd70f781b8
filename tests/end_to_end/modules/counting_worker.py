"""In the place of the worker, so that only Slurm and our use of it take time: it counts to 20 and saves."""

import os
import signal
import socket
import sys
import time
from pathlib import Path

from experiments.common.processes import process_started
from experiments.runs.record import Attempt, format_now
from experiments.runs.run_folder import RunFolder

run, asked = RunFolder(sys.argv[1]), []
signal.signal(signal.SIGTERM, lambda *of: asked.append(of))
began, record, pid = time.monotonic(), run.read(), os.getpid()
record.status = "running"
record.attempts.append(
    Attempt(started=format_now(), host=socket.gethostname(), pid=pid, pid_started=process_started(pid))
)
run.write(record)
saved = run.path / "saved"
done = int(saved.read_text()) if saved.exists() else 0
record.attempts[-1].first_iteration = done
while done < 20 and not asked and time.monotonic() < began + 120:
    time.sleep(0.1)
    done += done < 5 or not (Path("hold") / run.path.name).exists()
saved.write_text(str(done))
record.status = "done" if done == 20 else "interrupted"
record.attempts[-1].last_iteration = done
run.write(record)
sys.exit(0 if done == 20 else 75)
