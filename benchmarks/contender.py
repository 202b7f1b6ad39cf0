"""The contenders: what each one is, how it is started, and how much of it users write themselves."""

import ast
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from benchmarks import peers
from benchmarks.cluster import PARTITIONS, Cluster
from broker.local import free_port
from schemas.contract import STANDARD_FEATURES

PROGRAMS: Final = Path(__file__).parent / "contenders"
EXACTLY: Final = "exactly once"
AT_LEAST: Final = "at least once"

# Messages that a throughput run needs, a few seconds' worth for each.
SLOW, MEDIUM, FAST, FASTEST = 2_000, 30_000, 200_000, 600_000


@dataclass(frozen=True, eq=False)  # compared and hashed by identity
class Contender:
    """A program in contenders/, or the worker if `program` is empty."""

    name: str
    program: str
    guarantee: str
    messages: int
    peer: str = ""  # the name of its environment; empty means vitalstream's own
    options: Mapping[str, str] = field(default_factory=dict)
    environment: Mapping[str, str] = field(default_factory=dict)
    echoes: bool = False  # its results are its messages, unchanged
    scores: bool = True  # its results hold the model's probabilities, unless it echoes

    @property
    def lines(self) -> int:
        """Lines of code that a user writes, without imports, comments and blank lines."""
        if not self.program:
            return 1  # a single command
        own = (PROGRAMS / self.program).read_text()
        shared = (PROGRAMS / "shared.py").read_text() if "score" in _imported(own) else ""
        helpers = (PROGRAMS / "clients.py").read_text() if "clients" in own else ""
        return _code_lines(own) + _code_lines(shared, only="score") + _code_lines(helpers)

    @property
    def version(self) -> str:
        """The peer's package and version."""
        return peers.versions_of(self.peer) if self.peer else ""


@dataclass(frozen=True)
class Work:
    """The settings a contender gets."""

    topic: str
    output: str
    group: str
    model: Path
    chunk: int


def command(contender: Contender, cluster: Cluster, work: Work) -> tuple[list[str], dict[str, str]]:
    """The command and environment to start a contender with.

    Raises peers.PeerUnavailableError.
    """
    if not contender.program:
        return _worker(contender, cluster, work), {"PYTHONPATH": str(Path.cwd()), **contender.environment}
    python = peers.python_of(contender.peer) if contender.peer else sys.executable
    path = [PROGRAMS.absolute()] if contender.peer else [Path.cwd(), PROGRAMS.absolute()]
    told = {
        "PYTHONPATH": ":".join(map(str, path)),
        "BENCH_BOOTSTRAP": cluster.bootstrap,
        "BENCH_INPUT": work.topic,
        "BENCH_OUTPUT": work.output,
        "BENCH_GROUP": work.group,
        "BENCH_MODEL": str(work.model),
        "BENCH_CHUNK": str(work.chunk),
        **contender.options,
    }
    if contender.peer == "spark":
        told |= {"BENCH_JARS": peers.spark_jars(), "PYSPARK_PYTHON": python, "SPARK_LOCAL_IP": "127.0.0.1"}
    return [python, str(PROGRAMS.absolute() / contender.program)], told


def _worker(contender: Contender, cluster: Cluster, work: Work) -> list[str]:
    options = {
        "bootstrap-servers": cluster.bootstrap,
        "input-topic": work.topic,
        "output-topic": work.output,
        "metrics-topic": metrics_topic(work.output),
        "dead-letter-topic": dead_letter_topic(work.output),
        "group": work.group,
        "model": str(work.model),
        "chunk-size": str(work.chunk),
        "http": f"127.0.0.1:{free_port()}",
        **contender.options,
    }
    return [
        sys.executable,
        "-m",
        "vitalstream",
        "consume",
        *(
            word
            for name, value in options.items()
            for word in (f"{'-' if name == 'X' else '--'}{name}", value)
        ),
    ]


def metrics_topic(output: str) -> str:
    """The topic for a worker's metrics."""
    return f"{output}-metrics"


def dead_letter_topic(output: str) -> str:
    """The topic for a worker's dead letters."""
    return f"{output}-dead"


def _imported(source: str) -> set[str]:
    nodes = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.ImportFrom)]
    return {alias.name for node in nodes for alias in node.names}


def _code_lines(source: str, *, only: str = "") -> int:
    """Lines that hold code, without imports, docstrings, comments and blank lines."""
    tree = ast.parse(source)
    body = [node for node in tree.body if not only or getattr(node, "name", "") == only]
    skipped: set[int] = set()
    used: set[int] = set()
    for node in (inner for top in body for inner in ast.walk(top)):
        if not isinstance(node, ast.stmt):
            continue
        lines = range(node.lineno, (node.end_lineno or node.lineno) + 1)
        docstring = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
        (skipped if docstring or isinstance(node, ast.Import | ast.ImportFrom) else used).update(lines)
    text = source.splitlines()
    return sum(
        1 for line in used - skipped if text[line - 1].strip() and not text[line - 1].strip().startswith("#")
    )


_100_MS: Final = {"BENCH_COMMIT_MS": "100"}
_AS_WORKER: Final = {"BENCH_COMMIT_MS": "25"}

PASS = Contender("pass-through, 100 ms", "pass_through.py", EXACTLY, FASTEST, options=_100_MS, echoes=True)
PASS_DRAIN = Contender(
    "pass-through per drain", "pass_drain.py", EXACTLY, FASTEST, options=_AS_WORKER, echoes=True
)
BARE = Contender("bare prototype loop", "bare.py", EXACTLY, FASTEST, options=_AS_WORKER)
WORKER = Contender("vitalstream", "", EXACTLY, FASTEST)
WORKER_ALO = Contender(
    "vitalstream, at least once", "", AT_LEAST, FASTEST, options={"delivery": "at-least-once"}
)
WORKER_PYTHON = Contender(
    "vitalstream without the kernel", "", EXACTLY, FASTEST, environment={"VITALSTREAM_NATIVE": "0"}
)
WORKER_PAIR = Contender("vitalstream, two workers", "", EXACTLY, FASTEST, options={"workers": "2"})
NAIVE = Contender("naive, one message", "naive.py", AT_LEAST, SLOW)
TEXTBOOK = Contender("textbook loop", "textbook.py", AT_LEAST, MEDIUM)
QUIX = Contender("Quix Streams", "quix.py", EXACTLY, SLOW, peer="quix")
ARROYO = Contender("Arroyo", "arroyo_batches.py", AT_LEAST, MEDIUM, peer="arroyo")
FAUST = Contender("Faust", "faust_take.py", AT_LEAST, MEDIUM, peer="faust")
FASTSTREAM = Contender("FastStream", "faststream_batches.py", AT_LEAST, MEDIUM, peer="faststream")
BYTEWAX = Contender("Bytewax", "bytewax_flow.py", "none as configured", FAST, peer="bytewax")
PATHWAY = Contender("Pathway", "pathway_table.py", "none as configured", FAST, peer="pathway")
SPARK = Contender("Spark local[2]", "spark_stream.py", AT_LEAST, FAST, peer="spark")

PEERS: Final = (QUIX, ARROYO, FAUST, FASTSTREAM, BYTEWAX, PATHWAY, SPARK)

_VITALS: Final = {
    "BENCH_VITALS": ",".join(name for name in STANDARD_FEATURES if name != "age"),
    "BENCH_PARTITIONS": str(PARTITIONS),
}
QUIX_STATE = Contender(
    "Quix Streams, state", "quix_state.py", EXACTLY, MEDIUM, peer="quix", options=_VITALS, scores=False
)
FAUST_TABLE = Contender(
    "Faust, table", "faust_tables.py", AT_LEAST, SLOW, peer="faust", options=_VITALS, scores=False
)
BYTEWAX_STATE = Contender(
    "Bytewax, state",
    "bytewax_state.py",
    "none as configured",
    FAST,
    peer="bytewax",
    options=_VITALS,
    scores=False,
)
PATHWAY_STATE = Contender(
    "Pathway, state",
    "pathway_state.py",
    "none as configured",
    FAST,
    peer="pathway",
    options=_VITALS,
    scores=False,
)
