"""Configure channels. Every change is in the audit log, and no secret is."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from django.db import IntegrityError, transaction
from django.utils import timezone

from alerts.channels import KINDS, Settings
from alerts.channels.kind import Fields
from alerts.channels.webhook import rotated
from alerts.errors import ChannelUnavailable, SecretsUnreadable, WrongChannel
from alerts.models import Channel, ChannelKind, Delivery, DeliveryState, Digest, Severity
from alerts.sealing import seal, unseal
from tenants.audit import facts_of, record_change
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
    _save(channel)
    _record(channel, actor, "create", {}, channel_facts(channel))
    return channel


@transaction.atomic
def update_channel(*, channel: Channel, actor: str, changes: Mapping[str, Any]) -> Channel:
    """Change what is named: name, contacts, severities, digest, is_paused, and `fields`, of which
    those that are not named stay.

    A secret that is given as it is shown, or not at all, stays too; it has to be given again if it
    can no longer be read, or would from now on be sent to another address. Raises WrongChannel.
    """
    stored = _lock(channel)
    before = channel_facts(stored)
    fields = changes.get("fields", {})
    _apply(stored, {name: value for name, value in changes.items() if name != "fields"})
    after: dict[str, Any] = {}
    if fields:
        known = _known_fields(stored)
        typed = _without_shown(stored, fields)
        _require_keys(stored.kind, typed, known)
        read = _read(stored.kind, typed, known=known)
        after["replaced_secrets"] = sorted(
            name for name, value in read.secrets.items() if value != known.get(name)
        )
        _keep(stored, Settings(read.config, {**_hidden(stored, known), **read.secrets}))
    _save(stored)
    if after:
        before["replaced_secrets"] = []
    _record(stored, actor, "update", before, {**channel_facts(stored), **after})
    return stored


@transaction.atomic
def remove_channel(*, channel: Channel, actor: str) -> None:
    """Remove a channel. Its deliveries stay readable; those that wait are not sent."""
    stored = _lock(channel)
    before = channel_facts(stored)
    stored.removed_at = timezone.now()
    stored.secrets = seal({})
    stored.save(update_fields=["removed_at", "secrets"])
    Delivery.objects.filter(channel=stored, state=DeliveryState.WAITING).update(
        state=DeliveryState.SUPERSEDED
    )
    _record(stored, actor, "delete", before, channel_facts(stored))


@transaction.atomic
def rotate_secret(*, channel: Channel, actor: str) -> str:
    """Give a webhook a new secret, and return it, to be shown once.

    The previous secret signs too for `alerts.channels.webhook.ROTATION`; the one before it no more.
    """
    stored = _lock(channel)
    if stored.kind != ChannelKind.WEBHOOK:
        raise WrongChannel("kind", "only webhooks have a signing secret")
    secrets = rotated(unseal(stored.secrets), timezone.now())
    stored.secrets = seal(secrets)
    stored.save(update_fields=["secrets"])
    after = {"old_secret_until": secrets["old_until"]}
    _record(stored, actor, "rotate_secret", {"old_secret_until": None}, after)
    return str(secrets["secret"])


def signing_secret(channel: Channel) -> str | None:
    """Return a webhook's secret, for the one answer that shows it; None for other kinds."""
    secret = unseal(channel.secrets).get("secret")
    return None if secret is None else str(secret)


def shown_fields(channel: Channel) -> dict[str, Any]:
    """Return the kind's fields, without secrets: of an address only what may be shown."""
    return {
        field.name: channel.config.get(field.name, [] if field.is_list else "")
        for field in KINDS[channel.kind].fields
    }


def channel_facts(channel: Channel) -> dict[str, Any]:
    """Return a channel as the audit log holds it, without what is encrypted."""
    unlogged = ("secrets", "digested_at", "delivered_at", "failed_at", "last_error")
    return {name: value for name, value in facts_of(channel).items() if name not in unlogged}


def _record(
    channel: Channel, actor: str, action: str, before: Mapping[str, Any], after: Mapping[str, Any]
) -> None:
    record_change(
        tenant_id=channel.tenant_id,
        actor=actor,
        action=action,
        subject=channel,
        before=before,
        after=after,
    )


def _lock(channel: Channel) -> Channel:
    # No stronger, since what refers to a channel is written with other rows locked.
    rows = Channel.objects.select_for_update(no_key=True)
    stored = rows.get(tenant_id=channel.tenant_id, id=channel.id)
    if stored.removed_at is not None:
        raise ChannelUnavailable("This channel was removed.")
    return stored


def _save(channel: Channel) -> None:
    try:
        with transaction.atomic():
            channel.save()
    except IntegrityError as error:
        # Everything else that the table demands was checked before.
        raise WrongChannel("name", f"another channel is named {channel.name!r}") from error


def _keep(channel: Channel, settings: Settings) -> None:
    channel.config = settings.config
    channel.secrets = seal(settings.secrets)


def _read(kind: str, fields: Fields, *, known: Fields) -> Settings:
    names = {field.name for field in KINDS[kind].fields}
    for name in fields:
        if name not in names:
            raise WrongChannel(name, f"is not a field of {KINDS[kind].label}")
    return KINDS[kind].read({**known, **fields})


def _known_fields(channel: Channel) -> dict[str, Any]:
    """Return what is set, secrets included; without what can no longer be read."""
    lists = {field.name for field in KINDS[channel.kind].fields if field.is_list}
    shown = {name: value for name, value in channel.config.items() if name in lists}
    try:
        return {**shown, **unseal(channel.secrets)}
    except SecretsUnreadable:
        return shown


def _hidden(channel: Channel, known: Fields) -> dict[str, Any]:
    """Return secrets that are no fields: a webhook's."""
    names = {field.name for field in KINDS[channel.kind].fields}
    return {name: value for name, value in known.items() if name not in names}


def _without_shown(channel: Channel, fields: Fields) -> dict[str, Any]:
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


def _apply(channel: Channel, settings: Mapping[str, Any]) -> None:
    for name, value in settings.items():
        if name not in READ_BY_SETTING:
            raise WrongChannel(name, "is not a setting of a channel")
        setattr(channel, name, READ_BY_SETTING[name](value))
    if channel.digest != Digest.NONE and not KINDS[channel.kind].has_digests:
        raise WrongChannel("digest", f"{KINDS[channel.kind].label} gets no digests")


def _name(value: Any) -> str:
    name = value.strip() if isinstance(value, str) else ""
    if not 1 <= len(name) <= NAME_MAX_CHARACTERS or not name.isprintable():
        raise WrongChannel("name", f"must be 1 to {NAME_MAX_CHARACTERS} printable characters")
    return name


def _contacts(value: Any) -> list[str]:
    given: Sequence[Any] = value if isinstance(value, list | tuple) else [None]
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


def _severities(value: Any) -> list[str]:
    given: Sequence[Any] = value if isinstance(value, list | tuple) else [None]
    if not all(severity in Severity.values for severity in given):
        raise WrongChannel("severities", f"must be some of {', '.join(Severity.values)}")
    return [severity for severity in Severity.values if severity in given]


def _digest(value: Any) -> str:
    if value not in Digest.values:
        raise WrongChannel("digest", f"must be one of {', '.join(Digest.values)}")
    return str(value)


def _flag(value: Any) -> bool:
    if not isinstance(value, bool):
        raise WrongChannel("is_paused", "must be true or false")
    return value


READ_BY_SETTING: Final[Mapping[str, Callable[[Any], Any]]] = {
    "name": _name,
    "contacts": _contacts,
    "severities": _severities,
    "digest": _digest,
    "is_paused": _flag,
}
