"""Print whether this process inherits the lock of the run folder given as the argument."""

import sys

from experiments.runs.run_folder import RunFolder
from experiments.runs.run_lock import inherits_lock

print(inherits_lock(RunFolder(sys.argv[1])))
