"""Evaluations that are made outside, and what is told of them."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    """Add the tables of offers and answers."""
    op.create_table(
        "offers",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("study_id", sa.Integer(), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        *(sa.Column(name, sa.Text(), nullable=False) for name in ("split", "body", "key", "state", "holders")),
        *(sa.Column(name, sa.Double(), nullable=False) for name in ("offered", "leased", "until", "seconds")),
        sa.CheckConstraint("state IN ('open', 'leased', 'told')", name=op.f("ck_offers_state")),
        sa.ForeignKeyConstraint(["study_id"], ["studies.id"], name="fk_offers_study_id"),
        sa.PrimaryKeyConstraint("id", name="pk_offers"),
        sa.UniqueConstraint("study_id", "number", "split", name="uq_offers_study_id_number_split"),
    )
    op.create_index("ix_offers_study_id_state", "offers", ["study_id", "state"])
    op.create_table(
        "answers",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("study_id", sa.Integer(), nullable=False),
        sa.Column("offer_id", sa.Integer(), nullable=False),
        sa.Column("digest", sa.Text(), nullable=False),
        sa.Column("outcome", sa.Text(), nullable=True),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("holder", sa.Text(), nullable=False),
        sa.Column("leased", sa.Double(), nullable=False),
        sa.Column("told", sa.Double(), nullable=False),
        sa.ForeignKeyConstraint(["study_id"], ["studies.id"], name="fk_answers_study_id"),
        sa.ForeignKeyConstraint(["offer_id"], ["offers.id"], name="fk_answers_offer_id"),
        sa.PrimaryKeyConstraint("id", name="pk_answers"),
        sa.UniqueConstraint("offer_id", "digest", name="uq_answers_offer_id_digest"),
    )
    waiting = sa.text("outcome IS NOT NULL")
    op.create_index("ix_answers_study_id", "answers", ["study_id"], sqlite_where=waiting, postgresql_where=waiting)
