"""The demo's tenant: made once in an empty database, loaded over HTTP, and where to look at it."""

import contextlib
import io
import json
import secrets
import shlex
import subprocess
import sys
from dataclasses import asdict, dataclass
from datetime import timedelta
from pathlib import Path

import requests
from django.conf import settings
from django.core.management import call_command
from django.utils import timezone
from rich.console import Console
from rich.text import Text

from billing.collection.credentials import configure_collection, set_credentials
from billing.models import StripeSettings
from billing.stripe_gateway import API_VERSION, FAKE_KEYS
from config.data_folder import write_private
from tenants.models import Tenant
from tenants.scope import platform_scope, tenant_scope

TENANT = "demo"
OWNER = "demo@example.com"
ACTOR = "the demo"
ACCESS_FILE = "demo.json"
# Beside it while the load is not complete; a start that finds it continues loading.
UNFINISHED_FILE = "demo.unfinished"
FAKE_ANSWER_SECONDS = 10
# A client like any other: it knows the service by its address and a key alone.
REPLAY = ["-m", "demo.replay"]


@dataclass(frozen=True)
class Access:
    """What DATA_DIR/demo.json holds: how people and programs enter the demo's tenant."""

    url: str
    api_key: str
    email: str
    password: str
    tenant: str


def open_demo(*, data_dir: Path, url: str) -> Access | None:
    """Make the tenant if the database has none; return None if it holds other people's."""
    stored = _stored(data_dir)
    if not _has_tenant():
        stored = _create(data_dir, url)
    elif stored is None or not _has_tenant(stored.tenant):
        return None
    access = Access(**{**asdict(stored), "url": url})
    _write(data_dir, access)
    return access


def is_loaded(data_dir: Path) -> bool:
    return not (data_dir / UNFINISHED_FILE).exists()


def load(access: Access, *, data_dir: Path) -> bool:
    """Send the demo's events as a client would. Events that arrived before are duplicates."""
    done = subprocess.run(
        [sys.executable, *REPLAY, "--url", access.url, "--api-key", access.api_key],
        check=False,
    )
    if done.returncode == 0:
        collect(access)
        (data_dir / UNFINISHED_FILE).unlink(missing_ok=True)
    return done.returncode == 0


def collect(access: Access) -> None:
    """Have the fake Stripe collect the demo's final statements, unless the tenant has a key."""
    if settings.STRIPE_FAKE_BASE is None:
        return
    with platform_scope("find the demo's tenant"):
        tenant = Tenant.objects.get(name=access.tenant)
    with tenant_scope(tenant.id):
        stored = StripeSettings.objects.filter(tenant=tenant).first()
        if stored is not None and stored.secrets is not None:
            return
        api_key = f"{FAKE_KEYS}{secrets.token_hex(12)}"
        url = f"{access.url}/webhooks/stripe/{tenant.id}"
        secret = add_webhook_endpoint(url, api_key=api_key)
        set_credentials(tenant=tenant, actor=ACTOR, api_key=api_key, webhook_secret=secret)
        # They became final while the demo was loaded.
        since = timezone.now() - timedelta(days=1)
        configure_collection(tenant=tenant, actor=ACTOR, collects=True, collects_from=since)


def add_webhook_endpoint(url: str, *, api_key: str) -> str:
    """Have the fake Stripe send webhooks to an address; return the secret that it signs them with.
    It sends none to other machines. Without webhooks the sweep finds what happens.
    """
    made = {}
    with contextlib.suppress(requests.RequestException):
        made = requests.post(
            f"{settings.STRIPE_FAKE_BASE}/v1/webhook_endpoints",
            data={"url": url, "enabled_events[0]": "*"},
            headers={"Authorization": f"Bearer {api_key}", "Stripe-Version": API_VERSION},
            timeout=FAKE_ANSWER_SECONDS,
        ).json()
    return str(made.get("secret") or f"whsec_{secrets.token_hex(12)}")


def show(access: Access, console: Console) -> None:
    """Show where to look, with lines that can be copied: they are never wrapped."""
    event = {
        "id": "my-first-call",
        "provider": "anthropic",
        "model": "claude-sonnet-4-5",
        "input_tokens": 1200,
        "output_tokens": 300,
        "agent": "my-agent",
    }
    authorization = f"Authorization: Bearer {access.api_key}"
    post = ["curl", "-s", f"{access.url}/v1/events", "-H", authorization]
    post += ["-H", "Content-Type: application/json", "-d", json.dumps(event)]
    totals = f"{access.url}/v1/usage?interval=none&filter[agent]=my-agent"
    read = ["curl", "-s", "-g", totals, "-H", authorization]
    lines = [
        ("Look at it", access.url),
        ("Sign in as", f"{access.email}   password  {access.password}"),
        ("Send an event", shlex.join(post)),
        ("See its total", shlex.join(read)),
    ]
    console.print()
    for label, value in lines:
        console.print(
            Text(f"{label:<15}", style="bold").append(value, style="not bold cyan"), soft_wrap=True
        )
    console.print()


def _create(data_dir: Path, url: str) -> Access:
    output = io.StringIO()
    call_command("create_tenant", TENANT, owner=OWNER, json=True, stdout=output)
    created = json.loads(output.getvalue().splitlines()[-1])
    (data_dir / UNFINISHED_FILE).touch()
    access = Access(url=url, **created)
    _write(data_dir, access)
    return access


def _has_tenant(name: str | None = None) -> bool:
    with platform_scope("look for the demo's tenant"):
        tenants = Tenant.objects.all() if name is None else Tenant.objects.filter(name=name)
        return tenants.exists()


def _stored(data_dir: Path) -> Access | None:
    try:
        return Access(**json.loads((data_dir / ACCESS_FILE).read_text()))
    except (FileNotFoundError, ValueError, TypeError):
        return None


def _write(data_dir: Path, access: Access) -> None:
    write_private(data_dir / ACCESS_FILE, json.dumps(asdict(access), indent=2) + "\n")
