"""What of an evaluation was wanted, and its cost. Rows of before asked for all examples and no gradient."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Add the columns of a request to the candidates."""
    for column in (
        sa.Column("share", sa.Double(), nullable=False, server_default=sa.text("1")),
        sa.Column("offset", sa.Double(), nullable=False, server_default=sa.text("0")),
        sa.Column("gradient", sa.Text(), nullable=False, server_default=sa.text("''")),
        sa.Column("continues", sa.Integer(), nullable=True),
        sa.Column("cost", sa.Double(), nullable=False, server_default=sa.text("1")),
    ):
        op.add_column("candidates", column)
