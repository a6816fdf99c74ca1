"""Partitions for the events that may arrive from today on. Locks: the table is new and empty."""

from django.conf import settings
from django.db import migrations
from django.utils import timezone

from metering.partitions import make_due_partitions


def make_first_partitions(apps: object, schema_editor: object) -> None:
    make_due_partitions(now=timezone.now(), max_age_days=settings.EVENT_MAX_AGE.days)


class Migration(migrations.Migration):
    dependencies = [("metering", "0002_facts")]

    operations = [migrations.RunPython(make_first_partitions, migrations.RunPython.noop)]
