"""A real Slurm of one node, of the tests' own: its daemons, keys, ports and files are in a folder that goes away."""

from __future__ import annotations

import ctypes
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from experiments.launching.slurm.job import ACTIVE_STATES

DAEMONS = ("munged", "slurmctld", "slurmd")
PATH = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"  # where daemons are, on no ordinary user's PATH
PR_SET_PDEATHSIG = 1  # of prctl(2)
CPUS = 8  # more than the machine may have: no test may pass for want of them

CONFIG = """\
ClusterName=tests
SlurmctldHost=localhost(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
SlurmUser={user}
SlurmdUser={user}
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
MailProg=/bin/true
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SchedulerParameters=batch_sched_delay=0,sched_min_interval=100000
SlurmdParameters=config_overrides
ReturnToService=2
KillWait=20
NodeName=localhost NodeHostname={host} NodeAddr=127.0.0.1 CPUs={cpus} RealMemory=16000 State=UNKNOWN
PartitionName=main Nodes=localhost Default=YES MaxTime=INFINITE State=UP
"""


def missing() -> list[str]:
    """What of Slurm is not installed here."""
    return [name for name in (*DAEMONS, "sbatch", "srun", "squeue") if shutil.which(name, path=PATH) is None]


@dataclass
class Slurm:
    folder: Path

    @property
    def env(self) -> dict[str, str]:
        return {"SLURM_CONF": str(self.folder / "slurm.conf"), "PATH": PATH}

    def __call__(self, *words: str) -> str:
        """One of Slurm's commands; what it says."""
        done = subprocess.run(
            words, env={**os.environ, **self.env}, capture_output=True, text=True, timeout=60
        )
        assert done.returncode == 0, f"{words}: {done.stderr}"
        return done.stdout

    def jobs(self, *states: str) -> list[str]:
        """Ids of the jobs in one of the states; without any, of all that have not ended."""
        found = self("squeue", "--noheader", "--array", "--states=all", "--format=%i|%T").split()
        return [
            job
            for job, _, state in (line.partition("|") for line in found)
            if state in (states or ACTIVE_STATES)
        ]


@contextmanager
def one_node() -> Iterator[Slurm]:
    """The node, ready for jobs; they and it are ended in the end."""
    folder = Path(
        tempfile.mkdtemp(prefix="msdet-slurm-")
    )  # pytest's own folders are closed to others, munged's may not be
    folder.chmod(0o755)
    slurm = Slurm(folder)
    with ExitStack() as stack:
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        key = folder / "munge.key"
        key.touch(mode=0o600)
        key.write_bytes(os.urandom(128))
        (folder / "slurm.conf").write_text(
            CONFIG.format(
                folder=folder, ports=free_ports(2), user=user_name(), host=socket.gethostname(), cpus=CPUS
            )
        )
        for name in ("state", "spool"):
            (folder / name).mkdir()
        munge = {name: folder / f"munge.{name}" for name in ("socket", "pid", "log", "seed")}
        files = [
            f"--{'socket' if name == 'socket' else name + '-file'}={path}" for name, path in munge.items()
        ]
        stack.enter_context(daemon(slurm, "munged", "--foreground", f"--key-file={key}", *files))
        wait_for(munge["socket"].exists, slurm, "munged")
        stack.enter_context(daemon(slurm, "slurmctld", "-D"))
        stack.enter_context(daemon(slurm, "slurmd", "-D", "-N", "localhost"))
        wait_for(lambda: "idle" in sinfo(slurm), slurm, "a node that is idle")
        stack.callback(leave_nothing, slurm)
        yield slurm


def leave_nothing(slurm: Slurm) -> None:
    slurm("scancel", f"--user={user_name()}")
    slurm("scancel", "--full", "--signal=KILL", f"--user={user_name()}")
    wait_for(lambda: not slurm.jobs(), slurm, "queue that is empty")


@contextmanager
def daemon(slurm: Slurm, *command: str) -> Iterator[None]:
    with open(slurm.folder / f"{command[0]}.out", "w") as log:
        process = subprocess.Popen(
            command,
            env={**os.environ, **slurm.env},
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            preexec_fn=end_with_the_tests,
        )
    try:
        yield
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def end_with_the_tests() -> None:
    """Called in a daemon's process before it begins: however the tests end, none is left."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


def sinfo(slurm: Slurm) -> str:
    command = ["sinfo", "--noheader", "--states=idle"]
    return subprocess.run(command, env={**os.environ, **slurm.env}, capture_output=True, text=True).stdout


def wait_for(condition, slurm: Slurm, what: str) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        if time.monotonic() > deadline:
            logs = "\n".join(
                f"{path}:\n{path.read_text()[-2000:]}" for path in slurm.folder.glob("*.[lo][ou][gt]")
            )
            raise AssertionError(f"no {what} within 30 s\n{logs}")
        time.sleep(0.1)


def free_ports(count: int) -> list[int]:
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


def user_name() -> str:
    import pwd

    return pwd.getpwuid(os.getuid()).pw_name
