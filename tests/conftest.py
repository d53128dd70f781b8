"""Set before torch is imported: threads that spin while they wait slow down everything beside them."""

import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
