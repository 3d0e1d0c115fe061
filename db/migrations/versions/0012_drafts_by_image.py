"""Drafts in the order that lists show them, and labels of images read from an index."""

from __future__ import annotations

from alembic import op
from sqlalchemy import text

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None

DRAFTS = "drafts_newest"
IMAGES = "images_by_image_id_label_generator"
IS_NEWEST = text("superseded_by IS NULL")


def upgrade() -> None:
    _order_drafts("campaign_id", "image_id", "arm")
    op.create_index(IMAGES, "images", ["image_id", "label", "generator"])


def downgrade() -> None:
    op.drop_index(IMAGES, table_name="images")
    _order_drafts("campaign_id", "arm", "image_id")


def _order_drafts(*columns: str) -> None:
    op.drop_index(DRAFTS, table_name="drafts")
    op.create_index(
        DRAFTS,
        "drafts",
        columns,
        unique=True,
        sqlite_where=IS_NEWEST,
        postgresql_where=IS_NEWEST,
    )
