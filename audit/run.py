"""The audit: a snapshot of offsets, one pass over each topic, and the conclusions."""

import gc
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

from audit.cluster import Cluster
from audit.conclusions import Conclusions
from audit.findings import Findings
from audit.outcome import Audit
from audit.passes import Passes
from audit.published import Published
from audit.reading import BATCH, OnProgress
from audit.snapshot import Snapshot, take_snapshot
from broker.errors import SettingsError
from broker.roles import Role
from broker.settings import Settings
from schemas.decoding import make_decoder
from schemas.presence import require_min_features

if TYPE_CHECKING:
    from audit.model import OfflineModel
    from audit.saved import SavedState
    from schemas.vitals import Decoder

PATIENCE_S: Final = 25.0
"""A dead worker's transaction expires after 10 s, and brokers check for expired ones every 10 s."""


def audit(
    settings: Settings,
    *,
    models: Sequence[Path] = (),
    saved_state: Path | None = None,
    on_progress: OnProgress = lambda _: None,
    patience: float = PATIENCE_S,
) -> Audit:
    """Judge what the group of `settings` has consumed; workers may keep running.

    Each result is compared with the one of `models` that it names; without any, with the model of `settings`.
    A model with a history begins with the `saved_state`, where the input's first messages are gone.
    `patience` is how many seconds a transaction may stay open before it counts as hanging.

    Raises:
        SettingsError: a model or the saved state can't be used.
        BrokerError: the brokers can't be reached, or a topic is missing.
        NotAuditableError: the group has consumed nothing, or the topics can't be read.
    """
    began = time.monotonic()
    offline = _offline(settings, models)
    findings = Findings()
    state = [settings.topic(Role.STATE)] if any(model.recipe_sha256 for model, _ in offline) else []
    cluster = Cluster(settings, patience=patience, topics=[*settings.topics, *state])
    snapshot = take_snapshot(settings, cluster, findings)
    saved = None if saved_state is None else _saved(saved_state, settings, offline, cluster, snapshot)
    passes = Passes(settings, snapshot, cluster, findings, on_progress)
    with ExitStack() as stack, _patient_collector():
        published = stack.enter_context(_published(snapshot.scope.size, offline))
        passes.read_outputs(published)
        passes.read_input(offline, published, saved)
        passes.read_chunks()
        last_committed = cluster.committed() or cluster.last_committed()
        passes.count_aborted()
        passes.count_waiting(last_committed)
    conclusions = Conclusions(settings, snapshot, cluster, findings, passes)
    conclusions.check_sets()
    conclusions.check_models(published)
    conclusions.check_past()
    conclusions.check_committed(last_committed)
    return conclusions.conclude(seconds=time.monotonic() - began)


@contextmanager
def _patient_collector() -> Iterator[None]:
    """Run the garbage collector only after more than a batch has piled up.

    Messages form no cycles, and searching the objects of every batch for cycles takes longer than reading them.
    """
    usual = gc.get_threshold()
    gc.set_threshold(10 * BATCH, *usual[1:])
    try:
        yield
    finally:
        gc.set_threshold(*usual)


def _published(size: int, offline: "Sequence[tuple[OfflineModel, Decoder]]") -> Published:
    mapping = offline[0][1].mapping if offline else None  # the same for all: the settings name one
    return Published(size, models=[model.sha256 for model, _ in offline], mapping=mapping)


def _saved(
    path: Path,
    settings: Settings,
    offline: "Sequence[tuple[OfflineModel, Decoder]]",
    cluster: Cluster,
    snapshot: Snapshot,
) -> "SavedState":
    from audit.saved import load_state
    from real_time.history.records import StateRecords

    history = next((one.scorer.history for one, _ in reversed(offline) if one.scorer.history), None)
    if history is None:
        raise SettingsError("--state-snapshot needs --model, a model with a history")
    saved = load_state(path, StateRecords(history.start().layout, history.recipe_sha256))
    if saved.input_topic != settings.input_topic or saved.topic_id != cluster.topic_id():
        raise SettingsError(
            f"--state-snapshot: {path} belongs to another topic than {settings.input_topic}, or to an earlier one of "
            f"that name: {saved.input_topic}"
        )
    if any(offset > snapshot.committed.get(partition, 0) for partition, offset in saved.offsets.items()):
        raise SettingsError(
            f"--state-snapshot: {path} is later than the committed offsets of group {settings.group}: give an "
            "earlier one"
        )
    return saved


def _offline(settings: Settings, models: Sequence[Path]) -> "list[tuple[OfflineModel, Decoder]]":
    """The models to compare with, each once, and their decoders."""
    paths = models or ([] if settings.model is None else [settings.model])
    if not paths:
        return []
    from audit.model import load_offline  # imports scikit-learn, which is slow and not needed without models

    found = {}
    for path in paths:
        model = load_offline(path, **settings.of_model)
        decode = make_decoder(settings, model)  # fails here, before anything is read
        require_min_features(settings.min_features, model.features)
        found[model.sha256] = model, decode
    return [*found.values()]
