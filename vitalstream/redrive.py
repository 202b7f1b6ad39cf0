"""`vitalstream dead-letters replay`: replays dead letters and reports the outcome by kind."""

from collections.abc import Collection, Iterator
from typing import Any, Final

import pandas as pd
import typer

from broker.errors import VitalstreamError
from broker.settings import Settings
from consumer import model as models
from consumer.errors import ModelFailedError
from consumer.scoring import Bools, score
from consumer.stop import Stop
from producer.letters import Selection
from producer.redrive import Judge, Obstacle, Redriven, redrive
from real_time.inference import RiskScorer
from schemas.decoding import make_decoder
from schemas.presence import features_present
from schemas.printable import printable
from vitalstream.dead_letters import print_json

_WORDS: Final = {
    Obstacle.STILL_REJECTED: "would be rejected again",
    Obstacle.NEEDS_MODEL: "can't be judged without the model: give --model",
    Obstacle.RESULT_TOO_LARGE: "its result did not fit into the risk topic",
    Obstacle.GONE: "too large to keep here, and no longer on the input topic",
    Obstacle.TOO_LARGE: "does not fit into the input topic",
}


class NotReplayedError(VitalstreamError):
    """Some of the selected dead letters were not replayed."""


def replay(settings: Settings, selection: Selection, *, force: bool, dry_run: bool, json: bool) -> None:
    """Replay the selected letters and print what became of them.

    Raises:
        NotReplayedError: some were not replayed.
    """
    judge = _judge(settings)
    stop = Stop()
    stop.listen(grace=False)
    found = redrive(
        settings,
        selection=selection,
        judge=judge,
        force=force,
        dry_run=dry_run,
        stopped=lambda: stop.requested,
    )
    if json:
        print_json(_summary(found, dry_run=dry_run))
    else:
        typer.echo("\n".join(_lines(found, settings, dry_run=dry_run)))
    if found.left:
        hint = (
            "fix what is wrong with them"
            if force
            else "fix what is wrong with them, or send them with --force"
        )
        raise NotReplayedError(f"{found.left.total():,} dead letters stay where they are; {hint}")


def _judge(settings: Settings) -> Judge:
    """Judges by the model if one is given, else by the standard features."""
    if settings.model is None:
        return Judge(make_decoder(settings))
    model = models.load(settings)
    decode = make_decoder(settings, model)
    least = settings.min_features
    return Judge(decode, refused=lambda frame: _refused(frame, model.scorer, least))


def _refused(frame: pd.DataFrame, scorer: RiskScorer, min_features: int) -> Collection[int]:
    """The rows that the model rejects, asked one at a time: many in one chunk would count as the model's own fault."""
    no_input = features_present(frame) < min_features
    rows = range(len(frame))
    return [frame.index[n] for n in rows if _is_refused(frame.iloc[[n]], scorer, no_input[[n]])]


def _is_refused(row: pd.DataFrame, scorer: RiskScorer, no_input: Bools) -> bool:
    try:
        _, _, rejected = score(row.reset_index(drop=True), scorer, ~no_input, chunk_size=1)
    except ModelFailedError:
        return True
    return bool(rejected)


def _summary(found: Redriven, *, dry_run: bool) -> dict[str, Any]:
    return {
        "dry_run": dry_run,
        "selected": found.selected,
        "replayed": found.replayed,
        "replayed_before": found.before,
        "stopped": found.stopped,
        "left": [
            {"why": why, "reason": reason, "field": field, "letters": count}
            for (why, reason, field), count in found.left.most_common()
        ],
    }


def _lines(found: Redriven, settings: Settings, *, dry_run: bool) -> Iterator[str]:
    done = "would replay" if dry_run else "replayed"
    before = f"; {found.before:,} were before" if found.before else ""
    early = " (stopped early)" if found.stopped else ""
    yield (
        f"{done} {found.replayed:,} of {found.selected:,} dead letters to {settings.input_topic}{early}{before}"
    )
    for (why, reason, field), count in found.left.most_common():
        yield f"  {count:,} {f'{reason} {printable(field)}'.rstrip()}: {_WORDS[why]}"
