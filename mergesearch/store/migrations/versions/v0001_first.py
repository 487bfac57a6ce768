"""The first schema. What the columns mean stands in `store/schema.py`."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Create every table."""
    _studies_and_log()
    _outcomes()
    _around_a_study()


def _study_key(table: str) -> sa.ForeignKeyConstraint:
    return sa.ForeignKeyConstraint(["study_id"], ["studies.id"], name=f"fk_{table}_study_id")


def _studies_and_log() -> None:
    op.create_table(
        "studies",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("spec", sa.Text(), nullable=False),
        sa.Column("digest", sa.Text(), nullable=False),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("message", sa.Text(), nullable=False),
        sa.Column("created", sa.Double(), nullable=False),
        sa.Column("updated", sa.Double(), nullable=False),
        sa.Column("seconds", sa.Double(), nullable=False),
        sa.Column("seq", sa.Integer(), nullable=False),
        sa.Column("lease_owner", sa.Text(), nullable=False),
        sa.Column("lease_token", sa.Integer(), nullable=False),
        sa.Column("lease_until", sa.Double(), nullable=False),
        sa.Column("lease_renewed", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_studies"),
        sa.UniqueConstraint("name", name="uq_studies_name"),
    )
    op.create_table(
        "candidates",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("study_id", sa.Integer(), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("point", sa.LargeBinary(), nullable=True),
        sa.Column("origin", sa.Text(), nullable=False),
        _study_key("candidates"),
        sa.PrimaryKeyConstraint("id", name="pk_candidates"),
        sa.UniqueConstraint("study_id", "number", name="uq_candidates_study_id_number"),
    )


def _outcomes() -> None:
    op.create_table(
        "evaluations",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("study_id", sa.Integer(), nullable=False),
        sa.Column("candidate_id", sa.Integer(), nullable=False),
        sa.Column("split", sa.Text(), nullable=False),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("asked_seq", sa.Integer(), nullable=False),
        sa.Column("told_seq", sa.Integer(), nullable=True),
        sa.Column("asked", sa.Double(), nullable=False),
        sa.Column("told", sa.Double(), nullable=True),
        sa.Column("kind", sa.Text(), nullable=True),
        sa.Column("message", sa.Text(), nullable=True),
        *(sa.Column(f"{part}_seconds", sa.Double(), nullable=True) for part in ("queue", "build", "score")),
        sa.Column("worker", sa.Text(), nullable=True),
        sa.CheckConstraint("(status = 'asked') = (told_seq IS NULL)", name=op.f("ck_evaluations_told")),
        sa.CheckConstraint("status IN ('asked', 'scored', 'failed')", name=op.f("ck_evaluations_status")),
        sa.ForeignKeyConstraint(["candidate_id"], ["candidates.id"], name="fk_evaluations_candidate_id"),
        _study_key("evaluations"),
        sa.PrimaryKeyConstraint("id", name="pk_evaluations"),
        sa.UniqueConstraint("study_id", "candidate_id", "split", name="uq_evaluations_study_id_candidate_id_split"),
    )
    for column in ("asked_seq", "told_seq"):
        op.create_index(f"ix_evaluations_study_id_{column}", "evaluations", ["study_id", column], unique=True)
    op.create_table(
        "scores",
        sa.Column("evaluation_id", sa.Integer(), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("objective", sa.Text(), nullable=False),
        sa.Column("metric", sa.Text(), nullable=False),
        sa.Column("is_objective", sa.Boolean(), nullable=False),
        sa.Column("value", sa.Double(), nullable=True),
        sa.Column("stderr", sa.Double(), nullable=True),
        sa.Column("n", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(["evaluation_id"], ["evaluations.id"], name="fk_scores_evaluation_id"),
        sa.PrimaryKeyConstraint("evaluation_id", "position", name="pk_scores"),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "arrays",
        sa.Column("evaluation_id", sa.Integer(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("objective", sa.Text(), nullable=False),
        sa.Column("dtype", sa.Text(), nullable=False),
        sa.Column("shape", sa.Text(), nullable=False),
        sa.Column("data", sa.LargeBinary(), nullable=False),
        sa.ForeignKeyConstraint(["evaluation_id"], ["evaluations.id"], name="fk_arrays_evaluation_id"),
        sa.PrimaryKeyConstraint("evaluation_id", "kind", "objective", name="pk_arrays"),
    )


def _around_a_study() -> None:
    op.create_table(
        "commands",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("study_id", sa.Integer(), nullable=False),
        sa.Column("action", sa.Text(), nullable=False),
        sa.Column("created", sa.Double(), nullable=False),
        sa.Column("done", sa.Double(), nullable=True),
        _study_key("commands"),
        sa.PrimaryKeyConstraint("id", name="pk_commands"),
    )
    op.create_table(
        "artifacts",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("study_id", sa.Integer(), nullable=False),
        sa.Column("candidate", sa.Integer(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("path", sa.Text(), nullable=False),
        sa.Column("sha256", sa.Text(), nullable=False),
        sa.Column("created", sa.Double(), nullable=False),
        _study_key("artifacts"),
        sa.PrimaryKeyConstraint("id", name="pk_artifacts"),
    )
    op.create_table(
        "facts",
        sa.Column("study_id", sa.Integer(), nullable=False),
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("value", sa.Text(), nullable=False),
        _study_key("facts"),
        sa.PrimaryKeyConstraint("study_id", "key", name="pk_facts"),
    )
    for table in ("commands", "artifacts"):
        op.create_index(f"ix_{table}_study_id", table, ["study_id"])
