import stat
import traceback
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from config.data_folder import read_secret_key
from config.database import PREPARE_WHAT_IS_MARKED, database_parameters
from config.environment import CHECKOUT, Environment, WrongSetting, read_environment


def retention_days(environment: Environment) -> list[int]:
    return [days for name, days in environment if name.startswith("retention")]


def test_nothing_set_is_a_service_for_this_machine_alone() -> None:
    environment = read_environment({})
    assert environment.database_url is None
    assert environment.celery_broker_url is None
    assert environment.data_dir == CHECKOUT / ".data"
    assert (environment.host, environment.port) == ("127.0.0.1", 8000)
    assert environment.url == "http://127.0.0.1:8000"
    assert environment.demo
    assert environment.event_max_age_days == 35
    assert retention_days(environment) == [401, 35, 400, 1_100]
    assert environment.allowed_hosts == ["127.0.0.1", "[::1]", "localhost"]
    assert not environment.is_https


def test_events_are_kept_longer_where_older_ones_are_taken() -> None:
    environment = read_environment({"EVENT_MAX_AGE_DAYS": "400"})
    assert retention_days(environment) == [766, 35, 400, 1_100]


def test_history_is_never_kept_shorter_than_events() -> None:
    environment = read_environment({"RETENTION_EVENTS_DAYS": "3000"})
    assert environment.retention_history_days == 3_000


def test_an_empty_variable_counts_as_not_set() -> None:
    assert read_environment({"PORT": "", "DATABASE_URL": ""}) == read_environment({})


SECRET = "never-shown"
DATABASE_FORM = "it must look like postgresql://user:password@host:port/database."
ORIGIN_FORM = "it must be an origin without a path, as https://spendgate.example.com."
MAIL_FORM = (
    "must look like smtp://user:password@host:587?from=alerts@example.com"
    " (smtps:// where encryption comes first)."
)
NOT_A_NUMBER = "input should be a valid integer, unable to parse string as an integer."


@pytest.mark.parametrize(
    ("environ", "sentence"),
    [
        ({"PORT": "abc"}, f"PORT is 'abc': {NOT_A_NUMBER}"),
        ({"PORT": "0"}, "PORT is '0': input should be greater than or equal to 1."),
        ({"PORT": "65536"}, "PORT is '65536': input should be less than or equal to 65535."),
        ({"PORT": "８０"}, f"PORT is '８０': {NOT_A_NUMBER}"),  # noqa: RUF001
        (
            {"PORT": "9" * 5000},
            f"PORT is '{'9' * 5000}':"
            " unable to parse input string as an integer, exceeded maximum size.",
        ),
        ({"WEB_WORKERS": "65"}, "WEB_WORKERS is '65': input should be less than or equal to 64."),
        ({"WEB_THREADS": "1.5"}, f"WEB_THREADS is '1.5': {NOT_A_NUMBER}"),
        ({"METRICS_PORT": "0"}, "METRICS_PORT is '0': input should be greater than or equal to 1."),
        (
            {"EVENT_MAX_AGE_DAYS": "0"},
            "EVENT_MAX_AGE_DAYS is '0': input should be greater than or equal to 1.",
        ),
        (
            {"RETENTION_EVENTS_DAYS": "400"},
            "RETENTION_EVENTS_DAYS is '400': it must be at least 401, the sum of EVENT_MAX_AGE_DAYS"
            " and the longest period of a budget (366).",
        ),
        (
            {"RETENTION_EVENTS_DAYS": "1 year"},
            f"RETENTION_EVENTS_DAYS is '1 year': {NOT_A_NUMBER}",
        ),
        (
            {"RETENTION_HISTORY_DAYS": "450", "RETENTION_EVENTS_DAYS": "500"},
            "RETENTION_HISTORY_DAYS is '450': it must be at least RETENTION_EVENTS_DAYS, 500.",
        ),
        (
            {"RETENTION_INCIDENTS_DAYS": "34"},
            "RETENTION_INCIDENTS_DAYS is '34': input should be greater than or equal to 35.",
        ),
        (
            {"DEMO": "maybe"},
            "DEMO is 'maybe': input should be a valid boolean, unable to interpret input.",
        ),
        ({"HOST": "http://x"}, "HOST is 'http://x': it must be an address or a host name."),
        (
            {"ALLOWED_HOSTS": "a.example,b/c"},
            "ALLOWED_HOSTS is 'b/c': it must be an address or a host name.",
        ),
        ({"SECRET_KEY": SECRET}, "SECRET_KEY: string should have at least 32 characters."),
        (
            {"CELERY_BROKER_URL": f"x:{SECRET}@localhost"},
            "CELERY_BROKER_URL: it must be the URL of a broker, such as redis://host:6379/0.",
        ),
        (
            {"PUBLIC_URL": "https://a.example/path"},
            f"PUBLIC_URL is 'https://a.example/path': {ORIGIN_FORM}",
        ),
        ({"DATABASE_URL": f"mysql://u:{SECRET}@h/d"}, f"DATABASE_URL: {DATABASE_FORM}"),
        ({"DATABASE_URL": f"postgresql://u:%zz{SECRET}@h/d"}, f"DATABASE_URL: {DATABASE_FORM}"),
        ({"DATABASE_URL": "postgresql://u@h"}, f"DATABASE_URL: {DATABASE_FORM}"),
        (
            {"DATABASE_URL": f"postgresql://u:{SECRET}@h:99999/d"},
            "DATABASE_URL: the port must be a whole number from 1 to 65535.",
        ),
        ({"MAIL_URL": f"https://u:{SECRET}@mail.example"}, f"MAIL_URL: {MAIL_FORM}"),
        (
            {"MAIL_URL": f"smtp://u:{SECRET}@mail.example"},
            "MAIL_URL: does not say who the mail is from: add ?from=alerts@example.com.",
        ),
        (
            {"MAIL_URL": "smtp://mail.example:0?from=a@b.example"},
            "MAIL_URL: has a port that is not a whole number from 1 to 65535.",
        ),
        (
            {"CHANNEL_NETWORKS": "10.0.0.0/8, 10.1.2.3/8"},
            "CHANNEL_NETWORKS is '10.1.2.3/8': value is not a valid IPv4 or IPv6 network.",
        ),
        (
            {"STRIPE_API_KEY": f"pk_live_{SECRET}"},
            "STRIPE_API_KEY: it must be a secret or restricted key: sk_live_…, sk_test_…, rk_….",
        ),
        (
            {"STRIPE_API_BASE": "http://127.0.0.1:12111/v1"},
            "STRIPE_API_BASE is 'http://127.0.0.1:12111/v1': it must be an origin without a path,"
            " as http://127.0.0.1:12111.",
        ),
        ({"PORT": "1", "PORT_FILE": "/x"}, "PORT and PORT_FILE are both set: keep one of them."),
        (
            {"SECRET_KEY_FILE": "/nowhere/key"},
            "SECRET_KEY_FILE is '/nowhere/key', which cannot be read: No such file or directory.",
        ),
    ],
)
def test_a_wrong_value_is_refused_with_a_sentence(environ: dict[str, str], sentence: str) -> None:
    with pytest.raises(WrongSetting) as refusal:
        read_environment(environ)
    assert str(refusal.value) == sentence
    assert SECRET not in "".join(traceback.format_exception(refusal.value))


def test_every_wrong_variable_is_named_at_the_first_start() -> None:
    wrong = {"PORT": "abc", "MAIL_URL": "mail", "EVENT_MAX_AGE_DAYS": "0", "HOST_FILE": "/nowhere"}
    with pytest.raises(WrongSetting) as refusal:
        read_environment(wrong)
    names = [line.partition(" ")[0] for line in str(refusal.value).splitlines()]
    assert names == ["HOST_FILE", "PORT", "EVENT_MAX_AGE_DAYS", "MAIL_URL:"]


def test_secrets_are_not_shown() -> None:
    secrets = {
        "DATABASE_URL": f"postgresql://u:{SECRET}@h/d",
        "CELERY_BROKER_URL": f"redis://:{SECRET}@h",
        "SECRET_KEY": SECRET * 3,
        "MAIL_URL": f"smtp://a%40b.example:{SECRET}@mail",
    }
    assert SECRET not in repr(read_environment(secrets))


def test_a_data_folder_that_is_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(WrongSetting, match="it must be a folder"):
        read_environment({"DATA_DIR": str(tmp_path / "file")})


def test_every_variable_also_comes_from_a_file(tmp_path: Path) -> None:
    (tmp_path / "url").write_text("postgresql://u:p@h/d\n")
    environment = read_environment({"DATABASE_URL_FILE": str(tmp_path / "url")})
    assert environment.database_url == "postgresql://u:p@h/d"


def test_a_file_that_is_not_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / "url").write_bytes(b"\xff\xfe")
    with pytest.raises(WrongSetting, match="which cannot be read: it is not text"):
        read_environment({"DATABASE_URL_FILE": str(tmp_path / "url")})


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        (
            "postgresql://u:p%40ss@db.example:5433/main?sslmode=require",
            {"HOST": "db.example", "PORT": "5433", "NAME": "main", "USER": "u", "PASSWORD": "p@ss"},
        ),
        ("postgres://u@%2Fvar%2Frun/main", {"HOST": "/var/run", "NAME": "main", "PORT": ""}),
        ("postgresql:///main?host=/run/s&user=u", {"HOST": "/run/s", "NAME": "main", "USER": "u"}),
        ("postgresql://[::1]/main", {"HOST": "::1", "NAME": "main"}),
        ("postgresql://a:1,b:2/main", {"HOST": "a,b", "PORT": "1,2"}),
        ("postgresql:///?service=main", {"NAME": "", "HOST": ""}),
    ],
)
def test_every_form_of_a_database_url_is_understood(url: str, expected: dict[str, str]) -> None:
    parameters = database_parameters(read_environment({"DATABASE_URL": url}))
    assert {name: parameters[name] for name in expected} == expected


def test_the_rest_of_a_database_url_goes_to_the_client_library() -> None:
    url = "postgresql://u@h/d?sslmode=require&application_name=mine"
    options = database_parameters(read_environment({"DATABASE_URL": url}))["OPTIONS"]
    assert options == {
        "connect_timeout": "10",
        "application_name": "mine",
        "prepare_threshold": PREPARE_WHAT_IS_MARKED,
        "sslmode": "require",
    }


def test_a_public_url_is_trusted_and_allowed() -> None:
    environment = read_environment({"PUBLIC_URL": "https://spend.example/", "HOST": "0.0.0.0"})  # noqa: S104
    assert environment.public_url == "https://spend.example"
    assert environment.is_https
    assert "spend.example" in environment.allowed_hosts
    assert environment.url == "http://localhost:8000"


def test_given_hosts_keep_this_machine_allowed() -> None:
    environment = read_environment({"ALLOWED_HOSTS": "a.example, .b.example"})
    assert environment.allowed_hosts == [
        *(".b.example", "127.0.0.1", "[::1]", "a.example", "localhost")
    ]


def test_networks_and_the_mail_server_of_channels_are_read() -> None:
    environment = read_environment(
        {"CHANNEL_NETWORKS": "127.0.0.0/8, fd00::/8,", "MAIL_URL": "smtp://a%40b.example:p@mail"}
    )
    assert [str(channel_network) for channel_network in environment.channel_networks] == [
        "127.0.0.0/8",
        "fd00::/8",
    ]
    assert environment.mail_url == "smtp://a%40b.example:p@mail"


def test_a_secret_key_is_made_once_whoever_asks_first(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        keys = set(pool.map(read_secret_key, [tmp_path / "data"] * 32))
    assert len(keys) == 1
    assert len(keys.pop()) >= 50
    stored = tmp_path / "data" / "secret_key"
    assert stat.S_IMODE(stored.stat().st_mode) == 0o600
    assert list(stored.parent.iterdir()) == [stored]
