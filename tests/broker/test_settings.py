import pickle
from pathlib import Path

import pytest
from pydantic import ValidationError

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


def test_a_flag_beats_the_environment_beats_the_file_beats_the_default(
    toml: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert load_settings().chunk_size == 100
    assert load_settings(config=toml).chunk_size == 7
    monkeypatch.setenv("VITALSTREAM_CHUNK_SIZE", "8")
    assert load_settings(config=toml).chunk_size == 8
    assert load_settings(config=toml, chunk_size=9).chunk_size == 9
    assert load_settings(config=toml, chunk_size=None).chunk_size == 8


def test_properties_of_the_command_line_lie_over_those_of_the_file(toml: Path) -> None:
    settings = load_settings(config=toml, properties=["linger.ms=9", "sasl.username = a=b "])
    assert settings.kafka == {"linger.ms": "9", "client.id": "file", "sasl.username": "a=b"}


def test_properties_come_from_the_environment_as_json(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VITALSTREAM_KAFKA", '{"client.id": "env"}')
    assert load_settings().kafka == {"client.id": "env"}


def test_the_users_properties_lie_over_a_clients_defaults() -> None:
    settings = load_settings(bootstrap_servers="k:1", properties=["linger.ms=9"])
    assert settings.client({"linger.ms": 5, "acks": "all"}) == {
        "bootstrap.servers": "k:1",
        "linger.ms": "9",
        "acks": "all",
    }


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (
            {"chunk_size": 0},
            "--chunk-size (VITALSTREAM_CHUNK_SIZE): input should be greater than or equal to 1",
        ),
        ({"threshold": 1.5}, "--threshold (VITALSTREAM_THRESHOLD): input should be less than or equal to 1"),
        ({"input_topic": "a b"}, "--input-topic (VITALSTREAM_INPUT_TOPIC): string should match pattern"),
        ({"group": ""}, "--group (VITALSTREAM_GROUP): string should match pattern"),
        ({"delivery": "maybe"}, "'exactly-once' or 'at-least-once'"),
        ({"no_such": 1}, "there is no setting 'no_such' (known: bootstrap_servers, "),
        ({"properties": ["linger.ms"]}, "-X takes key=value"),
        ({"properties": ["=5"]}, "-X takes key=value"),
        ({"config": Path("absent.toml")}, "--config: there is no file absent.toml"),
    ],
)
def test_a_bad_setting_is_named_in_one_sentence(flags: dict[str, object], told: str) -> None:
    with pytest.raises(SettingsError) as error:
        load_settings(**flags)  # type: ignore[arg-type]
    assert told in str(error.value)
    assert "\n" not in str(error.value)
    assert error.value.exit_code == 2


def test_all_bad_settings_are_told_at_once() -> None:
    with pytest.raises(SettingsError, match=r"--chunk-size .*; --workers "):
        load_settings(chunk_size=0, workers=0)


def test_a_malformed_file_and_environment_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = tmp_path / "broken.toml"
    broken.write_text("chunk_size =")
    with pytest.raises(SettingsError, match=r"--config .*broken\.toml"):
        load_settings(config=broken)
    monkeypatch.setenv("VITALSTREAM_KAFKA", "linger.ms=5")
    with pytest.raises(SettingsError, match="VITALSTREAM_KAFKA is a JSON object"):
        load_settings()


@pytest.mark.parametrize("name", OWNED_PROPERTIES)
def test_properties_that_decide_delivery_are_refused_with_the_flag_to_use(name: str) -> None:
    with pytest.raises(SettingsError) as error:
        load_settings(properties=[f"{name}=x"])
    assert (
        str(error.value) == f"-X: {name} is set by vitalstream itself; use {OWNED_PROPERTIES[name]} instead"
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


def test_settings_are_frozen_and_travel_to_other_processes() -> None:
    settings = load_settings(chunk_size=9, properties=["sasl.password=hunter2"], model=Path("m.joblib"))
    with pytest.raises(ValidationError):
        setattr(settings, "chunk_size", 5)  # noqa: B010 - the type checker knows it is frozen
    assert type(settings) is Settings
    assert pickle.loads(pickle.dumps(settings)) == settings


def test_the_topics_are_the_input_then_the_outputs() -> None:
    settings = load_settings(input_topic="in", dead_letter_topic="dead")
    assert settings.topics == ("in", "risk", "risk-metrics", "dead")
    assert settings.output_topics == ("risk", "risk-metrics", "dead")
