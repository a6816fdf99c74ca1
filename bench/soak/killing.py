"""Who dies while the soak runs, and when."""

import signal
from collections.abc import Sequence
from typing import Final

from bench.exactly_once.killing import Due, Killer, Rhythm
from bench.exactly_once.victim import kill

POSTGRES_KILLED: Final = "PostgreSQL, SIGKILL"
# A long run has many deaths anyway, and should get on with its operations between them.
LONG: Final = Rhythm(web=(15.0, 40.0), connections=(0.5, 3.0))
# A short one would be over before the web process had served for long, so its deaths are counted.
NEVER_SECONDS: Final = 1e9
SHORT: Final = Rhythm(web=(NEVER_SECONDS, NEVER_SECONDS), connections=(0.05, 0.5))
LONG_SHARES: Final = tuple(place / 20 for place in range(1, 20))


class SoakKiller(Killer):
    """Kills PostgreSQL with SIGKILL, too."""

    def kill_postgres(self) -> None:
        """What the kernel does where memory runs out: no word to those who serve connections."""
        self._wait_for_request()
        self.deaths[POSTGRES_KILLED] += kill(self.victim.postmasters(), signal.SIGKILL)
        self._begin_anew()

    def dues(self, *, is_long: bool) -> Sequence[Due]:
        """In the long form everything in turn, in the short one web and PostgreSQL once each."""
        if not is_long:
            return [Due(0.3, self._kill_web), Due(0.6, self.kill_postgres)]
        ways = [
            self.stop_postgres_at_once,
            self.kill_postgres,
            self.kill_celery,
            self.kill_everything,
        ]
        return [Due(share, ways[place % len(ways)]) for place, share in enumerate(LONG_SHARES)]
