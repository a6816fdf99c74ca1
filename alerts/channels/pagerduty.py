"""PagerDuty's Events API v2: one alert for one incident, from its trigger to its resolution."""

import re
from typing import Final

from alerts.channels.addresses import read_text, read_url, shown_url
from alerts.channels.http import post_json
from alerts.channels.kind import Field, Fields, Kind, Sent, Settings
from alerts.channels.wording import cut, mark, plain
from alerts.errors import WrongChannel
from alerts.messages import Message
from alerts.models import Severity
from alerts.outbound import CALL_SECONDS
from common.json_bodies import JsonObject

EVENTS_URL: Final = "https://events.pagerduty.com/v2/enqueue"
ROUTING_KEY: Final = re.compile(r"[A-Za-z0-9]{32}")
SUMMARY_MAX_CHARACTERS: Final = 1024
# Whatever else happens to an incident is a trigger of the alert that is there.
ACTION_BY_EVENT: Final = {"acknowledged": "acknowledge", "resolved": "resolve"}


def event_of(message: Message, reference: str, action: str) -> JsonObject:
    """Return the event, without its key. PagerDuty keeps one alert for a `message.cause`."""
    return {
        "event_action": action,
        "dedup_key": message.cause,
        "client": "Spendgate",
        "client_url": message.link,
        "links": [{"href": message.link, "text": "Incident"}] if message.link else [],
        "payload": {
            "summary": cut(plain(message.title), SUMMARY_MAX_CHARACTERS),
            "source": cut(plain(message.tenant), 255),
            "severity": message.severity,
            "timestamp": message.at,
            "class": message.kind,
            "custom_details": {
                "summary": message.summary,
                "match": message.match,
                "figures": message.data,
                "reference": mark(message, reference),
            },
        },
    }


def _send(config: Fields, secrets: Fields, message: Message, reference: str) -> Sent:
    # A test reaches the pager, and leaves nothing open there.
    is_test = message.event == "test"
    actions = ["trigger", "resolve"] if is_test else [ACTION_BY_EVENT.get(message.event, "trigger")]
    sent = Sent(None)
    for action in actions:
        event = event_of(message, reference, action)
        event["routing_key"] = secrets["routing_key"]
        # Both together may take no longer than one.
        seconds = CALL_SECONDS / len(actions)
        sent = post_json(secrets.get("url", EVENTS_URL), event, seconds=seconds)
    return sent


def _read(given: Fields) -> Settings:
    key = read_text(given, "routing_key")
    if not ROUTING_KEY.fullmatch(key):
        raise WrongChannel("routing_key", "must be the 32 letters and digits of an integration key")
    config, secrets = {"routing_key": "…"}, {"routing_key": key}
    if given.get("url"):
        url = read_url(given)
        config["url"], secrets["url"] = shown_url(url, with_path=True), url
    return Settings(config, secrets)


PAGERDUTY = Kind(
    label="PagerDuty",
    fields=(
        Field(
            "routing_key",
            "Integration key",
            "Of an Events API v2 integration of the service that is to be paged.",
            is_secret=True,
        ),
        Field(
            "url",
            "Address of the Events API",
            f"Empty: {EVENTS_URL}. Another one for PagerDuty's EU region, or for a gateway.",
            is_required=False,
        ),
    ),
    severities=(Severity.CRITICAL,),
    read=_read,
    send=_send,
    has_digests=False,  # an alert for a list would never be resolved
)
