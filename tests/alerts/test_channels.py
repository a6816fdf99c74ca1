"""What each kind of channel really sends, as a receiver on loopback gets it."""

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import pytest
from pytest_django import Settings
from standardwebhooks import Webhook
from standardwebhooks.webhooks import WebhookVerificationError

from alerts.channels import KINDS, NotDelivered, Sent
from alerts.channels.webhook import headers_of, rotated
from alerts.channels.wording import headline
from alerts.errors import WrongChannel
from alerts.messages import Line, Message
from common.json_bodies import JsonObject
from tests.alerts.receivers import (
    LOOPBACK,
    Answer,
    MailReceiver,
    WebReceiver,
    mail_receiver,
    web_receiver,
    write_certificate,
)

REFERENCE = "3f9a2c00-0000-4000-8000-000000000001"
LINK = "https://spend.example/incidents/12"
HOSTILE = (
    "<!channel> @everyone [pay](http://evil.example) *now* `x` <b>&amp;\r\nBcc: x@evil.example"
)


def make_message(**fields: Any) -> Message:
    return Message(
        **{
            "event": "opened",
            "severity": "critical",
            "kind": "anomaly",
            "title": "researcher spends 5 times as much",
            "summary": "Expected 2.00 USD, saw 10.00 USD.",
            "tenant": "Acme",
            "incident": 12,
            "cause": "spendgate-incident-12",
            "link": LINK,
            "opened_at": "2026-11-22T08:00:00Z",
            "at": "2026-11-22T08:00:01Z",
            "facts": [("Agent", "researcher")],
            "match": {"agent": "researcher"},
            "data": {"excess_usd": "8.000000000"},
            **fields,
        }
    )


def send(kind: str, fields: JsonObject, message: Message) -> Sent:
    config, secrets = KINDS[kind].read(fields)
    return KINDS[kind].send(config, secrets, message, REFERENCE)


@pytest.fixture(autouse=True)
def _loopback_is_allowed(settings: Settings) -> None:
    settings.CHANNEL_NETWORKS = [ip_network(LOOPBACK)]


@pytest.fixture
def web() -> Iterator[WebReceiver]:
    with web_receiver() as receiver:
        yield receiver


@pytest.fixture
def mail() -> Iterator[MailReceiver]:
    with mail_receiver() as receiver:
        yield receiver


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"event": "opened"}, "Critical: B"),
        ({"event": "escalated"}, "Now critical: B"),
        ({"event": "updated"}, "Still open: B"),
        ({"event": "updated", "kind": "crossing"}, "Critical: B"),
        ({"event": "resolved"}, "Resolved: B"),
    ],
)
def test_a_headline_says_what_is_new(fields: dict[str, str], words: str) -> None:
    assert headline(make_message(title="B", **fields)) == words


def test_slack_gets_an_attachment_that_links_to_the_incident(web: WebReceiver) -> None:
    assert send("slack", {"url": f"{web.url}/hooks/1"}, make_message()).status == 200
    (received,) = web.received
    assert received.path == "/hooks/1"
    (attachment,) = received.json["attachments"]
    attachment.pop("ts")
    assert attachment == {
        "title": "Critical: researcher spends 5 times as much",
        "title_link": LINK,
        "fallback": "Critical: researcher spends 5 times as much",
        "text": "Expected 2.00 USD, saw 10.00 USD.\nAgent: researcher",
        "color": "#A32037",
        "footer": "Spendgate #12 · 3f9a2c",
        "mrkdwn_in": [],
    }


def test_slack_shows_ampersands_and_angle_brackets_as_they_were_written(web: WebReceiver) -> None:
    send("slack", {"url": web.url}, make_message(title="R&D > plan", summary="1 > 0 & more"))
    (attachment,) = web.received[0].json["attachments"]
    assert attachment["title"] == attachment["fallback"] == "Critical: R&amp;D &gt; plan"
    assert attachment["text"].splitlines()[0] == "1 &gt; 0 &amp; more"


@pytest.mark.parametrize(
    ("fields", "color"),
    [({"severity": "info"}, "#3AA3E3"), ({"event": "resolved"}, "#3AA337")],
)
def test_a_color_says_how_severe_it_is(
    web: WebReceiver, fields: dict[str, str], color: str
) -> None:
    send("slack", {"url": web.url}, make_message(**fields))
    assert web.received[0].json["attachments"][0]["color"] == color


def test_teams_gets_a_card_with_a_button(web: WebReceiver) -> None:
    send("teams", {"url": f"{web.url}/flow?sig=1"}, make_message(event="resolved"))
    (received,) = web.received
    assert received.path == "/flow?sig=1"
    (attachment,) = received.json["attachments"]
    assert attachment["contentType"] == "application/vnd.microsoft.card.adaptive"
    title, body = attachment["content"]["body"]
    assert title["text"] == "Resolved: researcher spends 5 times as much"
    assert body["text"] == (
        "Expected 2.00 USD, saw 10.00 USD.\n\nAgent: researcher\n\nSpendgate #12 · 3f9a2c"
    )
    assert attachment["content"]["actions"] == [
        {"type": "Action.OpenUrl", "title": "Open", "url": LINK}
    ]


def test_discord_gets_an_embed_that_mentions_nobody(web: WebReceiver) -> None:
    send("discord", {"url": web.url}, make_message(event="escalated"))
    (received,) = web.received
    assert received.json["allowed_mentions"] == {"parse": []}
    (embed,) = received.json["embeds"]
    assert embed == {
        "author": {"name": "Spendgate #12 · 3f9a2c"},
        "title": "Now critical: researcher spends 5 times as much",
        "description": "Expected 2.00 USD, saw 10.00 USD.\nAgent: researcher",
        "color": 0xA32037,
        "url": LINK,
    }


@pytest.mark.parametrize("kind", ["slack", "teams", "discord"])
def test_what_an_event_says_means_nothing_to_a_chat(web: WebReceiver, kind: str) -> None:
    hostile = make_message(title=HOSTILE, summary=f"# {HOSTILE}", facts=[("Agent", HOSTILE)])
    send(kind, {"url": web.url}, hostile)
    text = web.received[0].body.decode().encode().decode("unicode_escape")
    for markup in ("<!channel>", "@everyone", "](", "*now*", "`x`", "<b>", "\r\nBcc", '"# '):
        assert markup not in text
    payload = web.received[0].json
    assert "entities" not in str(payload)
    assert "content" not in payload


def test_a_message_is_cut_to_what_a_chat_takes(web: WebReceiver) -> None:
    send("discord", {"url": web.url}, make_message(title="t" * 5000, summary="s" * 50_000))
    (embed,) = web.received[0].json["embeds"]
    assert len(embed["title"]) == 240
    assert len(embed["description"]) == 3500
    assert embed["description"].endswith("s…")


def test_one_alert_of_pagerduty_is_triggered_acknowledged_and_resolved(web: WebReceiver) -> None:
    fields = {"routing_key": "R" * 32, "url": f"{web.url}/v2/enqueue"}
    for event in ("opened", "escalated", "acknowledged", "resolved"):
        send("pagerduty", fields, make_message(event=event))
    events = [each.json for each in web.received]
    assert [each["event_action"] for each in events] == [
        *("trigger", "trigger", "acknowledge", "resolve")
    ]
    assert {each["dedup_key"] for each in events} == {"spendgate-incident-12"}
    assert {each["routing_key"] for each in events} == {"R" * 32}
    assert events[0]["links"] == [{"href": LINK, "text": "Incident"}]
    assert events[0]["payload"] == {
        "summary": "researcher spends 5 times as much",
        "source": "Acme",
        "severity": "critical",
        "timestamp": "2026-11-22T08:00:01Z",
        "class": "anomaly",
        "custom_details": {
            "summary": "Expected 2.00 USD, saw 10.00 USD.",
            "match": {"agent": "researcher"},
            "figures": {"excess_usd": "8.000000000"},
            "reference": "#12 · 3f9a2c",
        },
    }


def test_a_test_of_pagerduty_leaves_nothing_open(web: WebReceiver) -> None:
    send("pagerduty", {"routing_key": "R" * 32, "url": web.url}, make_message(event="test"))
    assert [each.json["event_action"] for each in web.received] == ["trigger", "resolve"]


def test_a_webhook_is_signed_and_carries_its_reference(web: WebReceiver) -> None:
    config, secrets = KINDS["webhook"].read({"url": f"{web.url}/in?key=s3cret"})
    assert config == {"url": f"{web.url}/in?…"}
    KINDS["webhook"].send(config, secrets, make_message(), REFERENCE)
    (received,) = web.received
    assert received.headers["webhook-id"] == REFERENCE
    payload = Webhook(secrets["secret"]).verify(received.body, dict(received.headers))
    assert payload == {
        "type": "incident.opened",
        "timestamp": "2026-11-22T08:00:01Z",
        "data": {
            "incident": 12,
            "cause": "spendgate-incident-12",
            "kind": "anomaly",
            "severity": "critical",
            "title": "researcher spends 5 times as much",
            "summary": "Expected 2.00 USD, saw 10.00 USD.",
            "tenant": "Acme",
            "match": {"agent": "researcher"},
            "figures": {"excess_usd": "8.000000000"},
            "opened_at": "2026-11-22T08:00:00Z",
            "link": LINK,
        },
    }


def test_two_secrets_sign_while_one_takes_over_from_the_other(web: WebReceiver) -> None:
    config, old = KINDS["webhook"].read({"url": web.url})
    new = rotated(old, datetime.now(UTC))
    KINDS["webhook"].send(config, new, make_message(), REFERENCE)
    body, headers = web.received[0].body, dict(web.received[0].headers)
    Webhook(old["secret"]).verify(body, headers)
    Webhook(new["secret"]).verify(body, headers)
    with pytest.raises(WebhookVerificationError):
        Webhook(rotated(new, datetime.now(UTC))["secret"]).verify(body, headers)
    tomorrow = datetime.now(UTC) + timedelta(hours=25)
    assert len(headers_of(new, body, REFERENCE, tomorrow)["webhook-signature"].split(" ")) == 1


def test_a_mail_is_text_and_html_in_the_incident_s_thread(
    mail: MailReceiver, settings: Settings
) -> None:
    settings.MAIL_URL = mail.url
    send("email", {"to": ["a@x.example", "b@x.example"]}, make_message())
    (received,) = mail.received
    assert received.sender == "alerts@spendgate.example"
    assert received.recipients == ["a@x.example", "b@x.example"]
    message = received.message
    assert message["Subject"] == (
        "[Spendgate] Critical: researcher spends 5 times as much (#12 · 3f9a2c)"
    )
    assert message["Message-ID"] == f"<{REFERENCE}@spendgate.example>"
    assert message["References"] == "<spendgate-incident-12@spendgate.example>"
    text, html = (part.get_content() for part in message.iter_parts())
    assert text.splitlines() == [
        "Critical: researcher spends 5 times as much",
        "",
        "Expected 2.00 USD, saw 10.00 USD.",
        "Agent: researcher",
        "",
        LINK,
        "",
        "Spendgate #12 · 3f9a2c, Acme",
    ]
    assert f'<a href="{LINK}">Open in Spendgate</a>' in html


def test_what_an_event_says_adds_no_header_and_no_markup_to_a_mail(mail: MailReceiver) -> None:
    lines = [Line("info", HOSTILE, "open", LINK)]
    message = make_message(title=HOSTILE, summary=HOSTILE, facts=[("A", HOSTILE)], lines=lines)
    send("email", {"to": ["a@x.example"], "smtp_url": mail.url}, message)
    (received,) = mail.received
    assert received.recipients == ["a@x.example"]
    assert "Bcc" not in received.message
    assert "Bcc: x@evil.example" in received.message["Subject"]
    html = list(received.message.iter_parts())[1].get_content()
    assert "<b>" not in html
    assert "&lt;b&gt;&amp;amp; Bcc" in html


def test_a_recipient_that_does_not_exist_keeps_no_mail_from_the_others(mail: MailReceiver) -> None:
    mail.refused = {"gone@x.example"}
    fields = {"to": ["gone@x.example", "a@x.example"], "smtp_url": mail.url}
    sent = send("email", fields, make_message())
    assert sent == Sent(250, "Refused by the mail server: gone@x.example.")
    with pytest.raises(NotDelivered) as failure:
        send("email", {**fields, "to": ["gone@x.example"]}, make_message())
    assert failure.value.detail == "The mail server answered 550: 5.1.1 no such mailbox"
    assert (failure.value.status, failure.value.is_receiver_down) == (550, False)


def test_a_password_is_not_sent_to_a_mail_server_without_encryption(mail: MailReceiver) -> None:
    url = mail.url.replace("smtp://", "smtp://user:s3cret@")
    with pytest.raises(NotDelivered, match="so the password was not sent"):
        send("email", {"to": ["a@x.example"], "smtp_url": url}, make_message())
    assert mail.received == []


def test_a_password_is_sent_after_the_mail_server_has_proved_who_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    certificate = write_certificate(tmp_path / "server.pem")
    with mail_receiver(certificate) as mail:
        url = mail.url.replace("smtp://", "smtp://user:s3cret@")
        fields = {"to": ["a@x.example"], "smtp_url": url}
        with pytest.raises(NotDelivered, match="certificate or encryption cannot be trusted"):
            send("email", fields, make_message())
        assert mail.logins == []
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
        assert send("email", fields, make_message()) == Sent(250)
        assert mail.logins == [("user", "s3cret")]
        assert len(mail.received) == 1


def test_a_mail_server_that_repeats_the_password_does_not_reach_the_message(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    certificate = write_certificate(tmp_path / "server.pem")
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    with mail_receiver(certificate) as mail:
        mail.login_answer = "535 no such user: user with s3cret"
        fields = {"to": ["a@x.example"], "smtp_url": mail.url.replace("//", "//user:s3cret@")}
        with pytest.raises(NotDelivered) as failure:
            send("email", fields, make_message())
    assert failure.value.detail == (
        "The mail server answered 535: it refuses the user or the password."
    )


def test_a_mail_server_that_talks_without_end_is_left() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        endless = threading.Thread(target=_talk_without_end, args=(server,), daemon=True)
        endless.start()
        url = f"smtp://127.0.0.1:{server.getsockname()[1]}?from=a@x.example"
        began = time.monotonic()
        with pytest.raises(NotDelivered, match="cannot be reached, or closed the connection"):
            send("email", {"to": ["a@x.example"], "smtp_url": url}, make_message())
        assert time.monotonic() - began < 2
        endless.join(timeout=2)
        assert not endless.is_alive()


def _talk_without_end(server: socket.socket) -> None:
    connection, _ = server.accept()
    with connection, suppress(OSError):
        while True:
            connection.sendall(b"220-and more\r\n" * 1000)


@pytest.mark.parametrize(
    ("answer", "detail", "fault"),
    [
        (Answer(500), "The receiver answered 500 Internal Server Error.", (True, False, None)),
        (Answer(404), "The receiver answered 404 Not Found.", (False, False, None)),
        (Answer(410), "The receiver answered 410 Gone.", (False, True, None)),
        (
            Answer(429, {"Retry-After": "77"}),
            "The receiver answered 429 Too Many Requests.",
            (True, False, 77.0),
        ),
        (
            Answer(503, {"Retry-After": "999999"}),
            "The receiver answered 503 Service Unavailable.",
            (True, False, 3600.0),
        ),
        (
            Answer(307, {"Location": "http://127.0.0.1:1/s3cret"}),
            "The receiver answered 307 Temporary Redirect: redirects are not followed,"
            " enter the new address.",
            (False, False, None),
        ),
    ],
)
def test_what_is_not_a_success_says_why(
    web: WebReceiver, answer: Answer, detail: str, fault: tuple[bool, bool, float | None]
) -> None:
    web.answers.append(answer)
    with pytest.raises(NotDelivered) as failure:
        send("webhook", {"url": web.url}, make_message())
    error = failure.value
    assert (error.detail, error.status) == (detail, answer.status)
    assert (error.is_receiver_down, error.is_final, error.retry_after_seconds) == fault
    assert len(web.received) == 1


@pytest.mark.parametrize(
    ("kind", "fields", "field", "reason"),
    [
        ("slack", {}, "url", "is required"),
        (
            "slack",
            {"url": "ftp://x.example/"},
            "url",
            "must be an address such as https://host/path",
        ),
        ("slack", {"url": "https://x.example:99999/"}, "url", "must be an address such as"),
        ("webhook", {"url": "https://x.example/\nHost: y"}, "url", "must be printable"),
        ("pagerduty", {"routing_key": "short"}, "routing_key", "must be the 32 letters and digits"),
        ("email", {"to": []}, "to", "must be 1 to 50 addresses"),
        ("email", {"to": ["a@x.example\nBcc: b@y"]}, "to", "is not an email address"),
        ("email", {"to": ["a@x.example"]}, "smtp_url", "has set no mail server"),
        (
            "email",
            {"to": ["a@x.example"], "smtp_url": "smtp://u:s3cret@h"},
            "smtp_url",
            "does not say who the mail is from",
        ),
    ],
)
def test_wrong_fields_are_refused_by_name(
    kind: str, fields: JsonObject, field: str, reason: str
) -> None:
    with pytest.raises(WrongChannel) as refusal:
        KINDS[kind].read(fields)
    assert refusal.value.field == field
    assert reason in refusal.value.reason
    assert "s3cret" not in refusal.value.detail
