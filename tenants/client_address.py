"""Where a request comes from, as far as it can be believed."""

from collections.abc import Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Final

from django.conf import settings
from django.http import HttpRequest

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

# One customer of a provider has at least this much of IPv6 to itself.
IPV6_PREFIX: Final = 64
UNKNOWN: Final = "unknown"


def client_address(request: HttpRequest) -> str:
    """The client's address, or its /64 network in IPv6: what limits per address count by."""
    return believed_address(
        request.META.get("REMOTE_ADDR", ""),
        request.META.get("HTTP_X_FORWARDED_FOR", ""),
        trusted=settings.TRUSTED_PROXIES,
    )


def believed_address(remote: str, forwarded: str, *, trusted: Sequence[Network]) -> str:
    """The rightmost address that no trusted proxy has: what stands left of it, anyone may write.

    A hop that cannot be read ends the search at the proxy that passed it on.
    """
    believed = _read(remote)
    hops = [part for part in forwarded.split(",") if part.strip()]
    while believed is not None and hops and any(believed in network for network in trusted):
        hop = _read(hops.pop())
        if hop is None:
            break
        believed = hop
    return UNKNOWN if believed is None else _group(believed)


def _read(text: str) -> Address | None:
    """An address as proxies write it: plain, in brackets, with a port or a zone."""
    text = text.strip().strip('"')
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        address = ip_address(text.partition("%")[0])
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return mapped or address


def _group(address: Address) -> str:
    if isinstance(address, IPv4Address):
        return str(address)
    return str(ip_network((address, IPV6_PREFIX), strict=False))
