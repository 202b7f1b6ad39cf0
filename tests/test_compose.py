"""compose.yaml and Dockerfile, as far as they can be checked without Docker."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from broker.jars import KAFKA_VERSION
from broker.options import OPTIONS
from broker.settings import ENV_PREFIX

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def services() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((ROOT / "compose.yaml").read_text())["services"]
    return found


@pytest.fixture(scope="module")
def dockerfile() -> str:
    return (ROOT / "Dockerfile").read_text()


def test_compose_runs_the_kafka_version_of_the_tests(services: dict[str, Any]) -> None:
    assert services["kafka"]["image"] == f"apache/kafka:${{KAFKA_VERSION:-{KAFKA_VERSION}}}"


def test_every_image_has_a_version(services: dict[str, Any], dockerfile: str) -> None:
    images = [service["image"] for service in services.values()]
    images += re.findall(r"^ARG \w*IMAGE=(\S+)", dockerfile, re.MULTILINE)
    assert all(re.search(r":(\$\{\w+:-)?\d", image) for image in images), images


def test_every_environment_variable_is_a_setting(services: dict[str, Any]) -> None:
    names = {name for one in services.values() for name in one["environment"] if name.startswith(ENV_PREFIX)}
    assert names
    assert {name.removeprefix(ENV_PREFIX).lower() for name in names} <= {*OPTIONS, "kafka"}


@pytest.mark.parametrize(
    "name", ["worker", "worker-tls", "replay", "watch", "topics", "model", "certificate"]
)
def test_our_services_have_no_unneeded_privileges(services: dict[str, Any], name: str) -> None:
    service = services[name]
    assert service["read_only"]
    assert service["cap_drop"] == ["ALL"]
    assert "user" not in service


def test_workers_have_time_to_stop(services: dict[str, Any]) -> None:
    assert services["worker"]["stop_grace_period"] == "15s"
    assert services["worker"]["deploy"]["replicas"] == 2


def test_a_worker_with_tls_trusts_its_brokers_certificate(services: dict[str, Any]) -> None:
    worker, broker, made = services["worker-tls"], services["kafka"], services["certificate"]
    assert worker["profiles"] == ["tls"]
    address = worker["environment"]["VITALSTREAM_BOOTSTRAP_SERVERS"]
    assert f"TLS://{address}" in broker["environment"]["KAFKA_ADVERTISED_LISTENERS"]
    assert f"subjectAltName=DNS:{address.partition(':')[0]} " in made["command"][0]
    kafka = json.loads(worker["environment"]["VITALSTREAM_KAFKA"])
    assert kafka == {"security.protocol": "SSL", "ssl.ca.location": "/tls/public/ca.pem"}
    # An empty volume takes its owner and content from wherever it is mounted first, so both must mount the
    # same.
    assert "authority:/tls/public:ro" in worker["volumes"]
    assert "authority:/tls/public" in made["volumes"]


def test_only_the_broker_has_its_key(services: dict[str, Any]) -> None:
    holders = {
        name
        for name, one in services.items()
        if any(volume.startswith("broker-key:") for volume in one["volumes"])
    }
    assert holders == {"kafka", "certificate"}


def test_only_this_machine_reaches_the_broker(services: dict[str, Any]) -> None:
    assert all(port.startswith("127.0.0.1:") for port in services["kafka"]["ports"])


def test_the_image_is_not_root_and_passes_signals_to_the_command(dockerfile: str) -> None:
    assert re.search(r"^USER 1\d+:1\d+$", dockerfile, re.MULTILINE)
    assert re.search(r'^ENTRYPOINT \["vitalstream"\]$', dockerfile, re.MULTILINE)


def test_the_image_contains_every_package_of_the_wheel() -> None:
    wheel = re.search(r"^packages = \[(.*)\]$", (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    assert wheel
    kept = (ROOT / ".dockerignore").read_text().split()
    assert {f"!{name}" for name in re.findall(r'"(\w+)"', wheel.group(1))} <= {*kept}
