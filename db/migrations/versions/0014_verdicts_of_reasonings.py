"""The verdict of a reasoning without its whole row."""

from __future__ import annotations

from alembic import op

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None

VERDICTS = "reasonings_by_reasoning_id_verdict"


def upgrade() -> None:
    op.create_index(VERDICTS, "reasonings", ["reasoning_id", "verdict"])


def downgrade() -> None:
    op.drop_index(VERDICTS, table_name="reasonings")
