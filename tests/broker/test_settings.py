import pickle
from pathlib import Path

import pytest
from pydantic import ValidationError

from broker.cautions import cautions
from broker.errors import SettingsError
from broker.settings import OWNED_PROPERTIES, Settings, load_settings


@pytest.fixture(autouse=True)
def no_settings_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in Settings.model_fields:
        monkeypatch.delenv(f"VITALSTREAM_{name.upper()}", raising=False)


@pytest.fixture
def toml(tmp_path: Path) -> Path:
    path = tmp_path / "vitalstream.toml"
    path.write_text('chunk_size = 7\n[kafka]\n"linger.ms" = "7"\n"client.id" = "file"\n')
    return path


def test_flag_overrides_environment_overrides_file_overrides_default(
    toml: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert load_settings().chunk_size == 100
    assert load_settings(config=toml).chunk_size == 7
    monkeypatch.setenv("VITALSTREAM_CHUNK_SIZE", "8")
    assert load_settings(config=toml).chunk_size == 8
    assert load_settings(config=toml, chunk_size=9).chunk_size == 9
    assert load_settings(config=toml, chunk_size=None).chunk_size == 8


def test_the_file_may_begin_with_a_byte_order_mark(toml: Path) -> None:
    expected = load_settings(config=toml)
    toml.write_text(toml.read_text(encoding="utf-8"), encoding="utf-8-sig")
    assert load_settings(config=toml) == expected


def test_properties_on_the_command_line_override_those_in_the_file(toml: Path) -> None:
    settings = load_settings(config=toml, properties=["linger.ms=9", "sasl.username = a=b "])
    assert settings.kafka == {"linger.ms": "9", "client.id": "file", "sasl.username": "a=b"}


def test_properties_come_from_the_environment_as_json(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VITALSTREAM_KAFKA", '{"client.id": "env"}')
    assert load_settings().kafka == {"client.id": "env"}


def test_the_users_properties_override_a_clients_defaults() -> None:
    settings = load_settings(bootstrap_servers="k:1", properties=["linger.ms=9", "reconnect.backoff.ms=50"])
    assert settings.client({"linger.ms": 5, "acks": "all"}) == {
        "bootstrap.servers": "k:1",
        "reconnect.backoff.ms": "50",
        "linger.ms": "9",
        "acks": "all",
    }


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (
            {"chunk_size": 0},
            "--chunk-size (VITALSTREAM_CHUNK_SIZE): must be a whole number from 1 up to 100,000, or auto",
        ),
        (
            {"chunk_size": "1x"},
            "--chunk-size (VITALSTREAM_CHUNK_SIZE): must be a whole number from 1 up to 100,000, or auto",
        ),
        ({"threshold": 1.5}, "--threshold (VITALSTREAM_THRESHOLD): must be a number from 0 up to 1"),
        ({"threshold": "x"}, "--threshold (VITALSTREAM_THRESHOLD): must be a number from 0 up to 1"),
        ({"workers": "1.5"}, "--workers (VITALSTREAM_WORKERS): must be a whole number from 1 up to 256"),
        ({"until_idle": "0"}, "--until-idle (VITALSTREAM_UNTIL_IDLE): must be a number above 0"),
        ({"input_topic": "a b"}, "must be 1 to 249 letters (A to Z), digits, dots, hyphens or underscores"),
        (
            {"group": ""},
            "--group (VITALSTREAM_GROUP): must be 1 to 200 letters (A to Z), digits, dots, hyphens",
        ),
        ({"delivery": "maybe"}, "--delivery (VITALSTREAM_DELIVERY): must be exactly-once or at-least-once"),
        (
            {"bootstrap_servers": "localhost:abc"},
            "--bootstrap-servers (VITALSTREAM_BOOTSTRAP_SERVERS): must be HOST:",
        ),
        (
            {"bootstrap_servers": "k:1,,"},
            "must be HOST:PORT with a port from 1 up to 65535, or several separated by commas",
        ),
        ({"bootstrap_servers": "k:9092,[::1]:65536"}, "must be HOST:PORT with a port from 1 up to 65535"),
        ({"bootstrap_servers": "k:0"}, "must be HOST:PORT with a port from 1 up to 65535"),
        (
            {"output_topic": "vitals"},
            "--input-topic and --output-topic are both vitals; give each a topic of its own",
        ),
        (
            {"metrics_topic": "x", "dead_letter_topic": "x"},
            "--metrics-topic and --dead-letter-topic are both x;",
        ),
        (
            {"workers": 2, "instance": "a"},
            "--instance a: an instance is one worker; leave it out with --workers",
        ),
        *(
            ({"from_timestamp": time}, "must be a time with a zone, such as 2026-01-05T08:30:00Z")
            for time in ("2026-01-05T08:30:00", "2026-01-05", "1767601800", "yesterday")
        ),
        ({"no_such": 1}, "there is no setting no_such"),
        ({"properties": ["linger.ms"]}, "-X takes key=value"),
        ({"properties": ["=5"]}, "-X takes key=value"),
        ({"config": Path("absent.toml")}, "--config absent.toml: no such file or directory; check the path"),
    ],
    ids=str,
)
def test_a_bad_setting_is_named_in_one_sentence(flags: dict[str, object], told: str) -> None:
    with pytest.raises(SettingsError) as error:
        load_settings(**flags)  # type: ignore[arg-type]
    assert told in str(error.value)
    assert "\n" not in str(error.value)
    assert error.value.exit_code == 2


def test_all_bad_settings_are_named_at_once() -> None:
    with pytest.raises(SettingsError, match=r"--chunk-size .*; --workers "):
        load_settings(chunk_size=0, workers=0)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("chunk_size =", "invalid value"),
        ("chunk-size = 7", "there is no setting chunk-size; did you mean chunk_size?"),
        ("tresholds = 1", "there is no setting tresholds; did you mean threshold?"),
        ("quux = 1", "there is no setting quux"),
        ("threshold = 5", "threshold: must be a number from 0 up to 1"),
        ("kafka = 1", "kafka: must be librdkafka properties by name"),
        ('[kafka]\n"group.id" = "x"', "kafka: group.id is set by vitalstream itself; use --group instead"),
        (
            '[kafka]\nsecurity.protocol = "SSL"',
            "kafka: security must be text, a number or a boolean; put names",
        ),
    ],
)
def test_an_error_in_a_file_names_the_file(tmp_path: Path, content: str, told: str) -> None:
    path = tmp_path / "broken.toml"
    path.write_text(content)
    with pytest.raises(SettingsError) as error:
        load_settings(config=path)
    assert str(error.value).startswith(f"--config {path}: {told}")
    assert "known" not in str(error.value)


def test_a_file_may_need_a_flag_to_be_consistent(tmp_path: Path) -> None:
    path = tmp_path / "part.toml"
    path.write_text('input_topic = "risk"')
    assert load_settings(config=path, output_topic="score").topics[:2] == ("risk", "score")
    with pytest.raises(SettingsError, match="--input-topic and --output-topic are both risk"):
        load_settings(config=path)


def test_numbers_and_booleans_are_librdkafka_properties_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "typed.toml"
    path.write_text('[kafka]\n"linger.ms" = 1.5\n"enable.ssl.certificate.verification" = true\n')
    monkeypatch.setenv("VITALSTREAM_KAFKA", '{"batch.size": 9}')
    assert load_settings(config=path).kafka == {
        "linger.ms": "1.5",
        "enable.ssl.certificate.verification": "true",
        "batch.size": "9",
    }


@pytest.mark.parametrize("text", ["linger.ms=5", "[1]"])
def test_properties_in_the_environment_must_be_a_json_object(
    text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VITALSTREAM_KAFKA", text)
    with pytest.raises(SettingsError) as error:
        load_settings()
    assert str(error.value) == (
        "-X (VITALSTREAM_KAFKA): must be librdkafka properties by name: in a file the table [kafka], in the "
        'environment a JSON object such as {"security.protocol": "SSL"}'
    )


def test_a_misspelt_setting_in_the_environment_is_warned_about(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VITALSTREAM_TRESHOLD", "0.4")
    monkeypatch.setenv("VITALSTREAM_THRESHOLD", "0.4")
    # As Kubernetes sets them for a service of this name.
    for name in ("SERVICE_HOST", "SERVICE_PORT_HTTP", "PORT", "PORT_9464_TCP_ADDR", "PORT_9464_TCP_PROTO"):
        monkeypatch.setenv(f"VITALSTREAM_{name}", "x")
    assert cautions(load_settings()) == [
        "VITALSTREAM_TRESHOLD is not a setting; did you mean VITALSTREAM_THRESHOLD?"
    ]


@pytest.mark.parametrize("name", OWNED_PROPERTIES)
def test_properties_that_decide_delivery_are_refused_with_the_flag_to_use(name: str) -> None:
    with pytest.raises(SettingsError) as error:
        load_settings(properties=[f"{name}=x"])
    assert (
        str(error.value)
        == f"-X (VITALSTREAM_KAFKA): {name} is set by vitalstream itself; use {OWNED_PROPERTIES[name]} instead"
    )


@pytest.mark.parametrize(
    "name",
    [
        "sasl.password",
        "ssl.key.password",
        "ssl.keystore.password",
        "ssl.key.pem",
        "sasl.oauthbearer.client.secret",
        "sasl.oauthbearer.config",
        "sasl.jaas.config",
    ],
)
def test_a_secret_never_shows(name: str) -> None:
    settings = load_settings(properties=[f"{name}=hunter2", "client.id=seen"])
    assert settings.client()[name] == "hunter2"
    assert settings.shown()["kafka"] == {name: "***", "client.id": "seen"}
    for text in (repr(settings), str(settings), f"{settings}", str(settings.shown())):
        assert "hunter2" not in text


def test_a_secret_does_not_show_in_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    for properties in (["sasl.password=hunter2", "group.id=x"], ["hunter2"]):
        with pytest.raises(SettingsError) as error:
            load_settings(properties=properties, chunk_size="hunter2")
        assert error.value.__cause__ is None
        assert "hunter2" not in str(error.value) or properties == ["hunter2"]


def test_settings_are_frozen_and_can_be_pickled() -> None:
    settings = load_settings(chunk_size=9, properties=["sasl.password=hunter2"], model=Path("m.joblib"))
    with pytest.raises(ValidationError):
        setattr(settings, "chunk_size", 5)  # noqa: B010 - the type checker knows it is frozen
    assert type(settings) is Settings
    assert pickle.loads(pickle.dumps(settings)) == settings


def test_topics_lists_the_input_then_the_outputs() -> None:
    settings = load_settings(input_topic="in", dead_letter_topic="dead")
    assert settings.topics == ("in", "risk", "risk-metrics", "dead")
    assert settings.output_topics == ("risk", "risk-metrics", "dead")
