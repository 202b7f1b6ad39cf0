"""Secrets: where they come from, that they never show, and which settings cause a warning."""

import subprocess
import sys
from pathlib import Path

import pytest

from broker.cautions import cautions
from broker.errors import SettingsError
from broker.local import free_port
from broker.settings import Settings, is_secret, load_settings
from broker.topics import require_topics
from tests.vitalstream.command import ROOT, environment

SECRET = "hunter2-canary"


@pytest.fixture(autouse=True)
def no_settings_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in Settings.model_fields:
        monkeypatch.delenv(f"VITALSTREAM_{name.upper()}", raising=False)


@pytest.fixture
def secrets(tmp_path: Path) -> Path:
    """A directory as Kubernetes mounts a Secret: symbolic links into a hidden folder."""
    hidden = tmp_path / "secrets" / "..data"
    hidden.mkdir(parents=True)
    for name, text in (("sasl.password", f"{SECRET}\n"), ("ssl.key.pem", "-----BEGIN\nkey\n-----END\n")):
        (hidden / name).write_text(text)
        (hidden.parent / name).symlink_to(hidden / name)
    return hidden.parent


def test_each_file_is_a_property(secrets: Path) -> None:
    settings = load_settings(secrets_dir=secrets)
    assert settings.kafka == {"sasl.password": SECRET, "ssl.key.pem": "-----BEGIN\nkey\n-----END"}
    assert SECRET not in f"{settings!r} {settings} {settings.shown()}"


def test_a_byte_order_mark_is_not_part_of_a_secret(secrets: Path) -> None:
    (secrets / "sasl.password").write_text(f"{SECRET}\r\n", encoding="utf-8-sig")
    assert load_settings(secrets_dir=secrets).kafka["sasl.password"] == SECRET


def test_files_override_environment_and_configuration_but_not_the_command_line(
    secrets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tmp_path / "v.toml"
    config.write_text('[kafka]\n"sasl.password" = "file"\n"sasl.username" = "file"\n"client.id" = "file"\n')
    monkeypatch.setenv("VITALSTREAM_KAFKA", '{"sasl.password": "env", "sasl.username": "env"}')
    monkeypatch.setenv("VITALSTREAM_SECRETS_DIR", str(secrets))
    kafka = load_settings(config=config).kafka
    assert (kafka["sasl.password"], kafka["sasl.username"], kafka["client.id"]) == (SECRET, "env", "file")
    assert load_settings(config=config, properties=["sasl.password=x"]).kafka["sasl.password"] == "x"


def test_an_unreadable_directory_is_named(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"--secrets-dir: cannot read .*absent: No such file"):
        load_settings(secrets_dir=tmp_path / "absent")
    (tmp_path / "sasl.password").write_bytes(b"\xff\xfe")
    with pytest.raises(SettingsError, match="a file there is not UTF-8"):
        load_settings(secrets_dir=tmp_path)


def test_a_property_that_decides_delivery_is_refused_even_from_a_file(tmp_path: Path) -> None:
    (tmp_path / "group.id").write_text("x")
    with pytest.raises(SettingsError, match="use --group instead"):
        load_settings(secrets_dir=tmp_path)


@pytest.mark.parametrize(
    ("name", "secret"),
    [
        ("sasl.oauthbearer.assertion.private.key.passphrase", True),
        ("SASL.Password", True),
        ("ssl.key.location", False),
        ("ssl.ca.location", False),
        ("sasl.oauthbearer.assertion.private.key.file", False),
        ("sasl.username", False),
    ],
)
def test_which_properties_are_secrets(name: str, secret: bool) -> None:
    assert is_secret(name) is secret


@pytest.mark.parametrize(
    ("servers", "protocol", "far"),
    [
        ("localhost:9092", None, None),
        ("127.0.0.1:9092,[::1]:9092", "PLAINTEXT", None),
        ("PLAINTEXT://kafka.localhost:9092", "sasl_plaintext", None),
        ("kafka.example:9092", "SSL", None),
        ("kafka.example:9092", "sasl_ssl", None),
        ("kafka.example:9092", None, "kafka.example"),
        ("localhost:1,10.0.0.7:9092", "SASL_PLAINTEXT", "10.0.0.7"),
        ("PLAINTEXT://[2001:db8::1]:9092, b:1", "plaintext", "2001:db8::1, b"),
    ],
)
def test_unencrypted_connections_elsewhere_are_warned_about(
    servers: str, protocol: str | None, far: str | None
) -> None:
    kafka = {"security.protocol": protocol} if protocol else {}
    found = cautions(Settings(bootstrap_servers=servers, kafka=kafka))
    if far is None:
        assert found == []
    else:
        (text,) = found
        assert text.startswith("security.protocol is ")
        assert f"unencrypted to {far}; set it to SSL or SASL_SSL" in text


def test_a_secret_on_the_command_line_is_warned_about_by_name() -> None:
    given = [f"sasl.password={SECRET}", "linger.ms=5", "ssl.key.location=/k"]
    (text,) = cautions(load_settings(properties=given), given)
    assert text.startswith("-X sasl.password: everyone on this machine can read a command line")
    assert SECRET not in text


@pytest.mark.parametrize("format_", ["text", "json"])
def test_the_command_warns_once_and_shows_no_secret(format_: str, tmp_path: Path) -> None:
    """Nobody listens there; only what the command logs along the way counts."""
    model = ("--model", str(tmp_path / "absent.joblib"), "--log-format", format_)
    servers = ("--bootstrap-servers", f"127.0.0.1:{free_port()},192.0.2.1:9092")
    line = ("consume", *model, *servers, "-X", f"sasl.password={SECRET}")
    done = subprocess.run(
        [sys.executable, "-m", "vitalstream", *line],
        cwd=ROOT, env=environment(), capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert done.returncode == 2, done.stderr
    assert done.stderr.count("unencrypted to 192.0.2.1") == 1
    assert done.stderr.count("-X sasl.password: everyone") == 1
    assert SECRET not in done.stderr + done.stdout
    if format_ == "json":
        assert all(line.startswith("{") for line in done.stderr.splitlines()), done.stderr


def test_a_value_that_librdkafka_refuses_is_not_repeated() -> None:
    kafka = {"ssl.key.pem": SECRET, "security.protocol": "SSL"}
    with pytest.raises(SettingsError) as caught:
        require_topics(Settings(kafka=kafka), [], timeout=1)
    assert SECRET not in str(caught.value)
