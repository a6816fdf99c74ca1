"""DATA_DIR: one owner at a time, told apart by a lock the kernel drops when its holder dies."""

import fcntl
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import NamedTemporaryFile

SERVICE = "the service"


class DataFolderUnusable(Exception):
    """DATA_DIR cannot be used; the message says why."""


class DataFolderInUse(DataFolderUnusable):
    """Another process owns DATA_DIR."""

    def __init__(self, data_dir: Path, owner: str) -> None:
        super().__init__(
            f"DATA_DIR {data_dir} is in use by {owner}: "
            f"stop that, or start this with another DATA_DIR."
        )
        self.owner = owner


@contextmanager
def own_data_folder(data_dir: Path, *, purpose: str) -> Iterator[None]:
    """Own DATA_DIR alone until the block ends, or raise DataFolderInUse."""
    make_private_folder(data_dir)
    descriptor = os.open(data_dir / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            owner = os.pread(descriptor, 200, 0).decode(errors="replace").strip()
            raise DataFolderInUse(data_dir, owner or "another process") from None
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{purpose} (process {os.getpid()})\n".encode(), 0)
        yield
    finally:
        os.close(descriptor)


def make_private_folder(path: Path) -> None:
    """Make a folder for this user alone if it is missing. Raises DataFolderUnusable."""
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise DataFolderUnusable(f"DATA_DIR {path} cannot be made: {error.strerror}.") from error
    if not os.access(path, os.R_OK | os.W_OK | os.X_OK):
        raise DataFolderUnusable(
            f"DATA_DIR {path} belongs to another user: start as that user, or set another DATA_DIR."
        )


def write_private(path: Path, text: str) -> None:
    """Replace a file by one for this user alone; no reader ever sees a part of it."""
    with NamedTemporaryFile("w", dir=path.parent, prefix=f"{path.name}.", delete=False) as draft:
        draft.write(text)
    os.replace(draft.name, path)


def read_secret_key(data_dir: Path) -> str:
    """Return the key that was made once for this DATA_DIR, for its owner alone."""
    path = data_dir / "secret_key"
    if not path.exists():
        data_dir.mkdir(parents=True, exist_ok=True)
        with NamedTemporaryFile("w", dir=data_dir, prefix=f"{path.name}.") as draft:
            draft.write(secrets.token_urlsafe(64))
            draft.flush()
            with suppress(FileExistsError):  # the first process to link its key wins
                os.link(draft.name, path)
    return path.read_text().strip()
