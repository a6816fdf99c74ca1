"""The embedded broker: Kombu's broker of files, with messages that are never seen half-written.

Kombu's own writes a message under its final name, so that a worker may read it empty and die.
"""

import os
import time
import uuid
from pathlib import Path
from queue import Empty
from typing import Any

from kombu.transport import filesystem
from kombu.utils.json import dumps, loads


class Channel(filesystem.Channel):
    """A message is a file that appears by being renamed, and is taken by being renamed."""

    # The typing of the two classes above disagrees on the name of the message.
    def _put(  # type: ignore[override]
        self, queue: str, payload: dict[str, object], **kwargs: object
    ) -> None:
        path = self._folder / f"{time.time_ns()}_{uuid.uuid4().hex}.{queue}.msg"
        draft = path.with_name(f"{path.name}.draft")
        draft.write_text(dumps(payload))
        draft.rename(path)

    def _get(self, queue: str, timeout: float | None = None) -> Any:
        for name in sorted(os.listdir(self._folder)):
            if name.partition(".")[2] != f"{queue}.msg":
                continue
            taken = self._folder / f"{name}.taken"
            try:
                (self._folder / name).rename(taken)
            except FileNotFoundError:
                continue  # another worker was first
            content = taken.read_text()
            taken.unlink()
            return loads(content)
        raise Empty

    @property
    def _folder(self) -> Path:
        return Path(self.data_folder_in)


class Transport(filesystem.Transport):
    Channel = Channel
