"""Where a request comes from: the proxies that are trusted decide, never the client."""

from ipaddress import ip_network

import pytest

from tenants.client_address import believed_address

PROXIES = [ip_network("10.0.0.0/8"), ip_network("fd00::/8")]


@pytest.mark.parametrize(
    ("remote", "forwarded", "expected"),
    [
        ("192.0.2.7", "", "192.0.2.7"),
        ("192.0.2.7", "203.0.113.9", "192.0.2.7"),  # not a proxy of ours
        ("10.0.0.1", "203.0.113.9", "203.0.113.9"),
        ("10.0.0.1", "1.1.1.1, 203.0.113.9", "203.0.113.9"),  # the client wrote the first
        ("10.0.0.1", "203.0.113.9, 10.2.2.2,fd00::5", "203.0.113.9"),
        ("::ffff:10.0.0.1", "203.0.113.9", "203.0.113.9"),
        ("fd00::1", '"[2001:db8:1:2:3::4]:443"', "2001:db8:1:2::/64"),
        ("10.0.0.1", "203.0.113.9:8080", "203.0.113.9"),
        ("10.0.0.1", "::ffff:203.0.113.9", "203.0.113.9"),
        ("10.0.0.1", "203.0.113.9, nonsense", "10.0.0.1"),
        ("10.0.0.1", "unknown", "10.0.0.1"),
        ("10.0.0.1", " , ", "10.0.0.1"),
        ("10.0.0.1", "10.0.0.2", "10.0.0.2"),
        ("2001:db8:1:2:ffff::1%eth0", "", "2001:db8:1:2::/64"),
        ("2001:db8:1:2::1", "", "2001:db8:1:2::/64"),
        ("", "203.0.113.9", "unknown"),
        ("/run/socket", "203.0.113.9", "unknown"),
    ],
)
def test_the_rightmost_untrusted_address_is_believed(
    remote: str, forwarded: str, expected: str
) -> None:
    assert believed_address(remote, forwarded, trusted=PROXIES) == expected
