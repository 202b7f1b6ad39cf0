"""The Helm chart, rendered by Helm and checked against the schemas of its resources. No cluster is needed."""

import json
import re
import shutil
import subprocess
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

import jsonschema
import kubernetes_validate
import pytest
import yaml

from broker.settings import ENV_PREFIX, Settings, load_settings
from tests.test_compose import dockerfile  # noqa: F401

OPS = Path(__file__).parent.parent / "ops" / "helm"
CHART = OPS / "vitalstream"
VALUES = {path.stem: path for path in sorted((OPS / "values").glob("*.yaml"))}
# The oldest version the chart supports, and the newest whose schemas are available.
KUBERNETES: Final = ("1.27", "1.37")

# Values whose contents the chart's schema leaves to Kubernetes or to the worker.
FREE: Final = {"resources", "settings"}

Resources = dict[str, dict[str, Any]]


def _object(required: str, **properties: Any) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": properties,
        "required": required.split(),
        "additionalProperties": False,
    }


_TEXT: Final = {"type": "string"}
_COUNT: Final = {"type": "integer"}
_LABELS: Final = {"type": "object", "additionalProperties": _TEXT}
_METADATA: Final = _object("name labels", name=_TEXT, labels=_LABELS)
# What the chart uses of these two resources, as their operators define them; no pip package contains their
# schemas.
OPERATORS: Final = {
    "PodMonitor": _object(
        "apiVersion kind metadata spec",
        apiVersion={"const": "monitoring.coreos.com/v1"},
        kind=_TEXT,
        metadata=_METADATA,
        spec=_object(
            "selector podMetricsEndpoints",
            jobLabel=_TEXT,
            selector=_object("matchLabels", matchLabels=_LABELS),
            podMetricsEndpoints={
                "type": "array",
                "items": _object(
                    "port path",
                    port=_TEXT,
                    path=_TEXT,
                    interval={"type": "string", "pattern": "^([0-9]+(ms|s|m|h))+$"},
                ),
            },
        ),
    ),
    "ScaledObject": _object(
        "apiVersion kind metadata spec",
        apiVersion={"const": "keda.sh/v1alpha1"},
        kind=_TEXT,
        metadata=_METADATA,
        spec=_object(
            "scaleTargetRef triggers",
            scaleTargetRef=_object("name", apiVersion=_TEXT, kind=_TEXT, name=_TEXT),
            minReplicaCount=_COUNT,
            maxReplicaCount=_COUNT,
            pollingInterval=_COUNT,
            advanced=_object(
                "",
                horizontalPodAutoscalerConfig=_object(
                    "",
                    behavior=_object("", scaleDown=_object("", stabilizationWindowSeconds=_COUNT)),
                ),
            ),
            triggers={
                "type": "array",
                "items": _object(
                    "type metadata",
                    type={"const": "kafka"},
                    metadata=_object(
                        "bootstrapServers consumerGroup topic",
                        bootstrapServers=_TEXT,
                        consumerGroup=_TEXT,
                        topic=_TEXT,
                        lagThreshold=_TEXT,
                        offsetResetPolicy={"enum": ["latest", "earliest"]},
                        version=_TEXT,
                        tls={"enum": ["enable", "disable"]},
                    ),
                    authenticationRef=_object("name", name=_TEXT),
                ),
            },
        ),
    ),
}


def helm(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    program = shutil.which("helm")
    if program is None:
        pytest.skip("the chart can't be rendered: install Helm 3, or Go so that `make tools` can build it")
    command = [program, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def template(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return helm("template", "icu", CHART, "--kube-version", KUBERNETES[-1], *arguments)


def render(*arguments: str | Path) -> Resources:
    """The chart's resources by kind; there is at most one of each."""
    done = template(*arguments)
    assert done.returncode == 0, done.stderr
    found = [one for one in yaml.safe_load_all(done.stdout) if one]
    assert len({one["kind"] for one in found}) == len(found)
    return {one["kind"]: one for one in found}


def refusal(*arguments: str | Path) -> str:
    done = template("--values", VALUES["minimal"], *arguments)
    assert done.returncode != 0
    return done.stderr


@pytest.fixture(scope="module", params=VALUES)
def resources(request: pytest.FixtureRequest) -> Resources:
    return render("--values", VALUES[request.param])


@pytest.fixture(scope="module")
def production() -> Resources:
    return render("--values", VALUES["production"])


@pytest.fixture(scope="module")
def autoscaled() -> Resources:
    return render("--values", VALUES["autoscaled"])


def pod(resources: Resources) -> dict[str, Any]:
    found: dict[str, Any] = resources["StatefulSet"]["spec"]["template"]["spec"]
    return found


def worker(resources: Resources) -> dict[str, Any]:
    (found,) = pod(resources)["containers"]
    return dict(found)


def settings_of(resources: Resources, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """The settings as the worker in the pod icu-vitalstream-1 reads them."""
    for variable in worker(resources)["env"]:
        monkeypatch.setenv(variable["name"], variable.get("value", "icu-vitalstream-1"))
    config, secrets = tmp_path / "vitalstream.toml", tmp_path / "secrets"
    secrets.mkdir()
    (secrets / "sasl.password").write_text("s3cret\n")
    text = resources["ConfigMap"]["data"]["vitalstream.toml"]
    config.write_text(text.replace("/etc/vitalstream/secrets", str(secrets)))
    return load_settings(config=config)


def test_there_are_three_sets_of_values() -> None:
    assert [*VALUES] == ["autoscaled", "minimal", "production"]


@pytest.mark.parametrize("name", VALUES)
def test_helm_finds_nothing_wrong(name: str) -> None:
    done = helm("lint", "--strict", CHART, "--values", VALUES[name])
    assert done.returncode == 0, done.stdout + done.stderr


def test_kubernetes_knows_every_field(resources: Resources) -> None:
    for one in resources.values():
        if one["kind"] in OPERATORS:
            jsonschema.validate(one, OPERATORS[one["kind"]])
        else:
            for version in KUBERNETES:
                kubernetes_validate.validate(one, version, strict=True)


def test_an_unknown_field_would_be_noticed(autoscaled: Resources) -> None:
    for one in autoscaled.values():
        broken = json.loads(json.dumps(one))
        broken["spec" if "spec" in broken else "metadata"]["replikas"] = 2
        with pytest.raises(jsonschema.ValidationError):
            test_kubernetes_knows_every_field({broken["kind"]: broken})


def test_selectors_match_the_pods(resources: Resources) -> None:
    labels = resources["StatefulSet"]["spec"]["template"]["metadata"]["labels"].items()
    selectors = [
        resources["Service"]["spec"]["selector"],
        *(
            resources[kind]["spec"]["selector"]["matchLabels"]
            for kind in ("StatefulSet", "PodDisruptionBudget", "PodMonitor")
            if kind in resources
        ),
        *(one["labelSelector"]["matchLabels"] for one in pod(resources)["topologySpreadConstraints"]),
    ]
    assert all(labels >= selector.items() for selector in selectors)
    assert resources["StatefulSet"]["spec"]["serviceName"] == resources["Service"]["metadata"]["name"]


def test_no_container_has_unneeded_privileges(resources: Resources) -> None:
    spec = pod(resources)
    assert spec["securityContext"]["runAsNonRoot"]
    assert spec["securityContext"]["seccompProfile"]["type"] == "RuntimeDefault"
    assert spec["automountServiceAccountToken"] is False
    for container in [*spec["containers"], *spec.get("initContainers", [])]:
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
    writable = {one["mountPath"] for one in worker(resources)["volumeMounts"] if not one.get("readOnly")}
    assert writable == {"/tmp"}


def test_the_user_is_the_images(production: Resources, dockerfile: str) -> None:  # noqa: F811
    user = re.search(r"^USER (\d+):(\d+)$", dockerfile, re.MULTILINE)
    assert user
    context = pod(production)["securityContext"]
    assert (context["runAsUser"], context["runAsGroup"]) == (int(user[1]), int(user[2]))


def test_settings_arrive_unchanged(
    production: Resources, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = settings_of(production, tmp_path, monkeypatch)
    assert settings.instance == "icu-vitalstream-1"
    assert (settings.group, settings.threshold, settings.latency_goal_ms) == ("icu", 0.3, 50)
    assert settings.chunk_size == "auto"
    assert settings.kafka["max.poll.interval.ms"] == "300000"
    assert settings.kafka["sasl.password"] == "s3cret"


def test_a_worker_accepts_every_set_of_values(
    resources: Resources, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = settings_of(resources, tmp_path, monkeypatch)
    assert settings.http is not None
    port = int(settings.http.rpartition(":")[2])
    assert worker(resources)["ports"] == [{"name": "http", "containerPort": port}]
    assert {variable["name"].removeprefix(ENV_PREFIX) for variable in worker(resources)["env"]} == {
        "INSTANCE",
        "HTTP",
    }


def test_changed_settings_restart_the_pods() -> None:
    def checksum(*arguments: str) -> str:
        found = render("--values", VALUES["minimal"], *arguments)["StatefulSet"]["spec"]["template"]
        return str(found["metadata"]["annotations"]["checksum/settings"])

    assert checksum() == checksum("--set", "replicas=3")
    assert checksum() != checksum("--set", "settings.chunk_size=50")


def test_secrets_are_mounted_as_files(production: Resources) -> None:
    mounts = {one["name"]: one["mountPath"] for one in worker(production)["volumeMounts"]}
    volumes = {one["name"]: one for one in pod(production)["volumes"]}
    toml = production["ConfigMap"]["data"]["vitalstream.toml"]
    assert volumes["secrets"]["secret"]["secretName"] == "vitalstream-kafka"
    assert f'secrets_dir = "{mounts["secrets"]}"' in toml
    assert f'"ssl.ca.location" = "{mounts["tls"]}/ca.crt"' in toml


def test_a_model_comes_from_a_volume_or_an_image(production: Resources, autoscaled: Resources) -> None:
    volumes = [{one["name"]: one for one in pod(each)["volumes"]} for each in (production, autoscaled)]
    assert volumes[0]["model"]["persistentVolumeClaim"]["claimName"] == "models"
    assert "initContainers" not in pod(production)
    (copy,) = pod(autoscaled)["initContainers"]
    assert copy["command"] == ["cp", "-R", "/models/.", copy["volumeMounts"][0]["mountPath"] + "/"]
    assert copy["volumeMounts"][0]["name"] == "model"
    assert "emptyDir" in volumes[1]["model"]


def test_only_keda_sets_the_number_of_workers(production: Resources, autoscaled: Resources) -> None:
    assert production["StatefulSet"]["spec"]["replicas"] == 4
    assert "replicas" not in autoscaled["StatefulSet"]["spec"]
    scaled = autoscaled["ScaledObject"]["spec"]
    assert scaled["scaleTargetRef"]["name"] == autoscaled["StatefulSet"]["metadata"]["name"]
    trigger = scaled["triggers"][0]["metadata"]
    assert (trigger["consumerGroup"], trigger["topic"]) == ("icu", "icu-vitals")
    assert trigger["tls"] == "enable"


def test_keda_watches_the_topic_a_worker_reads_by_default() -> None:
    defaults = Settings()
    scaled = render("--values", VALUES["minimal"], "--set", "keda.enabled=true")["ScaledObject"]["spec"]
    trigger = scaled["triggers"][0]["metadata"]
    assert (trigger["consumerGroup"], trigger["topic"]) == (defaults.group, defaults.input_topic)
    assert "tls" not in trigger


@pytest.mark.parametrize(
    ("given", "named"),
    [
        (("--set", "settings.model="), "/settings/model"),
        (("--set", "settings.bootstrap_servers="), "/settings/bootstrap_servers"),
        (("--set", "settings.kafka.sasl\\.password=s3cret"), "sasl.password"),
        (("--set", "settings.instance=one"), "instance"),
        (("--set", "settings.chunkSize=100"), "chunkSize"),
        (("--set", "keda.minReplicas=0"), "/keda/minReplicas"),
        (("--set", "replica=3"), "replica"),
        (("--set", "model.image.reference=a,model.volume.emptyDir.medium=Memory"), "/model/volume"),
    ],
)
def test_values_that_cannot_work_are_refused_by_name(given: tuple[str, str], named: str) -> None:
    message = refusal(*given)
    assert named in message
    assert "s3cret" not in message


def test_every_value_is_explained_and_in_the_schema() -> None:
    lines = (CHART / "values.yaml").read_text().splitlines()
    schema = json.loads((CHART / "values.schema.json").read_text())
    path: list[str] = []
    for above, line in pairwise(lines):
        key = re.match(r"( *)(\w+):", line)
        if key is None:
            continue
        path[len(key[1]) // 2 :] = [key[2]]
        found: Any = schema
        for name in path:
            found = found.get("properties", {}).get(name) if found else None
        assert found or path[0] in FREE, f"{'.'.join(path)} is not in the schema"
        is_leaf = not line.rstrip().endswith(":")
        assert not is_leaf or above.strip().startswith("#"), f"{'.'.join(path)} has no comment"
