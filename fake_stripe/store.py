"""The file in which the demo's fake Stripe keeps its world over a restart."""

import os
from pathlib import Path
from tempfile import NamedTemporaryFile

import msgspec

from fake_stripe.world import World


def read_world(file: Path) -> World:
    """Return the world of a file; a new one if there is none, or none of this version."""
    try:
        return msgspec.msgpack.decode(file.read_bytes(), type=World)
    except (FileNotFoundError, msgspec.MsgspecError):
        return World()


def write_world(world: World, file: Path) -> None:
    """Replace the file, for this user alone."""
    with NamedTemporaryFile(dir=file.parent, prefix=f"{file.name}.", delete=False) as draft:
        draft.write(msgspec.msgpack.encode(world))
    os.replace(draft.name, file)
