"""One seed for all that tests draw by chance: random, shown in pytest's header, and repeated with

    SPENDGATE_SEED=123456 make test

A series whose figures a test states, such as made-up noise for the detectors, is data: it has a
seed of its own beside it.
"""

import os
import random
from typing import Final

VARIABLE: Final = "SPENDGATE_SEED"
# Kept in the environment, so that processes of one run draw alike.
SEED: Final = int(os.environ.setdefault(VARIABLE, str(random.SystemRandom().randrange(10**6))))


def dice(*names: object) -> random.Random:
    """Return the chances of one draw, named so that it depends on no other test."""
    return random.Random(" ".join(map(str, (SEED, *names))))
