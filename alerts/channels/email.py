"""Email, through a channel's own server or the operator's."""

import smtplib
import ssl
from collections.abc import Sequence
from contextlib import suppress
from datetime import datetime
from email.message import EmailMessage
from email.policy import SMTP
from email.utils import format_datetime
from typing import Final

from django.conf import settings
from django.core.exceptions import ValidationError
from django.core.validators import validate_email
from django.template.loader import render_to_string
from django.utils import timezone

from alerts.channels.addresses import check_host, read_text
from alerts.channels.kind import Field, Fields, Kind, NotDelivered, Sent, Settings
from alerts.channels.replies import Conversation, EncryptedConversation
from alerts.channels.wording import body_lines, cut, headline, mark, plain
from alerts.errors import WrongChannel
from alerts.mail_server import MailServer, WrongMailServer, read_mail_server
from alerts.messages import Message
from alerts.models import Severity
from alerts.outbound import CALL_SECONDS, Call, Reach, calling_out
from common.json_bodies import JsonObject

RECIPIENTS_MAX: Final = 50
SUBJECT_MAX_CHARACTERS: Final = 150
# The library adds spaces when it folds a header that is not ASCII, so it folds none: a line may
# have 998 characters.
POLICY: Final = SMTP.clone(max_line_length=990)
ANSWER_MAX_CHARACTERS: Final = 200
NO_SERVER: Final = "This service has no mail server: its operator sets MAIL_URL."
# Instead of the server's own words, which may repeat the password.
LOGIN_REFUSED: Final = "it refuses the user or the password."


def can_mail_people() -> bool:
    """Whether mail can be sent without a channel that names a server."""
    return settings.MAIL_URL is not None


def mail_people(recipients: Sequence[str], message: Message, reference: str) -> Sent:
    """Send a message through the operator's server. Raises NotDelivered."""
    if settings.MAIL_URL is None:
        raise NotDelivered(NO_SERVER)
    server = read_mail_server(settings.MAIL_URL)
    return _hand_over(server, recipients, _mail(server, recipients, message, reference))


def mail_text(recipient: str, *, subject: str, text: str, reference: str) -> None:
    """Send a person a plain mail through the operator's server. Raises NotDelivered."""
    if settings.MAIL_URL is None:
        raise NotDelivered(NO_SERVER)
    server = read_mail_server(settings.MAIL_URL)
    mail = EmailMessage(policy=POLICY)
    mail["Subject"] = cut(plain(subject), SUBJECT_MAX_CHARACTERS)
    mail["From"] = server.sender
    mail["To"] = recipient
    mail["Date"] = format_datetime(timezone.now())
    mail["Message-ID"] = f"<{reference}@{server.domain}>"
    mail["Auto-Submitted"] = "auto-generated"
    mail.set_content(text)
    if _hand_over(server, [recipient], mail).remark:
        raise NotDelivered("The mail server refused the address.")


def _send(config: Fields, secrets: Fields, message: Message, reference: str) -> Sent:
    if "smtp_url" not in secrets:
        return mail_people(config["to"], message, reference)
    server = read_mail_server(secrets["smtp_url"])
    mail = _mail(server, config["to"], message, reference)
    return _hand_over(server, config["to"], mail, reach=Reach.PUBLIC)


def _mail(
    server: MailServer, recipients: Sequence[str], message: Message, reference: str
) -> EmailMessage:
    """Return the mail. Its id is the delivery's, so most readers show a repeat as one mail; all
    mails of an incident refer to the same id, so they are one thread.
    """
    mail = EmailMessage(policy=POLICY)
    shown = cut(headline(message), SUBJECT_MAX_CHARACTERS)
    mail["Subject"] = f"[Spendgate] {shown} ({mark(message, reference)})"
    mail["From"] = server.sender
    mail["To"] = ", ".join(recipients)
    mail["Date"] = format_datetime(datetime.fromisoformat(message.at))
    mail["Message-ID"] = f"<{reference}@{server.domain}>"
    mail["References"] = f"<{message.cause}@{server.domain}>"
    mail["In-Reply-To"] = f"<{message.cause}@{server.domain}>"
    # Keeps automatic replies away.
    mail["Auto-Submitted"] = "auto-generated"
    mail.set_content(_text(message, reference))
    mail.add_alternative(_html(message, reference), subtype="html")
    for attachment in message.attachments:
        mail.add_attachment(attachment.text, subtype="csv", filename=attachment.name)
    return mail


def _text(message: Message, reference: str) -> str:
    lines = [headline(message), "", *body_lines(message), ""]
    lines += [message.link, ""] if message.link else []
    return "\n".join([*lines, _footer(message, reference), ""])


def _html(message: Message, reference: str) -> str:
    return render_to_string(
        "alerts/mail.html",
        {
            "headline": headline(message),
            "summary": plain(message.summary),
            "facts": [(plain(label), plain(text)) for label, text in message.facts],
            "lines": [
                (plain(f"{line.severity.title()}, {line.status}: {line.title}"), line.link)
                for line in message.lines
            ],
            "link": message.link,
            "footer": _footer(message, reference),
        },
    )


def _footer(message: Message, reference: str) -> str:
    return f"Spendgate {mark(message, reference)}, {plain(message.tenant)}"


def _hand_over(
    server: MailServer,
    recipients: Sequence[str],
    mail: EmailMessage,
    *,
    reach: Reach = Reach.ANYWHERE,
) -> Sent:
    with calling_out(reach=reach) as call:
        try:
            refused = _talk(server, recipients, mail)
        except (smtplib.SMTPException, OSError, ValueError) as error:
            raise _failure(error, call) from None
    if not refused:
        return Sent(250)
    # Another attempt would reach the others twice.
    return Sent(250, f"Refused by the mail server: {', '.join(sorted(refused))}.")


def _talk(
    server: MailServer, recipients: Sequence[str], mail: EmailMessage
) -> dict[str, tuple[int, bytes]]:
    """Talk to the server; return the recipients that it refused, if not all."""
    client = _connect(server)
    try:
        if server.user:
            client.login(server.user, server.password)
        return client.send_message(mail, server.sender_address, list(recipients))
    finally:
        # Failing to say goodbye says nothing of the mail.
        with suppress(smtplib.SMTPException, OSError):
            client.quit()
        client.close()


def _connect(server: MailServer) -> smtplib.SMTP:
    """Connect, encrypted if the server can. It must be before a password is sent."""
    trust = ssl.create_default_context()
    limits: JsonObject = {"local_hostname": server.domain, "timeout": CALL_SECONDS}
    if server.is_encrypted_first:
        return EncryptedConversation(server.host, server.port, context=trust, **limits)
    client = Conversation(server.host, server.port, **limits)
    try:
        client.ehlo()
        if client.has_extn("starttls"):
            client.starttls(context=trust)
        elif server.user:
            raise NotDelivered(
                "The mail server offers no encryption, so the password was not sent."
            )
    except BaseException:
        client.close()
        raise
    return client


def _failure(error: Exception, call: Call) -> NotDelivered:
    if call.refusal:
        return NotDelivered(call.refusal)
    if call.is_late:
        return NotDelivered(f"The mail server took longer than {CALL_SECONDS:.0f} seconds.")
    if isinstance(error, smtplib.SMTPRecipientsRefused):
        code, answer = next(iter(error.recipients.values()))
        return _answered(code, answer)
    if isinstance(error, smtplib.SMTPResponseException):
        is_login = isinstance(error, smtplib.SMTPAuthenticationError)
        return _answered(error.smtp_code, LOGIN_REFUSED if is_login else error.smtp_error)
    if isinstance(error, ssl.SSLError):
        return NotDelivered("The mail server's certificate or encryption cannot be trusted.")
    return NotDelivered("The mail server cannot be reached, or closed the connection.")


def _answered(code: int, answer: bytes | str) -> NotDelivered:
    text = answer.decode(errors="replace") if isinstance(answer, bytes) else answer
    shown = cut(plain(text), ANSWER_MAX_CHARACTERS)
    return NotDelivered(
        f"The mail server answered {code}: {shown}",
        status=code,
        is_receiver_down=code < 500,  # 5xx is about this mail
    )


def _read(given: Fields) -> Settings:
    config: JsonObject = {"to": _recipients(given.get("to"))}
    if not given.get("smtp_url"):
        if not can_mail_people():
            raise WrongChannel(
                "smtp_url", "is required: the operator of this service has set no mail server"
            )
        return Settings(config, {})
    url = read_text(given, "smtp_url")
    try:
        server = read_mail_server(url)
    except WrongMailServer as error:
        raise WrongChannel("smtp_url", str(error)) from None
    check_host(server.host, "smtp_url", reach=Reach.PUBLIC)
    scheme = "smtps" if server.is_encrypted_first else "smtp"
    config["smtp_url"] = f"{scheme}://{server.host}:{server.port}?from={server.sender}"
    return Settings(config, {"smtp_url": url})


def _recipients(given: object) -> list[str]:
    recipients = list(given) if isinstance(given, list | tuple) else []
    if not 1 <= len(recipients) <= RECIPIENTS_MAX:
        raise WrongChannel("to", f"must be 1 to {RECIPIENTS_MAX} addresses")
    return list(dict.fromkeys(_address(recipient) for recipient in recipients))


def _address(given: object) -> str:
    address = str(given).strip()
    try:
        validate_email(address)
    except ValidationError:
        raise WrongChannel("to", f"'{plain(address)[:100]}' is not an email address") from None
    return address


EMAIL = Kind(
    label="Email",
    fields=(
        Field("to", "Recipients", f"1 to {RECIPIENTS_MAX} addresses.", is_list=True),
        Field(
            "smtp_url",
            "Mail server",
            "smtp://user:password@host:587?from=alerts@example.com; empty: the service's own.",
            is_secret=True,
            is_required=False,
        ),
    ),
    severities=(Severity.WARNING, Severity.CRITICAL),
    read=_read,
    send=_send,
)
