"""The worker's signals."""

import subprocess
import sys

# Stock MMDetection's VOC metric ends its pool by SIGTERM; children that only took note of it would never end.
POOL = """
import multiprocessing, os, signal, time
from experiments.training.engine.stopping import STOP
from experiments.training.engine.stopping import stop_when_asked
stop_when_asked(1)
pool = multiprocessing.get_context("fork").Pool(6)
assert pool.map(abs, [-1, -2]) == [1, 2]
pool.terminate()
pool.join()
assert not STOP.is_set()
os.kill(os.getpid(), signal.SIGTERM)
assert STOP.is_set()
os.kill(os.getpid(), signal.SIGTERM)  # the same request, on another way
time.sleep(1.1)
try:
    os.kill(os.getpid(), signal.SIGTERM)
except KeyboardInterrupt:
    print("ended at the second")
"""


def test_a_signal_asks_the_worker_and_ends_its_children():
    done = subprocess.run([sys.executable, "-c", POOL], capture_output=True, text=True, timeout=40)
    assert done.stdout.split("\n")[-2] == "ended at the second", done.stderr
