"""Configure channels. Every change is in the audit log, and no secret is."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from django.db import transaction
from django.utils import timezone

from alerts.channels import KINDS, Settings
from alerts.channels.kind import Fields
from alerts.channels.webhook import rotated
from alerts.errors import ChannelUnavailable, SecretsUnreadable, WrongChannel
from alerts.models import Channel, ChannelKind, Delivery, DeliveryState, Digest, Severity
from alerts.sealing import seal, unseal
from common.database_errors import name_once
from common.json_bodies import JsonObject
from tenants.audit import audited_change, create_audited, facts_of
from tenants.limits import require_room
from tenants.models import Tenant

NAME_MAX_CHARACTERS: Final = 200
CONTACTS_MAX: Final = 50
CONTACT_MAX_CHARACTERS: Final = 100


@transaction.atomic
def create_channel(
    *, tenant: Tenant, actor: str, name: str, kind: str, fields: Fields, **settings: Any
) -> Channel:
    """Add a channel. `settings`: contacts, severities (the kind's own unless given), digest,
    is_paused.

    Raises WrongChannel, which names the field. A webhook's secret is made here; `signing_secret`
    returns it, to be shown once.
    """
    if kind not in KINDS:
        raise WrongChannel("kind", f"must be one of {', '.join(ChannelKind.values)}")
    require_room(
        tenant.id, "channels", Channel.objects.filter(tenant_id=tenant.id, removed_at=None)
    )
    channel = Channel(tenant=tenant, kind=kind, severities=list(KINDS[kind].severities))
    _apply(channel, {"name": name, **settings})
    _keep(channel, _read(kind, fields, known={}))
    with name_once("channel", channel.name):
        return create_audited(channel, actor=actor)


@transaction.atomic
def update_channel(*, channel: Channel, actor: str, changes: Fields) -> Channel:
    """Change what is named: name, contacts, severities, digest, is_paused, and `fields`, of which
    those that are not named stay.

    A secret that is given as it is shown, or not at all, stays too; it has to be given again if it
    can no longer be read, or would from now on be sent to another address. Raises WrongChannel.
    """
    replaced: set[str] = set()
    with (
        name_once("channel", str(changes.get("name", channel.name))),
        audited_change(
            channel,
            actor=actor,
            details=lambda row: {**facts_of(row), "replaced_secrets": sorted(replaced)},
        ) as change,
    ):
        stored = _present(change.row)
        fields: Fields = changes.get("fields", {})
        _apply(stored, {name: value for name, value in changes.items() if name != "fields"})
        if fields:
            known = _known_fields(stored)
            typed = _without_shown(stored, fields)
            _require_keys(stored.kind, typed, known)
            read = _read(stored.kind, typed, known=known)
            replaced |= {name for name, value in read.secrets.items() if value != known.get(name)}
            _keep(stored, Settings(read.config, {**_hidden(stored, known), **read.secrets}))
    return stored


@transaction.atomic
def remove_channel(*, channel: Channel, actor: str) -> None:
    """Remove a channel. Its deliveries stay readable; those that wait are not sent."""
    with audited_change(channel, actor=actor, action="delete") as change:
        _present(change.row).removed_at = timezone.now()
        change.row.secrets = seal({})
    Delivery.objects.filter(channel=change.row, state=DeliveryState.WAITING).update(
        state=DeliveryState.SUPERSEDED
    )


@transaction.atomic
def rotate_secret(*, channel: Channel, actor: str) -> str:
    """Give a webhook a new secret, and return it, to be shown once.

    The previous secret signs too for `alerts.channels.webhook.ROTATION`; the one before it no more.
    """
    if channel.kind != ChannelKind.WEBHOOK:
        raise WrongChannel("kind", "only webhooks have a signing secret")
    with audited_change(
        channel,
        actor=actor,
        action="rotate_secret",
        details=lambda row: {"old_secret_until": unseal(row.secrets).get("old_until")},
    ) as change:
        secrets = rotated(unseal(_present(change.row).secrets), timezone.now())
        change.row.secrets = seal(secrets)
    return str(secrets["secret"])


def signing_secret(channel: Channel) -> str | None:
    """Return a webhook's secret, for the one answer that shows it; None for other kinds."""
    secret = unseal(channel.secrets).get("secret")
    return None if secret is None else str(secret)


def shown_fields(channel: Channel) -> JsonObject:
    """Return the kind's fields, without secrets: of an address only what may be shown."""
    return {
        field.name: channel.config.get(field.name, [] if field.is_list else "")
        for field in KINDS[channel.kind].fields
    }


def _present(channel: Channel) -> Channel:
    if channel.removed_at is not None:
        raise ChannelUnavailable("This channel was removed.")
    return channel


def _keep(channel: Channel, settings: Settings) -> None:
    channel.config = settings.config
    channel.secrets = seal(settings.secrets)


def _read(kind: str, fields: Fields, *, known: Fields) -> Settings:
    names = {field.name for field in KINDS[kind].fields}
    for name in fields:
        if name not in names:
            raise WrongChannel(name, f"is not a field of {KINDS[kind].label}")
    return KINDS[kind].read({**known, **fields})


def _known_fields(channel: Channel) -> JsonObject:
    """Return what is set, secrets included; without what can no longer be read."""
    lists = {field.name for field in KINDS[channel.kind].fields if field.is_list}
    shown = {name: value for name, value in channel.config.items() if name in lists}
    try:
        return {**shown, **unseal(channel.secrets)}
    except SecretsUnreadable:
        return shown


def _hidden(channel: Channel, known: Fields) -> JsonObject:
    """Return secrets that are no fields: a webhook's."""
    names = {field.name for field in KINDS[channel.kind].fields}
    return {name: value for name, value in known.items() if name not in names}


def _without_shown(channel: Channel, fields: Fields) -> JsonObject:
    """Return the fields that were typed, and not sent back as a form or an answer showed them."""
    return {
        name: value
        for name, value in fields.items()
        if value == "" or value != channel.config.get(name)
    }


def _require_keys(kind: str, typed: Fields, known: Fields) -> None:
    """Keep those who may change an address from learning the key by that."""
    fields = KINDS[kind].fields
    addresses = [field.name for field in fields if not (field.is_secret or field.is_list)]
    if all(typed.get(name, "") == known.get(name, "") for name in addresses if name in typed):
        return
    for field in fields:
        if field.is_secret and field.name in known and field.name not in typed:
            raise WrongChannel(field.name, "enter it again: it would be sent to another address")


def _apply(channel: Channel, settings: Mapping[str, object]) -> None:
    for name, value in settings.items():
        if name not in READ_BY_SETTING:
            raise WrongChannel(name, "is not a setting of a channel")
        setattr(channel, name, READ_BY_SETTING[name](value))
    if channel.digest != Digest.NONE and not KINDS[channel.kind].has_digests:
        raise WrongChannel("digest", f"{KINDS[channel.kind].label} gets no digests")


def _name(value: object) -> str:
    name = value.strip() if isinstance(value, str) else ""
    if not 1 <= len(name) <= NAME_MAX_CHARACTERS or not name.isprintable():
        raise WrongChannel("name", f"must be 1 to {NAME_MAX_CHARACTERS} printable characters")
    return name


def _contacts(value: object) -> list[str]:
    given: Sequence[object] = value if isinstance(value, list | tuple) else [None]
    contacts = [contact.strip() if isinstance(contact, str) else "" for contact in given]
    if len(contacts) > CONTACTS_MAX or not all(
        1 <= len(contact) <= CONTACT_MAX_CHARACTERS and contact.isprintable()
        for contact in contacts
    ):
        raise WrongChannel(
            "contacts",
            f"must be at most {CONTACTS_MAX} names of 1 to {CONTACT_MAX_CHARACTERS} printable"
            " characters",
        )
    return list(dict.fromkeys(contacts))


def _severities(value: object) -> list[str]:
    given: Sequence[object] = value if isinstance(value, list | tuple) else [None]
    if not all(severity in Severity.values for severity in given):
        raise WrongChannel("severities", f"must be some of {', '.join(Severity.values)}")
    return [severity for severity in Severity.values if severity in given]


def _digest(value: object) -> str:
    if value not in Digest.values:
        raise WrongChannel("digest", f"must be one of {', '.join(Digest.values)}")
    return str(value)


def _flag(value: object) -> bool:
    if not isinstance(value, bool):
        raise WrongChannel("is_paused", "must be true or false")
    return value


READ_BY_SETTING: Final[Mapping[str, Callable[[object], object]]] = {
    "name": _name,
    "contacts": _contacts,
    "severities": _severities,
    "digest": _digest,
    "is_paused": _flag,
}
