"""`vitalstream sweep`: the table, the plot, the errors, and the end-to-end measurement."""

import json
import signal
import struct
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import joblib
import numpy as np
import pandas as pd
import pytest
from confluent_kafka.admin import AdminClient
from sklearn.compose import make_column_transformer
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.naive_bayes import GaussianNB
from sklearn.pipeline import make_pipeline
from typer.testing import CliRunner

from broker.errors import SettingsError, VitalstreamError
from broker.settings import Settings
from consumer.stop import Stop
from producer.sources import SourceError
from real_time import pin_model
from real_time.sweep import Measurement
from schemas.registering import vitals_avro
from tests.kafka import wait_until
from tests.producer.files import WRITERS, stays
from tests.vitalstream.command import Running
from vitalstream.cli import app
from vitalstream.sweep import end_to_end
from vitalstream.sweep.command import ModelRaisedError
from vitalstream.worker_process import WorkerError

FEATURES = ["heart_rate", "spo2"]
QUICK = ("--rows", "300", "--seconds", "0.5")


@pytest.fixture(autouse=True)
def stops(monkeypatch: pytest.MonkeyPatch) -> list[Stop]:
    """The command's stops, which leave pytest's own signal handlers alone."""
    made: list[Stop] = []
    monkeypatch.setattr(Stop, "listen", lambda self, **_: made.append(self))
    return made


def save(model: Any, path: Path, features: list[str]) -> Path:
    """A fitted, pinned model."""
    random = np.random.default_rng(0)
    X = pd.DataFrame(random.normal(80, 10, (100, len(features))), columns=features)
    joblib.dump(model.fit(X, X[features[0]] > 80), path)
    pin_model(path)
    return path


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pipeline = make_pipeline(SimpleImputer(), LogisticRegression())
    return save(pipeline, tmp_path_factory.mktemp("model") / "risk.joblib", FEATURES)


def sweep(model: Path, *arguments: str) -> str:
    """What the command prints on stdout; exceptions are re-raised."""
    result = CliRunner().invoke(app, ["sweep", "--model", str(model), *arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


def document(model: Path, *arguments: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(sweep(model, *arguments, "--json"))
    return found


def test_a_table_by_chunk_size_and_a_recommendation(model: Path) -> None:
    lines = sweep(model, *QUICK, "--chunk-sizes", "100, 1,10,10").splitlines()
    sizes = [line.split()[0] for line in lines if line.strip()[:1].isdigit()]
    assert sizes == ["1", "10", "100"]
    header = next(line for line in lines if "chunk size" in line)
    assert header.split() == [
        "chunk",
        "size",
        "rows/s",
        "latency_ms",
        "p50",
        "ms",
        "p99",
        "ms",
        "predict_proba",
    ]
    assert lines[-1].startswith("chunk size ")


def test_json_holds_the_same_for_programs(model: Path) -> None:
    found = document(model, *QUICK, "--chunk-sizes", "1,50")
    assert [one["chunk_size"] for one in found["chunk_sizes"]] == [1, 50]
    assert found["rows"] == 300
    assert found["recommended"] in (1, 50)
    assert found["recommendation"].startswith(f"chunk size {found['recommended']} ")
    assert found["measured"] == "scoring alone"
    assert not found["interrupted"]
    for one in found["chunk_sizes"]:
        assert one["throughput"] > 0
        assert one["predict_proba_throughput"] > 0
        assert 0 < one["latency_ms"] <= one["chunk_ms_p50"] <= one["chunk_ms_p99"]


def test_without_a_fast_path_predict_proba_is_not_compared(tmp_path: Path) -> None:
    by_names = make_column_transformer((SimpleImputer(), [*FEATURES]))  # arrays have no column names
    bayes = save(make_pipeline(by_names, GaussianNB()), tmp_path / "bayes.joblib", FEATURES)
    (one,) = document(bayes, *QUICK, "--chunk-sizes", "10")["chunk_sizes"]
    assert one["predict_proba_throughput"] is None
    assert "predict_proba" not in sweep(bayes, *QUICK, "--chunk-sizes", "10")


def test_a_model_with_other_features_needs_its_own_rows(tmp_path: Path) -> None:
    model = save(make_pipeline(SimpleImputer(), LogisticRegression()), tmp_path / "m.joblib", ["lactate"])
    with pytest.raises(SettingsError, match="simulated patients have no lactate; give rows with --data"):
        sweep(model, *QUICK, "--chunk-sizes", "10")
    rows = tmp_path / "rows.csv"
    rows.write_text("patient_id,event_time,lactate\n" + "p,2026-01-05T08:30:00,1.5\n" * 7)
    assert document(model, *QUICK, "--chunk-sizes", "100", "--data", str(rows))["rows"] == 300


MAPPING = """
patient_id = { path = "pid", integer = true }
event_time = { path = "ts", as = "epoch_s" }
[features]
heart_rate = { path = "hr.value", unit_path = "hr.unit" }
spo2 = { path = "sat" }
"""


def messages(folder: Path) -> tuple[str, ...]:
    """A mapping, and a file of three messages of which it can read two."""
    (mapping := folder / "mapping.toml").write_text(MAPPING)
    (data := folder / "messages.ndjson").write_text(
        "".join(
            json.dumps({"pid": pid, "ts": 1767601800, "hr": {"value": 1.4, "unit": "Hz"}, "sat": 97}) + "\n"
            for pid in (17, 18, "no number")
        )
    )
    return ("--mapping", str(mapping), "--data", str(data))


def test_messages_of_another_shape_are_read_by_a_mapping(model: Path, tmp_path: Path) -> None:
    how = messages(tmp_path)
    assert document(model, *QUICK, "--chunk-sizes", "100", *how)["rows"] == 300
    (rows := tmp_path / "rows.ndjson").write_text('{"patient_id": "p", "heart_rate": 80}\n')
    for arguments, said in (
        (("--value-format", "avro"), "--value-format avro needs --schema-registry, or --schema-file"),
        (
            ("--mapping", "cloudevents-binary", *how[2:]),
            "reads headers, which the messages of --data don't have",
        ),
        ((*how[:3], str(rows)), "has no message that the mapping reads"),
        ((*how[:3], str(tmp_path / "none.ndjson")), "--data .*: no such file or directory; check the path"),
    ):
        with pytest.raises(SettingsError, match=said):
            sweep(model, *QUICK, "--chunk-sizes", "100", *arguments)


def test_simulated_patients_can_be_written_in_another_format(model: Path, tmp_path: Path) -> None:
    (schema := tmp_path / "vitals.avsc").write_text(json.dumps(vitals_avro()))
    (mapping := tmp_path / "text.toml").write_text(MAPPING.replace(", integer = true", ""))
    for how in (
        ("--mapping", str(mapping)),
        ("--value-format", "hl7v2", "--mapping", "hl7v2"),
        ("--value-format", "avro", "--schema-file", str(schema)),
    ):
        assert document(model, *QUICK, "--chunk-sizes", "100", *how)["rows"] == 300


@pytest.mark.parametrize("layout", WRITERS)
def test_rows_may_come_from_the_physionet_challenges(model: Path, tmp_path: Path, layout: str) -> None:
    WRITERS[layout](tmp_path, stays())
    year = "physionet2019" if layout in ("psv", "hourly") else "physionet2012"
    arguments = (*QUICK, "--chunk-sizes", "100", "--data", str(tmp_path))
    assert document(model, *arguments, "--format", year)["rows"] == 300
    with pytest.raises(VitalstreamError, match=r"there is no .csv|has no column patient_id"):
        document(model, *arguments)


def test_a_model_may_use_all_variables_of_the_physionet_challenges(tmp_path: Path) -> None:
    model = save(
        make_pipeline(SimpleImputer(), LogisticRegression()), tmp_path / "m.joblib", ["heart_rate", "EtCO2"]
    )
    WRITERS["psv"](tmp_path, stays())
    arguments = (*QUICK, "--chunk-sizes", "100", "--data", str(tmp_path), "--format", "physionet2019")
    with pytest.raises(SettingsError, match="has no EtCO2"):
        sweep(model, *arguments)
    assert document(model, *arguments, "--all-variables")["rows"] == 300


def test_a_format_needs_a_file(model: Path, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="--format describes the file given by --data"):
        sweep(model, *QUICK, "--chunk-sizes", "100", "--format", "physionet2019")
    for arguments, said in (
        (("--format", "moon"), "no format moon"),
        (("--all-variables",), "--all-variables: "),
    ):
        with pytest.raises(SettingsError, match=said):
            sweep(model, *QUICK, "--chunk-sizes", "100", "--data", str(tmp_path), *arguments)


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("patient_id,event_time,spo2\np,2026-01-05T08:30:00,97\n", "has no heart_rate"),
        ("patient_id,event_time,heart_rate,spo2\n", "has no rows"),
        ("patient_id,event_time,heart_rate,spo2\np,never,80,97\n", "only 0 rows can be scored"),
    ],
)
def test_an_unsuitable_file_is_refused(model: Path, tmp_path: Path, content: str, problem: str) -> None:
    rows = tmp_path / "rows.csv"
    rows.write_text(content)
    with pytest.raises(SettingsError, match=problem):
        sweep(model, *QUICK, "--chunk-sizes", "10", "--data", str(rows))


def test_a_malformed_file_is_not_reported_as_bad_usage(model: Path, tmp_path: Path) -> None:
    rows = tmp_path / "rows.ndjson"
    rows.write_text("nonsense\n")
    with pytest.raises(SourceError, match="line 1") as raised:
        sweep(model, *QUICK, "--chunk-sizes", "10", "--data", str(rows))
    assert raised.value.exit_code == 1


@pytest.mark.parametrize("sizes", ["", "0", "-1", "1.5", "ten", "1,,2", "100001", "200"])
def test_bad_sizes_are_refused(model: Path, sizes: str) -> None:
    with pytest.raises(SettingsError, match=r"--chunk-sizes: .*(1,10,100|raise --rows)"):
        sweep(model, *QUICK, "--chunk-sizes", sizes)


def test_a_missing_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="--model: cannot read model file"):
        sweep(tmp_path / "none.joblib")


def test_a_model_that_raises_is_reported_without_its_message(tmp_path: Path) -> None:
    model = save(LogisticRegression(), tmp_path / "m.joblib", FEATURES)
    rows = tmp_path / "rows.csv"
    rows.write_text("patient_id,event_time,heart_rate,spo2\np,2026-01-05T08:30:00,80,\n")
    with pytest.raises(
        ModelRaisedError, match="raised ValueError on a chunk of 10 rows; use --data with rows"
    ):
        sweep(model, *QUICK, "--chunk-sizes", "10", "--data", str(rows))


def test_the_plot_is_an_image(model: Path, tmp_path: Path) -> None:
    picture = tmp_path / "sweep.png"
    sweep(model, *QUICK, "--chunk-sizes", "1,10,100", "--plot", str(picture))
    head = picture.read_bytes()[:24]
    assert head.startswith(b"\x89PNG\r\n\x1a\n")
    width, height = struct.unpack(">II", head[16:])
    assert width > 500
    assert height > 500


def test_an_impossible_plot_is_refused_before_any_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nowhere = tmp_path / "none.joblib"  # would be refused next
    with pytest.raises(SettingsError, match=r"must end in \.png"):
        sweep(nowhere, "--plot", str(tmp_path / "sweep.txt"))
    with pytest.raises(SettingsError, match="there is no directory"):
        sweep(nowhere, "--plot", str(tmp_path / "none" / "sweep.png"))
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(SettingsError, match=r"pip install 'matplotlib>=3\.9'"):
        sweep(nowhere, "--plot", str(tmp_path / "sweep.png"))


def test_an_interrupted_sweep_shows_what_it_has(
    model: Path, stops: list[Stop], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Measurement.run

    def interrupt_at_10(self: Measurement, seconds: float) -> None:
        run(self, seconds)
        if self.chunk_size == 10:
            stops[0].request()

    monkeypatch.setattr(Measurement, "run", interrupt_at_10)
    found = document(model, *QUICK, "--chunk-sizes", "1,10,100")
    assert [one["chunk_size"] for one in found["chunk_sizes"]] == [1, 10]
    assert found["interrupted"]
    monkeypatch.setattr(Stop, "listen", lambda self, **_: self.request())
    assert sweep(model, *QUICK, "--chunk-sizes", "1").strip() == "stopped before anything was measured"


# --- end to end


def leftovers(kafka: str) -> list[str]:
    """Topics and groups left by sweeps."""
    client = AdminClient({"bootstrap.servers": kafka})
    groups = [group.group_id for group in client.list_consumer_groups().result().valid]
    return [name for name in (*client.list_topics(timeout=10).topics, *groups) if name.startswith("sweep-")]


@pytest.mark.kafka
def test_end_to_end_a_worker_scores_the_backlog_at_each_size(kafka: str, model: Path, tmp_path: Path) -> None:
    arguments = ("--kafka", "--bootstrap-servers", kafka, "--rows", "2000", "--chunk-sizes", "100,500")
    found = document(model, *arguments, *messages(tmp_path), "--seconds", "30")
    assert found["measured"] == "end to end"
    assert [one["chunk_size"] for one in found["chunk_sizes"]] == [100, 500]
    for one in found["chunk_sizes"]:
        assert one["throughput"] > 0
        assert 0 < one["chunk_ms_p50"] <= one["chunk_ms_p99"]
    assert found["recommended"] in (100, 500)
    wait_until(lambda: not leftovers(kafka), what="everything deleted")


@pytest.mark.parametrize(("clean", "accounted", "told"), [(False, 10, 10), (True, 9, 10), (True, 10, 9)])
def test_end_to_end_rows_not_scored_exactly_once_are_an_error(
    monkeypatch: pytest.MonkeyPatch, clean: bool, accounted: int, told: int
) -> None:
    found = SimpleNamespace(clean=clean, messages=10, accounted=accounted)
    monkeypatch.setattr(end_to_end, "audit", lambda _: found)
    monkeypatch.setattr(end_to_end, "_SETTLE_S", 0)
    run: Any = SimpleNamespace(rows=told, read=lambda: None)
    with pytest.raises(end_to_end.NotOnceError, match=f"{accounted} of 10 consumed rows .* reports {told}"):
        end_to_end._check(Settings(chunk_size=50), run)


@pytest.mark.kafka
def test_end_to_end_a_worker_that_fails_leaves_nothing_behind(kafka: str, tmp_path: Path) -> None:
    model = save(LogisticRegression(), tmp_path / "m.joblib", FEATURES)
    rows = tmp_path / "rows.csv"
    rows.write_text("patient_id,event_time,heart_rate,spo2\np,2026-01-05T08:30:00,80,\n")
    arguments = ("--kafka", "--bootstrap-servers", kafka, "--data", str(rows), "--chunk-sizes", "50")
    with pytest.raises(WorkerError, match="exited with code 1"):
        sweep(model, *QUICK, *arguments)
    wait_until(lambda: not leftovers(kafka), what="everything deleted")


@pytest.mark.kafka
def test_end_to_end_ctrl_c_cleans_up(kafka: str, model: Path) -> None:
    arguments = ("--kafka", "--bootstrap-servers", kafka, "--rows", "2000", "--chunk-sizes", "100")
    with Running("sweep", "--model", str(model), *arguments) as running:
        wait_until(lambda: leftovers(kafka), timeout=90, what="topics made")
        running.process.send_signal(signal.SIGINT)
        assert running.end() == 0, running.err
    assert "stopped before anything was measured" in running.out
    wait_until(lambda: not leftovers(kafka), what="everything deleted")
