"""A worker's signals, in a process of its own: run by test_worker.py. It prints what it has seen."""

import multiprocessing
import os
import signal
import sys
import time

from experiments.runs.run_folder import RunFolder
from experiments.training.engine import stopping

stopping.SAME_MOMENT_S, stopping.HEARTBEAT_S = 0.1, 0.02
stopping.stop_when_asked(1)

# Stock MMDetection's VOC metric ends its pool by SIGTERM; children that only took note of it would never end.
pool = multiprocessing.get_context("fork").Pool(6)
assert pool.map(abs, [-1, -2]) == [1, 2]
pool.terminate()
pool.join()
print("after the end of a pool:", stopping.STOP.is_set())
os.kill(os.getpid(), signal.SIGTERM)
print("after a signal:", stopping.STOP.is_set())
os.kill(os.getpid(), signal.SIGTERM)  # the same request, on another way
time.sleep(0.2)
try:
    os.kill(os.getpid(), signal.SIGTERM)
except KeyboardInterrupt:
    print("ended at the second")

# A cancelled run is asked by its own heartbeat, and once: a second request would end it without a checkpoint.
stopping.STOP.clear()
run = RunFolder(sys.argv[1])
run.progress.touch()
stopping.start_heartbeat(run, os.getppid())
time.sleep(0.2)
print("before it is cancelled:", stopping.STOP.is_set())
run.cancel.touch()
time.sleep(0.5)  # many beats, longer than the same moment
print("after it is cancelled:", stopping.STOP.is_set())
