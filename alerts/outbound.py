"""Where calls to tenants' addresses may go, and for how long.

A tenant names the addresses that alerts go to, so each of them may be an attempt to reach what only
this machine can reach. The judgement falls at the moment of connecting, on the address the
operating system is about to connect to: redirects, names that resolve differently the second time,
and every way of writing an address come down to that one. It is an audit hook of the interpreter,
so it holds for whatever library opens the connection, in the thread that entered `calling_out`;
what starts threads of its own must enter it there.
"""

import os
import socket
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from enum import Enum
from functools import cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import Any, Final

from django.conf import settings

CONNECT_SECONDS: Final = 5.0
# A whole call: connecting, sending, and the answer, however slowly it drips.
CALL_SECONDS: Final = 15.0

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

# Events of the interpreter at which data is about to leave for an address.
LEAVING: Final = frozenset({"socket.connect", "socket.sendto", "socket.sendmsg"})
NAT64: Final = IPv6Network("64:ff9b::/96")
# IPv6 addresses of hosts all begin with 001.
UNICAST: Final = IPv6Network("2000::/3")
# What registries keep for other uses and older releases of Python take for public.
RESERVED: Final[Sequence[Network]] = (
    IPv4Network("192.0.0.0/24"),
    IPv4Network("192.88.99.0/24"),
    # Public by its number, but within Azure it is the host of the virtual machine.
    IPv4Network("168.63.129.16/32"),
    IPv6Network("2001::/23"),
    IPv6Network("3fff::/20"),
)


class Reach(Enum):
    """Which addresses a call may connect to."""

    # What is public, and the operator's CHANNEL_NETWORKS.
    PUBLIC = "public"
    # CHANNEL_NETWORKS alone: for calls that are not encrypted.
    ALLOWED = "allowed"
    # The operator's own servers.
    ANYWHERE = "anywhere"


class AddressRefused(OSError):
    """A connection that is not allowed. The sentence does not say what the name resolved to."""


class Call:
    """One call out: what it may reach, when it ends, and why it failed where this cut it."""

    def __init__(self, reach: Reach, seconds: float) -> None:
        self.reach = reach
        self.ends_at = time.monotonic() + seconds
        self.refusal = ""
        self._descriptors: list[int] = []
        self._lock = threading.Lock()

    def judge(self, connection: socket.socket, address: object) -> None:
        """Let the connection be made, or raise AddressRefused."""
        if not may_connect(address, reach=self.reach, family=connection.family):
            self.refusal = refusal(self.reach)
            raise AddressRefused(self.refusal)
        with self._lock:
            if time.monotonic() >= self.ends_at:
                raise AddressRefused("There is no time left for another connection.")
            # A copy of the descriptor, since a library that adds TLS takes the socket apart.
            self._descriptors.append(os.dup(connection.fileno()))

    @property
    def is_late(self) -> bool:
        return time.monotonic() >= self.ends_at

    def cut(self) -> None:
        """Shut down the open connections. Reads and writes in progress fail."""
        with self._lock:
            for descriptor in self._descriptors:
                with socket.socket(fileno=os.dup(descriptor)) as connection, suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        with self._lock:
            while self._descriptors:
                os.close(self._descriptors.pop())


_current: ContextVar[Call | None] = ContextVar("call", default=None)


@contextmanager
def calling_out(*, reach: Reach, seconds: float = CALL_SECONDS) -> Iterator[Call]:
    """Let this thread connect only to what `reach` allows, and for no longer than `seconds`.

    Time spent on resolving a name cannot be cut short; the resolver has limits of its own.
    """
    _watch_connections()
    call = Call(reach, seconds)
    timer = threading.Timer(seconds, call.cut)
    timer.daemon = True
    token = _current.set(call)
    timer.start()
    try:
        yield call
    finally:
        timer.cancel()
        _current.reset(token)
        call.close()


def may_connect(address: object, *, reach: Reach, family: int = socket.AF_INET) -> bool:
    """Whether a socket may connect to this address, given as the operating system takes it."""
    if reach is Reach.ANYWHERE:
        return True
    if family not in (socket.AF_INET, socket.AF_INET6) or not isinstance(address, tuple):
        return False  # a socket in the file system, for one
    try:
        numeric = ip_address(address[0])
    except ValueError:
        # A name here would be resolved a second time, out of sight.
        return False
    return may_reach(numeric, reach=reach)


def may_reach(address: Address, *, reach: Reach = Reach.PUBLIC) -> bool:
    """Whether an address is public, or in a network that the operator allows."""
    real = _behind(address)
    networks: Sequence[Network] = settings.CHANNEL_NETWORKS
    if _is_in(real, networks):
        return True
    return reach is Reach.PUBLIC and _is_public(real)


def literal_address(host: str) -> Address | None:
    """The address that a host name spells, in any way that system libraries read; None for names.

    Nothing is resolved. `2130706433`, `0x7f.1` and `0177.0.0.1` all are 127.0.0.1.
    """
    with suppress(ValueError):
        return ip_address(host.strip("[]"))
    with suppress(OSError, UnicodeEncodeError):
        return IPv4Address(socket.inet_aton(host.rstrip(".")))
    return None


def refusal(reach: Reach) -> str:
    """Why an address is refused, in words for the tenant."""
    if reach is Reach.ALLOWED:
        return (
            "Without encryption only addresses in networks that the operator of this service"
            " allows can be reached: use an encrypted address."
        )
    return (
        "The address leads into a private network, which the operator of this service does not"
        " allow."
    )


def _behind(address: Address) -> Address:
    """The IPv4 address that an IPv6 address stands for, if it does: the packet ends up there."""
    if isinstance(address, IPv4Address):
        return address
    if address.ipv4_mapped is not None:
        return address.ipv4_mapped
    if address.sixtofour is not None:
        return address.sixtofour
    if IPv6Address(int(address)) in NAT64:  # without the zone, which would never be inside
        return IPv4Address(int(address) & 0xFFFFFFFF)
    return address


def _is_public(address: Address) -> bool:
    if not address.is_global or address.is_multicast or _is_in(address, RESERVED):
        return False
    return isinstance(address, IPv4Address) or address in UNICAST


def _is_in(address: Address, networks: Sequence[Network]) -> bool:
    return any(address.version == network.version and address in network for network in networks)


def _on_event(event: str, arguments: tuple[Any, ...]) -> None:
    if event not in LEAVING:
        return
    call = _current.get()
    # What is sent without an address goes over a connection that was judged when it was made.
    if call is not None and arguments[1] is not None:
        call.judge(arguments[0], arguments[1])


@cache
def _watch_connections() -> None:
    """Install the hook, once in a process that calls out; hooks cannot be taken out again."""
    sys.addaudithook(_on_event)
