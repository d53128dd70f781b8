"""Leases on GPUs: of all processes on this machine, one run at a time has a GPU.

A lease is a lock on an open file, and the file stays open in the worker that uses the GPU. So the kernel keeps
it exactly as long as the last process with that file lives: no crash leaves one behind, and a worker that
survives the command that started it keeps its own.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from experiments.common.errors import UserError
from experiments.common.locks import lock
from experiments.launching.gpus import Gpu

FOLDER_VARIABLE = "MSDET_LEASES"
DEFAULT_FOLDER = "/tmp/msdet-leases"  # not $TMPDIR, which differs from user to user


@dataclass(frozen=True)
class Lease:
    """GPUs of this process until `release`, and of a child with `descriptors` in its `pass_fds` until it ends."""

    gpus: tuple[Gpu, ...]
    descriptors: tuple[int, ...]

    def environment(self) -> dict[str, str]:
        """Return the environment that shows a worker its GPUs only.

        By UUID, since CUDA may count them in another order than nvidia-smi.
        """
        return {"CUDA_VISIBLE_DEVICES": ",".join(gpu.uuid for gpu in self.gpus)}

    def release(self) -> None:
        """Close this process's descriptors."""
        for descriptor in self.descriptors:
            os.close(descriptor)


def lease(gpus: Sequence[Gpu], count: int) -> Lease | None:
    """Lease the first `count` GPUs that are free; return None, and lease none, if there are fewer.

    Raises:
        UserError: The folder of the leases cannot be used.
    """
    taken: list[tuple[Gpu, int]] = []
    with _allocation_lock():  # else two commands that want two GPUs each might take one each, again and again
        for gpu in gpus:
            if len(taken) == count:
                break
            descriptor = _open(f"{gpu.uuid}.lock")
            if lock(descriptor, patience_s=0):
                taken.append((gpu, descriptor))
            else:
                os.close(descriptor)
    found = Lease(tuple(gpu for gpu, _ in taken), tuple(descriptor for _, descriptor in taken))
    if len(taken) < count:
        found.release()
        return None
    return found


@contextlib.contextmanager
def _allocation_lock() -> Iterator[None]:
    descriptor = _open("allocate.lock")
    try:
        lock(descriptor)
        yield
    finally:
        os.close(descriptor)


def _open(name: str) -> int:
    """Open a file that any user may lock.

    Reading is enough for that, and a kernel may forbid more in a shared folder.
    """
    folder = Path(os.environ.get(FOLDER_VARIABLE) or DEFAULT_FOLDER)
    path = folder / name.replace("/", "-")
    try:
        if not folder.is_dir():
            with contextlib.suppress(FileExistsError):
                folder.mkdir(parents=True)
                folder.chmod(0o1777)  # whatever the umask
        for _ in range(2):
            with contextlib.suppress(FileNotFoundError):
                return os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
            with contextlib.suppress(FileExistsError):  # another was quicker
                os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o644))
                os.chmod(path, 0o644)
        return os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError as error:
        raise UserError(
            f"GPUs cannot be leased: {path}: {error.strerror or error}",
            f"name a folder that all users of the machine can write: export {FOLDER_VARIABLE}=DIR",
        ) from None
