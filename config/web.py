"""What a web process serves: `config.edge`, and what belongs to the process it runs in."""

import gc
import os
import resource
import socket
import sys
from contextlib import suppress
from typing import Final

from config.garbage import collect_seldom

collect_seldom()

import django
from django.conf import settings

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")
django.setup()

# Models can be imported only once Django is set up.
from config.connections import BUSY, limit_process
from config.edge import Edge
from metering.intake.committer import PROCESS_COMMITTER
from metering.limits.halt_watch import stop_watching
from metering.reservations.committer import PROCESS_ENFORCER
from metering.usage.sources import PROCESS_RECORDER
from tenants.changes import PROCESS_LISTENER

# A client that takes nothing of its answer for so long has gone away, whatever it says.
UNREAD_SECONDS: Final = 30


def limit_unread_answers() -> None:
    """Let the kernel end connections whose clients stop reading. What is set on a socket that
    listens counts for those that it accepts.
    """
    for name in os.listdir("/proc/self/fd"):
        with suppress(OSError), socket.socket(fileno=os.dup(int(name))) as inherited:
            if inherited.family in (socket.AF_INET, socket.AF_INET6):
                inherited.setsockopt(
                    socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, UNREAD_SECONDS * 1000
                )


def allow_many_connections() -> None:
    """Raise this process's limit of open files as far as it may."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


limit_unread_answers()
allow_many_connections()

limit_process(BUSY)
application = Edge(threads=settings.ENVIRONMENT.web_threads)
application.on_stop(
    PROCESS_COMMITTER.stop,
    PROCESS_ENFORCER.stop,
    PROCESS_RECORDER.stop,
    stop_watching,
    PROCESS_LISTENER.stop,
)
PROCESS_LISTENER.start()

# What the start made stays, and is not looked at again.
gc.collect()
gc.freeze()

# A thread that computes hands Python's lock over after this time. By default (5 ms) the event loop,
# which everybody waits for, would have it too seldom while large bodies are judged. With 0.25 ms a
# thousand tenants in turn got a third less done (docs/decisions/0036).
sys.setswitchinterval(0.001)

__all__ = ["application"]
