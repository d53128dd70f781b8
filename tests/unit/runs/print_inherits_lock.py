"""Print whether this process inherits the lock of the run folder given as the argument."""

import sys

from experiments.runs.run_folder import RunFolder, inherits_lock

print(inherits_lock(RunFolder(sys.argv[1])))
