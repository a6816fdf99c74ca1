"""Where calls to tenants' addresses may go: judged on real sockets, at the moment of connecting."""

import smtplib
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from ipaddress import ip_address, ip_network
from typing import Any

import pytest
import requests
from pytest_django import Settings

from alerts.channels.addresses import read_url
from alerts.channels.http import post
from alerts.channels.kind import NotDelivered
from alerts.errors import WrongChannel
from alerts.outbound import AddressRefused, Reach, calling_out, literal_address, may_reach
from tests.alerts.receivers import Answer, WebReceiver, web_receiver

PRIVATE_WORDS = "The address leads into a private network"


@pytest.fixture
def web() -> Iterator[WebReceiver]:
    with web_receiver() as receiver:
        yield receiver


@pytest.mark.parametrize(
    "address",
    [
        *("127.0.0.1", "127.255.255.254", "0.0.0.1", "10.1.2.3", "172.31.0.1", "192.168.0.1"),
        *("169.254.169.254", "100.64.0.1", "100.127.255.255", "192.0.0.8", "192.88.99.1"),
        *(
            "168.63.129.16",
            "198.18.0.1",
            "203.0.113.1",
            "224.0.0.1",
            "239.1.2.3",
            "240.0.0.1",
            "255.255.255.255",
        ),
        *("::", "::1", "::127.0.0.1", "fd00::1", "fc00::1", "fe80::1", "fe80::1%lo", "fec0::1"),
        *("ff02::1", "2001::1", "2001:db8::1", "3fff::1", "100::1", "5f00::1"),
        # IPv4 addresses in the clothes of IPv6: mapped, of NAT64, of 6to4.
        *("::ffff:127.0.0.1", "::ffff:169.254.169.254", "64:ff9b::7f00:1", "64:ff9b::a9fe:a9fe"),
        *("64:ff9b:1::1", "2002:7f00:1::", "2002:a01:203::1"),
    ],
)
def test_an_address_that_is_not_public_is_out_of_reach(address: str) -> None:
    assert not may_reach(ip_address(address))


@pytest.mark.parametrize(
    "address",
    [
        "1.1.1.1",
        "172.32.0.1",
        "100.128.0.1",
        "2606:4700::1111",
        "::ffff:1.1.1.1",
        "64:ff9b::101:101",
    ],
)
def test_a_public_address_is_within_reach_and_not_without_encryption(address: str) -> None:
    assert may_reach(ip_address(address))
    assert not may_reach(ip_address(address), reach=Reach.ALLOWED)


def test_an_operator_s_network_is_within_reach_in_every_form(settings: Settings) -> None:
    settings.CHANNEL_NETWORKS = [ip_network("10.0.0.0/8"), ip_network("fd00::/8")]
    for address in ("10.1.2.3", "::ffff:10.1.2.3", "64:ff9b::a01:203", "fd00::1"):
        assert may_reach(ip_address(address), reach=Reach.ALLOWED)
    assert not may_reach(ip_address("127.0.0.1"))


@pytest.mark.parametrize(
    "host",
    ["127.0.0.1", "127.1", "2130706433", "0x7f.1", "0177.0.0.1", "0x7f000001", "127.0.0.1."],
)
def test_every_spelling_of_an_address_is_recognised(host: str) -> None:
    assert literal_address(host) == ip_address("127.0.0.1")


@pytest.mark.parametrize(
    "url",
    [
        *("https://127.0.0.1/", "https://2130706433/", "https://0x7f.1/", "https://0177.0.0.1/"),
        *("https://localhost/", "https://LOCALHOST./", "https://db.localhost:5432/"),
        *("https://[::1]/", "https://[::ffff:127.0.0.1]/", "https://[64:ff9b::7f00:1]/"),
        *("https://example.com@127.0.0.1/", "https://example.com:443@169.254.169.254/latest"),
    ],
)
def test_an_address_that_spells_a_private_network_is_not_taken(url: str) -> None:
    with pytest.raises(WrongChannel, match=PRIVATE_WORDS):
        read_url({"url": url})


def test_an_address_without_encryption_is_taken_for_the_operator_s_networks_alone(
    settings: Settings,
) -> None:
    with pytest.raises(WrongChannel, match="use an encrypted address"):
        read_url({"url": "http://gateway.example/"})
    settings.CHANNEL_NETWORKS = [ip_network("10.0.0.0/8")]
    assert read_url({"url": "http://gateway.example/"}) == "http://gateway.example/"
    with pytest.raises(WrongChannel, match="use an encrypted address"):
        read_url({"url": "http://1.1.1.1/"})


def test_nothing_connects_to_loopback_unless_the_operator_allows_it(
    web: WebReceiver, settings: Settings
) -> None:
    for url in (web.url, web.url.replace("http", "https"), web.url.replace("127.0.0.1", "127.1")):
        with pytest.raises(NotDelivered):
            post(url, b"{}")
    assert web.received == []
    settings.CHANNEL_NETWORKS = [ip_network("127.0.0.0/8")]
    assert post(web.url, b"{}").status == 200


def test_a_name_that_resolves_to_something_else_the_second_time_gains_nothing(
    web: WebReceiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = iter(["1.1.1.1", "127.0.0.1", "::ffff:127.0.0.1"])
    port = int(web.url.rpartition(":")[2])

    def resolve(host: str, *_: object, **__: object) -> list[Any]:
        address = next(answers)
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        return [(family, socket.SOCK_STREAM, 6, "", (address, port))]

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    assert may_reach(ip_address(resolve("hook.example")[0][4][0]))
    for _ in range(2):
        with pytest.raises(NotDelivered, match=PRIVATE_WORDS) as failure:
            post("https://hook.example/s3cret", b"{}")
        assert "127.0.0.1" not in failure.value.detail
        assert "s3cret" not in failure.value.detail
    assert web.received == []


def test_a_redirect_is_not_followed(web: WebReceiver, settings: Settings) -> None:
    settings.CHANNEL_NETWORKS = [ip_network("127.0.0.0/8")]
    web.answers.append(Answer(302, {"Location": f"{web.url}/elsewhere"}))
    with pytest.raises(NotDelivered, match="redirects are not followed"):
        post(web.url, b"{}")
    assert [each.path for each in web.received] == ["/"]


def test_a_library_that_follows_redirects_is_stopped_at_the_connection(
    web: WebReceiver, settings: Settings
) -> None:
    settings.CHANNEL_NETWORKS = [ip_network("127.0.0.2/32")]
    web.answers.append(Answer(302, {"Location": web.url.replace("127.0.0.1", "127.0.0.3")}))
    with calling_out(reach=Reach.PUBLIC) as call:
        with pytest.raises(requests.ConnectionError):
            requests.get(web.url, timeout=1)
        with pytest.raises(AddressRefused):
            smtplib.SMTP("localhost", 25, timeout=1)
        with socket.socket(socket.AF_UNIX) as local, pytest.raises(AddressRefused):
            local.connect("/run/postgresql/.s.PGSQL.5432")
        # A name that the interpreter would resolve on its own, out of sight.
        with socket.socket() as named, pytest.raises(AddressRefused):
            named.connect(("localhost", 80))
        with socket.socket(type=socket.SOCK_DGRAM) as packet, pytest.raises(AddressRefused):
            packet.sendto(b"x", ("127.0.0.1", 53))
    assert call.refusal.startswith(PRIVATE_WORDS)
    assert web.received == []


def test_a_proxy_of_the_environment_is_not_used(
    web: WebReceiver, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.CHANNEL_NETWORKS = [ip_network("127.0.0.0/8")]
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:1")
    assert post(f"{web.url}/direct", b"{}").status == 200


def test_other_threads_are_not_restrained_meanwhile(web: WebReceiver) -> None:
    statuses: list[int] = []
    with calling_out(reach=Reach.PUBLIC):
        free = threading.Thread(
            target=lambda: statuses.append(requests.post(web.url, timeout=2).status_code)
        )
        free.start()
        free.join()
    assert statuses == [200]


def test_an_answer_that_drips_is_cut_off_in_time(settings: Settings) -> None:
    settings.CHANNEL_NETWORKS = [ip_network("127.0.0.0/8")]
    with socket.create_server(("127.0.0.1", 0)) as server:
        threading.Thread(target=_drip, args=(server,), daemon=True).start()
        address = server.getsockname()
        began = time.monotonic()
        with (
            calling_out(reach=Reach.PUBLIC, seconds=0.3) as call,
            pytest.raises(requests.RequestException),
        ):
            requests.get(f"http://127.0.0.1:{address[1]}/", timeout=5)
        assert 0.25 < time.monotonic() - began < 2
        assert call.is_late


def test_the_endless_body_of_a_redirect_is_not_read(settings: Settings) -> None:
    settings.CHANNEL_NETWORKS = [ip_network("127.0.0.0/8")]
    with socket.create_server(("127.0.0.1", 0)) as server:
        flood = threading.Thread(target=_flood, args=(server,), daemon=True)
        flood.start()
        began = time.monotonic()
        with pytest.raises(NotDelivered, match="redirects are not followed"):
            post(f"http://127.0.0.1:{server.getsockname()[1]}/", b"{}")
        assert time.monotonic() - began < 2
        # The connection is closed, so the flood ends too.
        flood.join(timeout=2)
        assert not flood.is_alive()


def _flood(server: socket.socket) -> None:
    connection, _ = server.accept()
    with connection, suppress(OSError):
        connection.sendall(b"HTTP/1.1 302 Found\r\nLocation: /elsewhere\r\n\r\n")
        while True:
            connection.sendall(bytes(65536))


def _drip(server: socket.socket) -> None:
    connection, _ = server.accept()
    with connection, suppress(OSError):
        connection.sendall(b"HTTP/1.1 ")
        while True:
            connection.sendall(b"x")
            time.sleep(0.02)
