"""Enforcement under random use, proved from outside: a million operations by several processes,
while people change what they are judged by and the service is killed again and again.

`world` says what there is, `actor` what a client does, `overseer` what people do, `watch` looks
at the database meanwhile, `model` and `proof` compare with it at the end.
"""

from bench.soak.trial import Outcome, run

__all__ = ["Outcome", "run"]
