"""Exactly once, proved from outside: events sent while the service is killed again and again.

`calls` decides what is sent, `traffic` sends it until every event is acknowledged, `killing` ends
processes meanwhile, `proof` compares what is stored with what was sent.
"""

from bench.exactly_once.trial import Outcome, run

__all__ = ["Outcome", "run"]
