"""What an audit can't judge because records were deleted or models were not given."""

from collections import Counter
from dataclasses import dataclass
from enum import StrEnum

from audit.findings import NAMED, Invariant
from broker.topics import Cleanup
from schemas.printable import printable


class Cause(StrEnum):
    """Why records are gone from a topic, as far as can be determined, or that a model was not given."""

    COMPACTED = "compacted"
    EXPIRED = "deleted by retention or by hand"
    BY_HAND = "deleted by hand"
    DELETED = "deleted"
    HIDDEN = "hidden"
    NO_MODEL = "model not given"


@dataclass(frozen=True, slots=True)
class Unjudged:
    """How many records or messages a claim could not be judged for, and the topic they or missing records belong to."""

    invariant: Invariant
    topic: str
    cause: Cause
    count: int
    sentence: str


def cause_of(cleanup: Cleanup | None, *, cut: bool) -> Cause:
    """Why records of a topic are gone; `cut` means that its oldest records were deleted."""
    if not cut:
        return Cause.HIDDEN if cleanup is None else Cause.COMPACTED
    if cleanup is None:
        return Cause.DELETED
    return Cause.EXPIRED if cleanup.expires else Cause.BY_HAND


def without_message(topic: str, cause: Cause, count: int) -> Unjudged:
    """Results and dead letters whose messages are gone."""
    what = _counted(count, "result or dead letter", "results and dead letters")
    its = "its message was" if count == 1 else "their messages were"
    why = {
        Cause.COMPACTED: f"{its} removed from {topic}, which is compacted",
        Cause.HIDDEN: f"{topic} may be compacted, {_HIDDEN}",
    }.get(cause, f"{its} {cause} from {topic}")
    return Unjudged(Invariant.GENUINE, topic, cause, count, f"{what} could not be judged: {why}")


def without_output(topic: str, cause: Cause, count: int) -> Unjudged:
    """Messages that have no output, and may have had one in `topic`."""
    what = _counted(count, "message", "messages")
    has = "it has" if count == 1 else "they have"
    why = f"{has} neither a result nor a dead letter, and {_state(topic, cause)}"
    return Unjudged(Invariant.COMPLETE, topic, cause, count, f"{what} could not be judged: {why}")


def without_chunk(topic: str, cause: Cause, count: int) -> Unjudged:
    """Results and dead letters that are in no chunk, and may have been in one of the metrics topic."""
    what = _counted(count, "result or dead letter", "results and dead letters")
    why = f"no remaining chunk names {'it' if count == 1 else 'them'}, and {_state(topic, cause)}"
    return Unjudged(Invariant.ATOMIC, topic, cause, count, f"{what} could not be judged: {why}")


def without_model(topic: str, unknown: Counter[str]) -> Unjudged:
    """Results by models whose files were not given, counted by the hash of the model."""
    count = unknown.total()
    what = _counted(count, "result", "results")
    hashes = [f"{printable(sha256, 64)} ({results:,})" for sha256, results in unknown.most_common(NAMED)]
    more = f" and {len(unknown) - NAMED:,} more" if len(unknown) > NAMED else ""
    files = "the file of the model" if len(unknown) == 1 else "the files of the models"
    why = f"give {files} {', '.join(hashes)}{more} with one more --model each"
    return Unjudged(Invariant.CORRECT, topic, Cause.NO_MODEL, count, f"{what} could not be judged: {why}")


def letters_without_model(topic: str, count: int) -> Unjudged:
    """Dead letters that none of the given models confirms."""
    what = _counted(count, "dead letter", "dead letters")
    why = "they do not match the given models, but another model has scored, too"
    return Unjudged(Invariant.CORRECT, topic, Cause.NO_MODEL, count, f"{what} could not be judged: {why}")


def scores_without_past(topic: str, cause: Cause, count: int) -> Unjudged:
    """Results and dead letters of a model with a history that differ from what the remaining messages produce."""
    what = _counted(count, "result or dead letter", "results and dead letters")
    why = f"the patients' state depends on messages, and {_state(topic, cause)}"
    return Unjudged(Invariant.CORRECT, topic, cause, count, f"{what} could not be judged: {why}")


def states_without_past(topic: str, cause: Cause, count: int) -> Unjudged:
    """Patients' states that differ from what the remaining messages produce."""
    what = _counted(count, "patient's state", "patients' states")
    why = f"{'it depends' if count == 1 else 'they depend'} on messages, and {_state(topic, cause)}"
    return Unjudged(Invariant.STATE, topic, cause, count, f"{what} could not be judged: {why}")


def states_overwritten(topic: str, count: int) -> Unjudged:
    """States whose records are gone because newer ones replaced them."""
    what = _counted(count, "patient's state", "patients' states")
    why = f"{topic} received newer records and was compacted meanwhile; run the audit again"
    return Unjudged(Invariant.STATE, topic, Cause.COMPACTED, count, f"{what} could not be judged: {why}")


def nothing_left(topic: str, cause: Cause) -> Unjudged:
    """Nothing remains of what the group consumed, neither messages nor results."""
    sentence = f"nothing could be judged: all messages that the group consumed were {cause} from {topic}"
    return Unjudged(Invariant.COMPLETE, topic, cause, 0, sentence)


_HIDDEN = "which this user may not see (DESCRIBE_CONFIGS)"


def _state(topic: str, cause: Cause) -> str:
    return {
        Cause.COMPACTED: f"{topic} is compacted",
        Cause.HIDDEN: f"{topic} may be compacted, {_HIDDEN}",
    }.get(cause, f"the oldest records of {topic} were {cause}")


def _counted(count: int, one: str, many: str) -> str:
    return f"{count:,} {one if count == 1 else many}"
