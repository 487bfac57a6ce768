"""Where more of an evaluation's time went, what its scores are known by, and outcomes that came a second time."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Add columns, indexes and the tables of repeats."""
    for part in ("record", "gpu"):
        op.add_column("evaluations", sa.Column(f"{part}_seconds", sa.Double(), nullable=True))
    op.create_index("ix_evaluations_candidate_id", "evaluations", ["candidate_id"])
    op.add_column("scores", sa.Column("digest", sa.Text(), nullable=True))
    known = sa.text("digest IS NOT NULL")
    op.create_index("ix_scores_digest", "scores", ["digest"], sqlite_where=known, postgresql_where=known)
    op.create_table(
        "repeats",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("evaluation_id", sa.Integer(), nullable=False),
        sa.Column("told", sa.Double(), nullable=False),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=True),
        sa.Column("message", sa.Text(), nullable=True),
        sa.Column("worker", sa.Text(), nullable=False),
        *(
            sa.Column(f"{part}_seconds", sa.Double(), nullable=False)
            for part in ("queue", "build", "score", "record", "gpu")
        ),
        sa.CheckConstraint("status IN ('scored', 'failed')", name=op.f("ck_repeats_status")),
        sa.ForeignKeyConstraint(["evaluation_id"], ["evaluations.id"], name="fk_repeats_evaluation_id"),
        sa.PrimaryKeyConstraint("id", name="pk_repeats"),
    )
    op.create_index("ix_repeats_evaluation_id", "repeats", ["evaluation_id"])
    op.create_table(
        "repeat_scores",
        sa.Column("repeat_id", sa.Integer(), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("objective", sa.Text(), nullable=False),
        sa.Column("value", sa.Double(), nullable=True),
        sa.Column("stderr", sa.Double(), nullable=True),
        sa.Column("n", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(["repeat_id"], ["repeats.id"], name="fk_repeat_scores_repeat_id"),
        sa.PrimaryKeyConstraint("repeat_id", "position", name="pk_repeat_scores"),
    )
