"""What images show, and whose votes a draft words."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None

TEXT = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")
ADDED = {
    "drafts": ("glaring", "merged", "merged_teachers"),
    "chains": ("merged_teachers",),
}
"""lists of names by table"""


def upgrade() -> None:
    for table, names in ADDED.items():
        for name in names:
            op.add_column(table, sa.Column(name, sa.JSON(), nullable=False, server_default="[]"))
    op.create_table(
        "topics",
        sa.Column("image_id", TEXT, nullable=False),
        sa.Column("said_by", TEXT, nullable=False),
        sa.Column("topic", TEXT, nullable=False),
        sa.ForeignKeyConstraint(["image_id"], ["images.image_id"], name="topics_image_id_fkey"),
        sa.PrimaryKeyConstraint("image_id", "said_by", name="topics_pkey"),
    )


def downgrade() -> None:
    op.drop_table("topics")
    for table, names in ADDED.items():
        for name in names:
            op.drop_column(table, name)
