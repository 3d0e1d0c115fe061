"""Drafts in the order that lists show them; labels and calls of images read from an index."""

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
CALLS = "attempts_by_image_id_campaign_id_arm"
CALLS_BEFORE = "attempts_by_image_id"


def upgrade() -> None:
    _order_drafts("campaign_id", "image_id", "arm")
    op.create_index(IMAGES, "images", ["image_id", "label", "generator"])
    op.create_index(CALLS, "attempts", ["image_id", "campaign_id", "arm"])
    op.drop_index(CALLS_BEFORE, table_name="attempts")


def downgrade() -> None:
    op.create_index(CALLS_BEFORE, "attempts", ["image_id"])
    op.drop_index(CALLS, table_name="attempts")
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
