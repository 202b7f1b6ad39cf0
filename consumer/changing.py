"""Changes models without a gap: prepares the new one next to the old one, and switches between transactions."""

import contextlib
import gc
import logging
import sys
import threading
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Final, Protocol

from threadpoolctl import threadpool_limits

from broker.errors import SettingsError, VitalstreamError
from broker.settings import Settings
from consumer import model as models
from consumer.chunks import Block
from consumer.names import FIRST_MESSAGES
from consumer.observer import Observer
from consumer.scoring import ChunkScorer
from consumer.sending import Output
from consumer.stop import Hangups
from real_time.usable import Model, files_of

log = logging.getLogger("vitalstream.worker")

LOOK_EVERY_S: Final = 2.0
_SWITCH_S: Final = 0.0005
LEAVE_S: Final = 1.0  # how long an ending worker waits for a model that is being loaded


class MakeScorer(Protocol):
    """Makes a scorer; for a `trial`, one that shares no state with others."""

    def __call__(self, model: Model, observer: Observer, *, trial: bool = False) -> ChunkScorer:
        """A new scorer."""


class ChangingScorer:
    """Scores chunks with the pinned model, and changes it when another one is pinned.

    A separate thread checks the model's files every few seconds and on SIGHUP. It loads a new model and tests it on the
    messages scored last, while the worker keeps scoring. A model that can't be used is refused; the old one stays.
    """

    def __init__(
        self,
        settings: Settings,
        model: Model,
        *,
        make: MakeScorer,
        observer: Observer,
        hangups: Hangups,
    ) -> None:
        self._settings = settings
        self._accepted = model  # the newest one
        self._make = make
        self._observer = observer
        self._hangups = hangups
        self._scorer = make(model, observer)
        self._ready: deque[tuple[Model, ChunkScorer]] = deque(maxlen=1)
        self._recent: tuple[Block, ...] = ()  # replaced, never mutated, because the thread reads it
        self._seen = self._marks()
        self._troubled = False
        self._ending = False

    # --- the worker's thread

    def __call__(self, block: Block, *, lag: int) -> Output:
        """Returns and raises what ChunkScorer does."""
        output = self._scorer(block, lag=lag)
        self._remember(block)
        return output

    def restart(self) -> None:
        """Uncommitted messages will be scored again."""
        self._scorer.restart()

    @property
    def doubts_names(self) -> bool:
        """Whether messages arrived but none has had any of the model's features yet, not even as null."""
        return self._scorer.doubts_names

    def change(self) -> None:
        """Switch to a model that is ready; to be called between two transactions."""
        if self._ready:
            model, self._scorer = self._ready.pop()
            self._observer.model_changed(
                model=model.sha256,
                features=model.features,
                path=model.scorer.path,
                decision=model.scorer.prepared.decision,
            )

    def _remember(self, block: Block) -> None:
        """The last messages, a chunk of them and enough to show whether they have a model's features."""
        kept: list[Block] = []
        last = block.last(max(block.pace.chunk_size, FIRST_MESSAGES))
        for one in (last, *reversed(self._recent)):
            if sum(map(len, kept)) >= FIRST_MESSAGES:
                break
            kept.append(one)
        self._recent = tuple(reversed(kept))

    # --- the other one

    @contextlib.contextmanager
    def watching(self) -> Iterator[None]:
        """Watch the model's files while the block runs."""
        thread = threading.Thread(target=self._watch, daemon=True, name="model")
        thread.start()
        try:
            yield
        finally:
            self._ending = True
            self._hangups.ring()
            thread.join(LEAVE_S)

    def look(self, *, again: bool = False) -> None:
        """Prepare the currently pinned model if it differs from the current one. Never raises.

        Files that were checked before are checked again only if they were replaced, or with `again`.
        """
        marks = self._marks()
        if self._ready or (marks == self._seen and not again):
            return
        self._seen = marks
        try:
            with _in_the_background():
                self._prepare()
        except models.HalfReplacedError as error:
            self._troubled = True
            self._observer.model_awaited(str(error))
        except VitalstreamError as error:
            self._refuse(str(error))
        except (
            Exception
        ) as error:  # a model's own code may raise anything; its text may contain a patient's values
            self._refuse(f"preparing it failed with {type(error).__name__}")

    def _watch(self) -> None:
        while not self._ending:
            again = self._hangups.wait(LOOK_EVERY_S)
            if not self._ending:
                self.look(again=again)

    def _prepare(self) -> None:
        model = models.load_if_changed(self._settings, self._accepted)
        if model is not None:
            _require_same_past(self._accepted, model)
            self._try(model)
            scorer = self._make(model, self._observer)
            models.warn_of(model)
            self._observer.model_ready(model=model.sha256, path=model.scorer.path)
            self._accepted = model
            self._ready.append((model, scorer))
        elif self._troubled:
            self._observer.model_kept()
        self._troubled = False

    def _try(self, model: Model) -> None:
        """Score the last messages again. After the change, a failure on them would end the worker."""
        trial = self._make(model, Observer(), trial=True)
        try:
            for block in self._recent:
                trial(block, lag=0)
        except VitalstreamError as error:
            # The text after the semicolon only applies to a worker that has ended.
            raise SettingsError(str(error).partition(";")[0]) from None

    def _refuse(self, why: str) -> None:
        self._troubled = True
        self._observer.model_refused(why)

    def _marks(self) -> list[tuple[int, int, int] | None]:
        return [] if self._settings.model is None else [*map(_mark, files_of(self._settings.model))]


def _require_same_past(old: Model, new: Model) -> None:
    """Refuse another recipe: the patients' state belongs to one recipe, from the group's start onwards."""
    recipes = [one.history and one.history.recipe_sha256 for one in (old, new)]
    if recipes[0] != recipes[1]:
        was, is_ = (f"a history of recipe {one[:12]}" if one else "no history" for one in recipes)
        raise SettingsError(
            f"it has {is_}, but the current model has {was}: the patients' state can't be carried over; score "
            "with it in another --group with its own output topics"
        )


@contextlib.contextmanager
def _in_the_background() -> Iterator[None]:
    """Keep another thread's work from holding up the worker's thread.

    Each Kafka call of the worker lets the other thread run and then waits for its turn: up to 5 ms by default, about
    ten times per transaction. Garbage collection is off meanwhile, and what is loaded by then is later exempt from it,
    as at start-up (see work.Beginning): a collection took up to 200 ms and caused most of the longest gap in a change.
    OpenMP, used by scikit-learn's boosting, limits threads per calling thread, so the worker's limit does not apply to
    this one.
    """
    usual = sys.getswitchinterval()
    gc.disable()
    sys.setswitchinterval(_SWITCH_S)
    try:
        with threadpool_limits(limits=1):
            yield
    finally:
        sys.setswitchinterval(usual)
        gc.freeze()
        gc.enable()


def _mark(file: Path) -> tuple[int, int, int] | None:
    """A value that changes when a file is replaced; None if there is no file."""
    try:
        found = file.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino
