"""Each snippet of the documentation runs as written."""

from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import LogisticRegression

from real_time import Classifier, pin_model, stream_dataframe
from real_time.inference import load_model  # the documentation calls it without importing it

COMPARING = """
from real_time.streaming import compare_batch_vs_streaming

def process_fn(df):
    # Your processing logic
    return model.predict_proba(df)[:, 1]

metrics = compare_batch_vs_streaming(
    df=patient_data,
    process_fn=process_fn,
    chunk_size=100
)

print(f"Batch time: {metrics['batch_time_s']:.2f}s")
print(f"Stream latency per row: {metrics['stream_latency_ms_per_row']:.2f}ms")
print(f"Throughput: {metrics['stream_throughput_rows_per_s']:.0f} rows/s")
"""

CHUNKS = """
from real_time.streaming import stream_dataframe

# Stream data in chunks of 50 rows
for chunk in stream_dataframe(df, chunk_size=50):
    # Process each chunk independently
    results = model.predict(chunk)
"""

METRICS = """
from real_time.streaming import process_stream, StreamMetrics

def risk_assessment(chunk):
    return model.predict_proba(chunk)[:, 1]

results, metrics = process_stream(
    df=patient_data,
    chunk_size=100,
    process_fn=risk_assessment
)

print(f"Latency: {metrics.latency_ms:.2f}ms per row")
print(f"Throughput: {metrics.throughput_rows_per_s:.0f} rows/s")
"""

INFERENCE = """
from real_time.inference import run_streaming_inference
import pandas as pd

# Load your trained model
model = load_model('risk_predictor.pkl')

# Patient features
X = pd.DataFrame({
    'age': [45, 62, 38],
    'blood_pressure': [120, 145, 110],
    'heart_rate': [72, 88, 65]
})

# Run streaming inference
results = run_streaming_inference(
    X=X,
    model=model,
    chunk_size=100
)

print(results)
"""

CHUNK_SIZE = """
import time
import pandas as pd
from real_time.streaming import process_stream

def benchmark_chunk_size(df, model, chunk_sizes):
    results = []
    for chunk_size in chunk_sizes:
        start = time.perf_counter()
        _, metrics = process_stream(
            df=df,
            chunk_size=chunk_size,
            process_fn=lambda x: model.predict_proba(x)[:, 1]
        )
        results.append({
            'chunk_size': chunk_size,
            'latency_ms': metrics.latency_ms,
            'throughput': metrics.throughput_rows_per_s
        })
    return pd.DataFrame(results)

# Test different chunk sizes
optimization = benchmark_chunk_size(
    df=patient_data,
    model=risk_model,
    chunk_sizes=[10, 50, 100, 500, 1000]
)

print(optimization)
"""


@pytest.fixture
def given_names(model: Classifier, patients: pd.DataFrame) -> dict[str, Any]:
    """The names that the documentation takes for granted."""
    many = pd.concat([patients] * 5, ignore_index=True)
    return {"model": model, "risk_model": model, "patient_data": many, "df": many, "load_model": load_model}


def run(snippet: str, names: dict[str, Any]) -> dict[str, Any]:
    exec(compile(snippet, "documentation", "exec"), names)
    return names


def test_comparing_performance(given_names: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    metrics = run(COMPARING, given_names)["metrics"]
    assert [line.partition(":")[0] for line in capsys.readouterr().out.splitlines()] == [
        "Batch time",
        "Stream latency per row",
        "Throughput",
    ]
    assert min(metrics.values()) > 0
    assert set(metrics) == {
        "batch_time_s",
        "stream_time_s",
        "stream_latency_ms_per_row",
        "stream_throughput_rows_per_s",
    }


def test_chunk_based_processing(given_names: dict[str, Any]) -> None:
    names = run(CHUNKS, given_names)
    last = list(stream_dataframe(names["df"], 50))[-1]
    assert (names["results"] == names["model"].predict(last)).all()


def test_processing_with_metrics(given_names: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    names = run(METRICS, given_names)
    expected = names["model"].predict_proba(names["patient_data"])[:, 1]
    assert names["results"]["result"].tolist() == expected.tolist()
    assert type(names["metrics"]) is names["StreamMetrics"]
    assert capsys.readouterr().out.startswith("Latency: ")


def test_real_time_inference_pipeline(
    given_names: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    fitted_on = np.random.default_rng(0).uniform(50, 150, (40, 3))
    X = pd.DataFrame(fitted_on, columns=["age", "blood_pressure", "heart_rate"])
    joblib.dump(LogisticRegression().fit(X, np.arange(40) % 2), tmp_path / "risk_predictor.pkl")
    pin_model(tmp_path / "risk_predictor.pkl")
    monkeypatch.chdir(tmp_path)

    results = run(INFERENCE, given_names)["results"]
    assert results.index.tolist() == [0, 1, 2]
    header, *rows = capsys.readouterr().out.splitlines()
    assert header.split() == ["risk_probability", "risk_label"]
    assert [row.split()[0] for row in rows] == ["0", "1", "2"]
    assert {row.split()[2] for row in rows} <= {"0", "1"}


def test_choosing_a_chunk_size(given_names: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    table = run(CHUNK_SIZE, given_names)["optimization"]
    assert capsys.readouterr().out.split()[:3] == ["chunk_size", "latency_ms", "throughput"]
    assert table["chunk_size"].tolist() == [10, 50, 100, 500, 1000]

    from_the_package = "from real_time.streaming import benchmark_chunk_size\n"
    ours = run(from_the_package + CHUNK_SIZE[CHUNK_SIZE.index("# Test") :], given_names)["optimization"]
    assert list(ours) == list(table)
    assert ours["chunk_size"].tolist() == table["chunk_size"].tolist()
