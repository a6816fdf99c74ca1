"""Enforcement and ingest under random use, proved from outside: many clients in several processes,
while people change what they are judged by and the service is broken again and again.

`world` says what there is; `actor` and `reporter` what clients do, `overseer` what people do,
`nuisance` what no one should do; `watch` looks at the database meanwhile, `model` and `proof`
compare with it at the end. A run without operations is the trial that events count exactly once.
"""

from bench.soak.parts import Outcome
from bench.soak.plan import Scale
from bench.soak.run import run

__all__ = ["Outcome", "Scale", "run"]
