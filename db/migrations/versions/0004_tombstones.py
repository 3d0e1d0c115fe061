"""Tombstones of withdrawn images, and terms of sources beyond their licence."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

TEXT = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")


def upgrade() -> None:
    op.create_table(
        "tombstones",
        sa.Column("image_id", TEXT, nullable=False),
        sa.Column("sha256", TEXT, nullable=False),
        sa.Column("original_sha256", TEXT, nullable=False),
        sa.Column("reason", TEXT, nullable=False),
        sa.Column("withdrawn_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("image_id", name="tombstones_pkey"),
    )
    op.create_index("tombstones_by_sha256", "tombstones", ["sha256"])
    op.create_index("tombstones_by_original_sha256", "tombstones", ["original_sha256"])
    op.add_column("sources", sa.Column("terms", TEXT, nullable=False, server_default=""))


def downgrade() -> None:
    op.drop_column("sources", "terms")
    op.drop_table("tombstones")
