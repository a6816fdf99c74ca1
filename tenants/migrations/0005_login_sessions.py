from django.db import migrations, models


class Migration(migrations.Migration):
    """Sessions that name their person. Everyone has to log in again."""

    dependencies = [("tenants", "0004_former_names")]

    operations = [
        migrations.CreateModel(
            name="LoginSession",
            fields=[
                (
                    "session_key",
                    models.CharField(
                        max_length=40,
                        primary_key=True,
                        serialize=False,
                        verbose_name="session key",
                    ),
                ),
                ("session_data", models.TextField(verbose_name="session data")),
                (
                    "expire_date",
                    models.DateTimeField(db_index=True, verbose_name="expire date"),
                ),
                ("user_id", models.BigIntegerField(db_index=True, null=True)),
            ],
            options={"db_table": "login_session"},
        ),
        migrations.RunSQL("DROP TABLE IF EXISTS django_session", migrations.RunSQL.noop),
    ]
