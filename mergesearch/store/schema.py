"""The tables of the SQL store, the same on every database. A change here needs a file in `migrations/versions`.

SCHEMA_VERSION is the number of the newest migration; a test keeps the two together. Times are seconds since the epoch,
arrays are little-endian, NaN is NULL (SQLite has no NaN).
"""

from typing import Final

from sqlalchemy import (
    Boolean,
    CheckConstraint,
    Column,
    Double,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
    UniqueConstraint,
    text,
)

SCHEMA_VERSION: Final = 4

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)

# `seq` is the last number given out in the study's log. Token 0: never leased; owner '': not leased now.
studies = Table(
    "studies",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("name", Text, nullable=False, unique=True),
    Column("spec", Text, nullable=False),
    Column("digest", Text, nullable=False),
    Column("status", Text, nullable=False),
    Column("message", Text, nullable=False),
    Column("created", Double, nullable=False),
    Column("updated", Double, nullable=False),
    Column("seconds", Double, nullable=False),
    Column("seq", Integer, nullable=False),
    Column("lease_owner", Text, nullable=False),
    Column("lease_token", Integer, nullable=False),
    Column("lease_until", Double, nullable=False),
    Column("lease_renewed", Double, nullable=False),
)

# `point`: float64 (D,); NULL for a baseline. From `share` on: its request, and what it takes from the budget.
candidates = Table(
    "candidates",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("study_id", Integer, ForeignKey("studies.id"), nullable=False),
    Column("number", Integer, nullable=False),
    Column("point", LargeBinary),
    Column("origin", Text, nullable=False),
    Column("share", Double, nullable=False, server_default=text("1")),
    Column("offset", Double, nullable=False, server_default=text("0")),
    Column("gradient", Text, nullable=False, server_default=text("''")),
    Column("continues", Integer),
    Column("cost", Double, nullable=False, server_default=text("1")),
    UniqueConstraint("study_id", "number"),
)

# The log: an `Asked` at asked_seq and, once told, a `Told` at told_seq; both count in the study's one sequence.
evaluations = Table(
    "evaluations",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("study_id", Integer, ForeignKey("studies.id"), nullable=False),
    Column("candidate_id", Integer, ForeignKey("candidates.id"), nullable=False),
    Column("split", Text, nullable=False),
    Column("status", Text, nullable=False),
    Column("asked_seq", Integer, nullable=False),
    Column("told_seq", Integer),
    Column("asked", Double, nullable=False),
    Column("told", Double),
    Column("kind", Text),
    Column("message", Text),
    Column("queue_seconds", Double),
    Column("build_seconds", Double),
    Column("score_seconds", Double),
    Column("worker", Text),
    Column("record_seconds", Double),
    Column("gpu_seconds", Double),
    UniqueConstraint("study_id", "candidate_id", "split"),
    CheckConstraint("status IN ('asked', 'scored', 'failed')", name="status"),
    CheckConstraint("(status = 'asked') = (told_seq IS NULL)", name="told"),
    Index(None, "study_id", "asked_seq", unique=True),
    Index(None, "study_id", "told_seq", unique=True),
    Index(None, "candidate_id"),  # without it, removing a study reads all evaluations for each candidate
)

# `is_objective`: the objective's own score, metric ''. The other rows are all metrics that the scorer gave. `digest`:
# what an objective's own score is known by in every study; NULL where nobody said.
scores = Table(
    "scores",
    metadata,
    Column("evaluation_id", Integer, ForeignKey("evaluations.id"), primary_key=True),
    Column("position", Integer, primary_key=True),
    Column("objective", Text, nullable=False),
    Column("metric", Text, nullable=False),
    Column("is_objective", Boolean, nullable=False),
    Column("value", Double),
    Column("stderr", Double),
    Column("n", Integer, nullable=False),
    Column("digest", Text),
    Index(None, "digest", sqlite_where=text("digest IS NOT NULL"), postgresql_where=text("digest IS NOT NULL")),
    sqlite_with_rowid=False,  # rows lie in the order they are read: all scores of a study in one sweep
)

# `kind` 'examples': values per example of the objective's own metric; 'gradient': float64 (D,), of the requested loss.
# `shape` is JSON, `dtype` as numpy writes it.
arrays = Table(
    "arrays",
    metadata,
    Column("evaluation_id", Integer, ForeignKey("evaluations.id"), primary_key=True),
    Column("kind", Text, primary_key=True),
    Column("objective", Text, primary_key=True),
    Column("dtype", Text, nullable=False),
    Column("shape", Text, nullable=False),
    Column("data", LargeBinary, nullable=False),
)

# Outcomes of an evaluation that came after the one in the log and had other scores.
repeats = Table(
    "repeats",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("evaluation_id", Integer, ForeignKey("evaluations.id"), nullable=False),
    Column("told", Double, nullable=False),
    Column("status", Text, nullable=False),
    Column("kind", Text),
    Column("message", Text),
    Column("worker", Text, nullable=False),
    Column("queue_seconds", Double, nullable=False),
    Column("build_seconds", Double, nullable=False),
    Column("score_seconds", Double, nullable=False),
    Column("record_seconds", Double, nullable=False),
    Column("gpu_seconds", Double, nullable=False),
    CheckConstraint("status IN ('scored', 'failed')", name="status"),
    Index(None, "evaluation_id"),
)

repeat_scores = Table(
    "repeat_scores",
    metadata,
    Column("repeat_id", Integer, ForeignKey("repeats.id"), primary_key=True),
    Column("position", Integer, primary_key=True),
    Column("objective", Text, nullable=False),
    Column("value", Double),
    Column("stderr", Double),
    Column("n", Integer, nullable=False),
)

# Evaluations that are made outside, see `store/offering.py`. `holders` is a JSON list of names; `leased` and `until`
# are 0 before the first lease; `body` is '' once it was told.
offers = Table(
    "offers",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("study_id", Integer, ForeignKey("studies.id"), nullable=False),
    Column("number", Integer, nullable=False),
    Column("split", Text, nullable=False),
    Column("body", Text, nullable=False),
    Column("key", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("holders", Text, nullable=False),
    Column("offered", Double, nullable=False),
    Column("leased", Double, nullable=False),
    Column("until", Double, nullable=False),
    Column("seconds", Double, nullable=False),
    UniqueConstraint("study_id", "number", "split"),
    CheckConstraint("state IN ('open', 'leased', 'told')", name="state"),
    Index(None, "study_id", "state"),
)

# What was told of an offer: the first answer, and each further one with other scores. `outcome` is JSON, NULL once the
# controller took it.
answers = Table(
    "answers",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("study_id", Integer, ForeignKey("studies.id"), nullable=False),
    Column("offer_id", Integer, ForeignKey("offers.id"), nullable=False),
    Column("digest", Text, nullable=False),
    Column("outcome", Text),
    Column("attempt", Integer, nullable=False),
    Column("holder", Text, nullable=False),
    Column("leased", Double, nullable=False),
    Column("told", Double, nullable=False),
    UniqueConstraint("offer_id", "digest"),
    Index(None, "study_id", sqlite_where=text("outcome IS NOT NULL"), postgresql_where=text("outcome IS NOT NULL")),
)

commands = Table(
    "commands",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("study_id", Integer, ForeignKey("studies.id"), nullable=False),
    Column("action", Text, nullable=False),
    Column("created", Double, nullable=False),
    Column("done", Double),
    Index(None, "study_id"),
)

artifacts = Table(
    "artifacts",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("study_id", Integer, ForeignKey("studies.id"), nullable=False),
    Column("candidate", Integer, nullable=False),
    Column("kind", Text, nullable=False),
    Column("path", Text, nullable=False),
    Column("sha256", Text, nullable=False),
    Column("created", Double, nullable=False),
    Index(None, "study_id"),
)

facts = Table(
    "facts",
    metadata,
    Column("study_id", Integer, ForeignKey("studies.id"), primary_key=True),
    Column("key", Text, primary_key=True),
    Column("value", Text, nullable=False),
)
