"""What a draft's traces point to, read from an index without their texts."""

from __future__ import annotations

from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None

NAME = "findings_by_reasoning_id_points_to_category"


def upgrade() -> None:
    op.create_index(NAME, "findings", ["reasoning_id", "points_to", "category"])


def downgrade() -> None:
    op.drop_index(NAME, table_name="findings")
