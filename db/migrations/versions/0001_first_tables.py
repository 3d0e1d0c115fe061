"""Images, work, the ledger, drafts, corrections and chains."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

TEXT = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")
WORD = sa.String(16)
MONEY = sa.BigInteger()
MOMENT = sa.DateTime(timezone=True)
COUNTER = sa.BigInteger().with_variant(sa.Integer(), "sqlite")

TABLES = (
    "sources",
    "images",
    "provenance",
    "imported_files",
    "benchmark_hashes",
    "campaigns",
    "days",
    "work",
    "attempts",
    "replies",
    "limits",
    "batches",
    "batch_lines",
    "reasonings",
    "findings",
    "region_corners",
    "drafts",
    "corrections",
    "trace_outcomes",
    "chains",
    "chain_corrections",
    "withdrawn_corrections",
    "studio_projects",
    "studio_tasks",
    "experts",
    "annotation_versions",
)  # parents first


def upgrade() -> None:
    _create_images()
    _create_work()
    _create_ledger()
    _create_batches()
    _create_reasonings()
    _create_drafts()
    _create_corrections()
    _create_chains()
    _create_studio()


def downgrade() -> None:
    for table in reversed(TABLES):
        op.drop_table(table)


def _create_images() -> None:
    op.create_table(
        "sources",
        sa.Column("name", TEXT, nullable=False),
        sa.Column("licence", TEXT, nullable=False),
        sa.Column("may_train", sa.Boolean(), nullable=False),
        sa.PrimaryKeyConstraint("name", name="sources_pkey"),
    )
    op.create_table(
        "images",
        sa.Column("image_id", TEXT, nullable=False),
        sa.Column("sha256", TEXT, nullable=False),
        sa.Column("original_sha256", TEXT, nullable=False),
        sa.Column("path", TEXT, nullable=False),
        sa.Column("width", sa.Integer(), nullable=False),
        sa.Column("height", sa.Integer(), nullable=False),
        sa.Column("format", TEXT, nullable=False),
        sa.Column("jpeg_quality", sa.Integer(), nullable=True),
        sa.Column("phash", TEXT, nullable=False),
        sa.Column("cluster", TEXT, nullable=False),
        sa.Column("photo_group", TEXT, nullable=False),
        sa.Column("label", WORD, nullable=True),
        sa.Column("generator", TEXT, nullable=True),
        sa.Column("source", TEXT, nullable=False),
        sa.Column("size_bytes", sa.BigInteger(), nullable=True),
        sa.Column("subsampling", TEXT, nullable=True),
        sa.ForeignKeyConstraint(["source"], ["sources.name"], name="images_source_fkey"),
        sa.PrimaryKeyConstraint("image_id", name="images_pkey"),
    )
    op.create_index("images_by_cluster", "images", ["cluster"], unique=False)
    op.create_index("images_by_original_sha256", "images", ["original_sha256"], unique=False)
    op.create_index("images_by_source_label", "images", ["source", "label"], unique=False)
    op.create_table(
        "provenance",
        sa.Column("image_id", TEXT, nullable=False),
        sa.Column("name", TEXT, nullable=False),
        sa.Column("value", TEXT, nullable=False),
        sa.ForeignKeyConstraint(["image_id"], ["images.image_id"], name="provenance_image_id_fkey"),
        sa.PrimaryKeyConstraint("image_id", "name", name="provenance_pkey"),
    )
    op.create_index("provenance_by_name", "provenance", ["name"], unique=False)
    op.create_table(
        "imported_files",
        sa.Column("file_id", TEXT, nullable=False),
        sa.Column("source", TEXT, nullable=False),
        sa.Column("name", TEXT, nullable=False),
        sa.Column("outcome", TEXT, nullable=False),
        sa.Column("reason", TEXT, nullable=True),
        sa.Column("image_id", TEXT, nullable=True),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("mtime_ns", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(
            ["image_id"], ["images.image_id"], name="imported_files_image_id_fkey"
        ),
        sa.ForeignKeyConstraint(["source"], ["sources.name"], name="imported_files_source_fkey"),
        sa.PrimaryKeyConstraint("file_id", name="imported_files_pkey"),
    )
    op.create_index("imported_files_by_image_id", "imported_files", ["image_id"], unique=False)
    op.create_index(
        "imported_files_by_source_outcome", "imported_files", ["source", "outcome"], unique=False
    )
    op.create_table(
        "benchmark_hashes",
        sa.Column("hash_id", TEXT, nullable=False),
        sa.Column("source", TEXT, nullable=False),
        sa.Column("sha256", TEXT, nullable=True),
        sa.Column("phash", TEXT, nullable=True),
        sa.ForeignKeyConstraint(["source"], ["sources.name"], name="benchmark_hashes_source_fkey"),
        sa.PrimaryKeyConstraint("hash_id", name="benchmark_hashes_pkey"),
    )


def _create_work() -> None:
    op.create_table(
        "campaigns",
        sa.Column("campaign_id", TEXT, nullable=False),
        sa.Column("recipe", TEXT, nullable=False),
        sa.Column("drafting_digest", TEXT, nullable=False),
        sa.Column("ceiling_usd", MONEY, nullable=True),
        sa.Column("committed_usd", MONEY, nullable=False),
        sa.Column("stopped_reason", TEXT, nullable=True),
        sa.Column("recipe_folder", TEXT, nullable=True),
        sa.Column("rehearsal_url", TEXT, nullable=True),
        sa.Column("tended_at", MOMENT, nullable=True),
        sa.Column("created_at", MOMENT, nullable=False),
        sa.PrimaryKeyConstraint("campaign_id", name="campaigns_pkey"),
    )
    op.create_table(
        "days",
        sa.Column("day", TEXT, nullable=False),
        sa.Column("committed_usd", MONEY, nullable=False),
        sa.PrimaryKeyConstraint("day", name="days_pkey"),
    )
    op.create_table(
        "work",
        sa.Column("work_id", TEXT, nullable=False),
        sa.Column("campaign_id", TEXT, nullable=False),
        sa.Column("arm", TEXT, nullable=False),
        sa.Column("image_id", TEXT, nullable=False),
        sa.Column("state", WORD, nullable=False),
        sa.Column("came_from", WORD, nullable=True),
        sa.Column("tries", sa.Integer(), nullable=False),
        sa.Column("worker", TEXT, nullable=True),
        sa.Column("claimed_until", MOMENT, nullable=True),
        sa.Column("due_at", MOMENT, nullable=True),
        sa.Column("reason", TEXT, nullable=True),
        sa.ForeignKeyConstraint(
            ["campaign_id"], ["campaigns.campaign_id"], name="work_campaign_id_fkey"
        ),
        sa.ForeignKeyConstraint(["image_id"], ["images.image_id"], name="work_image_id_fkey"),
        sa.PrimaryKeyConstraint("work_id", name="work_pkey"),
        sa.UniqueConstraint(
            "campaign_id", "arm", "image_id", name="work_one_campaign_id_arm_image_id"
        ),
    )
    op.create_index("work_by_campaign_id_state", "work", ["campaign_id", "state"], unique=False)
    op.create_index("work_by_image_id", "work", ["image_id"], unique=False)
    op.create_index(
        "work_due",
        "work",
        ["campaign_id", "arm", "work_id"],
        unique=False,
        sqlite_where=sa.text("state IN ('new', 'guided')"),
        postgresql_where=sa.text("state IN ('new', 'guided')"),
    )
    op.create_index(
        "work_held",
        "work",
        ["worker"],
        unique=False,
        sqlite_where=sa.text("worker IS NOT NULL"),
        postgresql_where=sa.text("worker IS NOT NULL"),
    )


def _create_ledger() -> None:
    op.create_table(
        "attempts",
        sa.Column("attempt_id", TEXT, nullable=False),
        sa.Column("request_hash", TEXT, nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("image_id", TEXT, nullable=False),
        sa.Column("campaign_id", TEXT, nullable=False),
        sa.Column("arm", TEXT, nullable=False),
        sa.Column("model", TEXT, nullable=False),
        sa.Column("outcome", WORD, nullable=False),
        sa.Column("reserved_usd", MONEY, nullable=False),
        sa.Column("cost_usd", MONEY, nullable=True),
        sa.Column("reason", TEXT, nullable=True),
        sa.Column("prompt_tokens", sa.Integer(), nullable=True),
        sa.Column("cached_tokens", sa.Integer(), nullable=True),
        sa.Column("image_tokens", sa.Integer(), nullable=True),
        sa.Column("completion_tokens", sa.Integer(), nullable=True),
        sa.Column("reasoning_tokens", sa.Integer(), nullable=True),
        sa.Column("started_at", MOMENT, nullable=False),
        sa.Column("finished_at", MOMENT, nullable=True),
        sa.ForeignKeyConstraint(
            ["campaign_id"], ["campaigns.campaign_id"], name="attempts_campaign_id_fkey"
        ),
        sa.ForeignKeyConstraint(["image_id"], ["images.image_id"], name="attempts_image_id_fkey"),
        sa.PrimaryKeyConstraint("attempt_id", name="attempts_pkey"),
        sa.UniqueConstraint("request_hash", "number", name="attempts_one_request_hash_number"),
    )
    op.create_index(
        "attempts_by_campaign_id_outcome", "attempts", ["campaign_id", "outcome"], unique=False
    )
    op.create_index("attempts_by_image_id", "attempts", ["image_id"], unique=False)
    op.create_table(
        "replies",
        sa.Column("attempt_id", TEXT, nullable=False),
        sa.Column("request_hash", TEXT, nullable=False),
        sa.Column("finish_reason", TEXT, nullable=False),
        sa.Column("model", TEXT, nullable=False),
        sa.Column("request_id", TEXT, nullable=True),
        sa.Column("latency_s", sa.Double(), nullable=False),
        sa.Column("content", TEXT, nullable=True),
        sa.Column("refusal", TEXT, nullable=True),
        sa.Column("raw", TEXT, nullable=False),
        sa.ForeignKeyConstraint(
            ["attempt_id"], ["attempts.attempt_id"], name="replies_attempt_id_fkey"
        ),
        sa.PrimaryKeyConstraint("attempt_id", name="replies_pkey"),
    )
    op.create_index("replies_by_request_hash", "replies", ["request_hash"], unique=False)
    op.create_table(
        "limits",
        sa.Column("teacher", TEXT, nullable=False),
        sa.Column("model", TEXT, nullable=False),
        sa.Column("memory", TEXT, nullable=False),
        sa.PrimaryKeyConstraint("teacher", "model", name="limits_pkey"),
    )


def _create_batches() -> None:
    op.create_table(
        "batches",
        sa.Column("batch_id", TEXT, nullable=False),
        sa.Column("campaign_id", TEXT, nullable=False),
        sa.Column("arm", TEXT, nullable=False),
        sa.Column("state", WORD, nullable=False),
        sa.Column("num_lines", sa.Integer(), nullable=False),
        sa.Column("num_bytes", sa.BigInteger(), nullable=False),
        sa.Column("input_sha256", TEXT, nullable=True),
        sa.Column("input_file_id", TEXT, nullable=True),
        sa.Column("remote_id", TEXT, nullable=True),
        sa.Column("output_file_id", TEXT, nullable=True),
        sa.Column("error_file_id", TEXT, nullable=True),
        sa.Column("reason", TEXT, nullable=True),
        sa.Column("worker", TEXT, nullable=True),
        sa.Column("held_until", MOMENT, nullable=True),
        sa.Column("created_at", MOMENT, nullable=False),
        sa.Column("polled_at", MOMENT, nullable=True),
        sa.Column("ended_at", MOMENT, nullable=True),
        sa.Column("ingested_at", MOMENT, nullable=True),
        sa.Column("deleted_at", MOMENT, nullable=True),
        sa.ForeignKeyConstraint(
            ["campaign_id"], ["campaigns.campaign_id"], name="batches_campaign_id_fkey"
        ),
        sa.PrimaryKeyConstraint("batch_id", name="batches_pkey"),
    )
    op.create_index("batches_by_campaign_id", "batches", ["campaign_id"], unique=False)
    op.create_table(
        "batch_lines",
        sa.Column("attempt_id", TEXT, nullable=False),
        sa.Column("batch_id", TEXT, nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("work_id", TEXT, nullable=False),
        sa.ForeignKeyConstraint(
            ["attempt_id"], ["attempts.attempt_id"], name="batch_lines_attempt_id_fkey"
        ),
        sa.ForeignKeyConstraint(
            ["batch_id"], ["batches.batch_id"], name="batch_lines_batch_id_fkey"
        ),
        sa.ForeignKeyConstraint(["work_id"], ["work.work_id"], name="batch_lines_work_id_fkey"),
        sa.PrimaryKeyConstraint("attempt_id", name="batch_lines_pkey"),
        sa.UniqueConstraint("batch_id", "number", name="batch_lines_one_batch_id_number"),
    )
    op.create_index("batch_lines_by_work_id", "batch_lines", ["work_id"], unique=False)


def _create_reasonings() -> None:
    op.create_table(
        "reasonings",
        sa.Column("reasoning_id", TEXT, nullable=False),
        sa.Column("verdict", WORD, nullable=False),
        sa.Column("conclusion", TEXT, nullable=False),
        sa.Column("confidence", WORD, nullable=False),
        sa.PrimaryKeyConstraint("reasoning_id", name="reasonings_pkey"),
    )
    op.create_table(
        "findings",
        sa.Column("reasoning_id", TEXT, nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("category", TEXT, nullable=False),
        sa.Column("points_to", WORD, nullable=False),
        sa.Column("evidence", TEXT, nullable=False),
        sa.ForeignKeyConstraint(
            ["reasoning_id"], ["reasonings.reasoning_id"], name="findings_reasoning_id_fkey"
        ),
        sa.PrimaryKeyConstraint("reasoning_id", "position", name="findings_pkey"),
    )
    op.create_index(
        "findings_by_category_points_to", "findings", ["category", "points_to"], unique=False
    )
    op.create_table(
        "region_corners",
        sa.Column("reasoning_id", TEXT, nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("corner", sa.Integer(), nullable=False),
        sa.Column("x", sa.Double(), nullable=False),
        sa.Column("y", sa.Double(), nullable=False),
        sa.ForeignKeyConstraint(
            ["reasoning_id", "position"],
            ["findings.reasoning_id", "findings.position"],
            name="region_corners_reasoning_id_position_fkey",
        ),
        sa.PrimaryKeyConstraint("reasoning_id", "position", "corner", name="region_corners_pkey"),
    )


def _create_drafts() -> None:
    op.create_table(
        "drafts",
        sa.Column("draft_id", TEXT, nullable=False),
        sa.Column("image_id", TEXT, nullable=False),
        sa.Column("attempt_id", TEXT, nullable=False),
        sa.Column("campaign_id", TEXT, nullable=False),
        sa.Column("arm", TEXT, nullable=False),
        sa.Column("teacher", TEXT, nullable=False),
        sa.Column("prompt_version", TEXT, nullable=False),
        sa.Column("demonstrations", sa.Integer(), nullable=False),
        sa.Column("exemplar_ids", sa.JSON(), nullable=False),
        sa.Column("uncovered", sa.JSON(), nullable=False),
        sa.Column("seen", sa.JSON(), nullable=False),
        sa.Column("bytes_sent", sa.BigInteger(), nullable=False),
        sa.Column("superseded_by", TEXT, nullable=True),
        sa.Column("created_at", MOMENT, nullable=False),
        sa.ForeignKeyConstraint(
            ["attempt_id"], ["attempts.attempt_id"], name="drafts_attempt_id_fkey"
        ),
        sa.ForeignKeyConstraint(
            ["campaign_id"], ["campaigns.campaign_id"], name="drafts_campaign_id_fkey"
        ),
        sa.ForeignKeyConstraint(
            ["draft_id"], ["reasonings.reasoning_id"], name="drafts_draft_id_fkey"
        ),
        sa.ForeignKeyConstraint(["image_id"], ["images.image_id"], name="drafts_image_id_fkey"),
        sa.ForeignKeyConstraint(
            ["superseded_by"],
            ["drafts.draft_id"],
            name="drafts_superseded_by_fkey",
            initially="DEFERRED",
            deferrable=True,
        ),
        sa.PrimaryKeyConstraint("draft_id", name="drafts_pkey"),
    )
    op.create_index("drafts_by_attempt_id", "drafts", ["attempt_id"], unique=False)
    op.create_index("drafts_by_image_id", "drafts", ["image_id"], unique=False)
    op.create_index(
        "drafts_newest",
        "drafts",
        ["campaign_id", "arm", "image_id"],
        unique=True,
        sqlite_where=sa.text("superseded_by IS NULL"),
        postgresql_where=sa.text("superseded_by IS NULL"),
    )


def _create_corrections() -> None:
    op.create_table(
        "corrections",
        sa.Column("number", COUNTER, nullable=False),
        sa.Column("correction_id", TEXT, nullable=False),
        sa.Column("image_id", TEXT, nullable=False),
        sa.Column("draft_id", TEXT, nullable=False),
        sa.Column("expert", TEXT, nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("is_adjudication", sa.Boolean(), nullable=False),
        sa.Column("rejects_image", sa.Boolean(), nullable=False),
        sa.Column("created_at", MOMENT, nullable=False),
        sa.ForeignKeyConstraint(
            ["correction_id"], ["reasonings.reasoning_id"], name="corrections_correction_id_fkey"
        ),
        sa.ForeignKeyConstraint(
            ["draft_id"], ["drafts.draft_id"], name="corrections_draft_id_fkey"
        ),
        sa.ForeignKeyConstraint(
            ["image_id"], ["images.image_id"], name="corrections_image_id_fkey"
        ),
        sa.PrimaryKeyConstraint("number", name="corrections_pkey"),
        sa.UniqueConstraint("correction_id", name="corrections_one_correction_id"),
    )
    op.create_index("corrections_by_draft_id", "corrections", ["draft_id"], unique=False)
    op.create_index("corrections_by_expert", "corrections", ["expert"], unique=False)
    op.create_index("corrections_by_image_id", "corrections", ["image_id"], unique=False)
    op.create_table(
        "trace_outcomes",
        sa.Column("correction_id", TEXT, nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("outcome", WORD, nullable=False),
        sa.ForeignKeyConstraint(
            ["correction_id"],
            ["corrections.correction_id"],
            name="trace_outcomes_correction_id_fkey",
        ),
        sa.PrimaryKeyConstraint("correction_id", "position", name="trace_outcomes_pkey"),
    )
    op.create_index("trace_outcomes_by_outcome", "trace_outcomes", ["outcome"], unique=False)
    # ### end Alembic commands ###


def _create_chains() -> None:
    op.create_table(
        "chains",
        sa.Column("chain_id", TEXT, nullable=False),
        sa.Column("image_id", TEXT, nullable=False),
        sa.Column("campaign_id", TEXT, nullable=False),
        sa.Column("arm", TEXT, nullable=False),
        sa.Column("draft_id", TEXT, nullable=False),
        sa.Column("teacher", TEXT, nullable=False),
        sa.Column("review_level", WORD, nullable=False),
        sa.Column("contradictions", sa.Integer(), nullable=False),
        sa.Column("superseded_by", TEXT, nullable=True),
        sa.Column("created_at", MOMENT, nullable=False),
        sa.ForeignKeyConstraint(
            ["campaign_id"], ["campaigns.campaign_id"], name="chains_campaign_id_fkey"
        ),
        sa.ForeignKeyConstraint(
            ["chain_id"], ["reasonings.reasoning_id"], name="chains_chain_id_fkey"
        ),
        sa.ForeignKeyConstraint(["draft_id"], ["drafts.draft_id"], name="chains_draft_id_fkey"),
        sa.ForeignKeyConstraint(["image_id"], ["images.image_id"], name="chains_image_id_fkey"),
        sa.ForeignKeyConstraint(
            ["superseded_by"],
            ["chains.chain_id"],
            name="chains_superseded_by_fkey",
            initially="DEFERRED",
            deferrable=True,
        ),
        sa.PrimaryKeyConstraint("chain_id", name="chains_pkey"),
    )
    op.create_index("chains_by_draft_id", "chains", ["draft_id"], unique=False)
    op.create_index("chains_by_image_id", "chains", ["image_id"], unique=False)
    op.create_index(
        "chains_newest",
        "chains",
        ["campaign_id", "arm", "image_id"],
        unique=True,
        sqlite_where=sa.text("superseded_by IS NULL"),
        postgresql_where=sa.text("superseded_by IS NULL"),
    )
    op.create_table(
        "chain_corrections",
        sa.Column("chain_id", TEXT, nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("correction_id", TEXT, nullable=False),
        sa.ForeignKeyConstraint(
            ["chain_id"], ["chains.chain_id"], name="chain_corrections_chain_id_fkey"
        ),
        sa.ForeignKeyConstraint(
            ["correction_id"],
            ["corrections.correction_id"],
            name="chain_corrections_correction_id_fkey",
        ),
        sa.PrimaryKeyConstraint("chain_id", "position", name="chain_corrections_pkey"),
    )
    op.create_index(
        "chain_corrections_by_correction_id", "chain_corrections", ["correction_id"], unique=False
    )


def _create_studio() -> None:
    op.create_table(
        "withdrawn_corrections",
        sa.Column("correction_id", TEXT, nullable=False),
        sa.Column("created_at", MOMENT, nullable=False),
        sa.ForeignKeyConstraint(
            ["correction_id"],
            ["corrections.correction_id"],
            name="withdrawn_corrections_correction_id_fkey",
        ),
        sa.PrimaryKeyConstraint("correction_id", name="withdrawn_corrections_pkey"),
    )
    op.create_table(
        "studio_projects",
        sa.Column("project_key", TEXT, nullable=False),
        sa.Column("server", TEXT, nullable=False),
        sa.Column("campaign_id", TEXT, nullable=False),
        sa.Column("form_id", TEXT, nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("project_id", sa.Integer(), nullable=True),
        sa.Column("polled_until", MOMENT, nullable=True),
        sa.ForeignKeyConstraint(
            ["campaign_id"], ["campaigns.campaign_id"], name="studio_projects_campaign_id_fkey"
        ),
        sa.PrimaryKeyConstraint("project_key", name="studio_projects_pkey"),
        sa.UniqueConstraint(
            "server",
            "campaign_id",
            "form_id",
            "number",
            name="studio_projects_one_server_campaign_id_form_id_number",
        ),
    )
    op.create_table(
        "studio_tasks",
        sa.Column("task_key", TEXT, nullable=False),
        sa.Column("project_key", TEXT, nullable=False),
        sa.Column("draft_id", TEXT, nullable=False),
        sa.Column("task_id", sa.Integer(), nullable=True),
        sa.Column("refused", TEXT, nullable=True),
        sa.ForeignKeyConstraint(
            ["draft_id"], ["drafts.draft_id"], name="studio_tasks_draft_id_fkey"
        ),
        sa.ForeignKeyConstraint(
            ["project_key"], ["studio_projects.project_key"], name="studio_tasks_project_key_fkey"
        ),
        sa.PrimaryKeyConstraint("task_key", name="studio_tasks_pkey"),
        sa.UniqueConstraint(
            "project_key", "draft_id", name="studio_tasks_one_project_key_draft_id"
        ),
    )
    op.create_index("studio_tasks_by_draft_id", "studio_tasks", ["draft_id"], unique=False)
    op.create_table(
        "experts",
        sa.Column("expert", TEXT, nullable=False),
        sa.Column("server", TEXT, nullable=False),
        sa.Column("user_id", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("expert", name="experts_pkey"),
        sa.UniqueConstraint("server", "user_id", name="experts_one_server_user_id"),
    )
    op.create_table(
        "annotation_versions",
        sa.Column("version_id", TEXT, nullable=False),
        sa.Column("task_key", TEXT, nullable=False),
        sa.Column("annotation_id", sa.Integer(), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("fate", WORD, nullable=False),
        sa.Column("reason", TEXT, nullable=True),
        sa.Column("expert", TEXT, nullable=True),
        sa.Column("correction_id", TEXT, nullable=True),
        sa.Column("lead_time_s", sa.Double(), nullable=True),
        sa.Column("raw", TEXT, nullable=False),
        sa.Column("created_at", MOMENT, nullable=False),
        sa.ForeignKeyConstraint(
            ["correction_id"],
            ["corrections.correction_id"],
            name="annotation_versions_correction_id_fkey",
        ),
        sa.ForeignKeyConstraint(
            ["expert"], ["experts.expert"], name="annotation_versions_expert_fkey"
        ),
        sa.ForeignKeyConstraint(
            ["task_key"], ["studio_tasks.task_key"], name="annotation_versions_task_key_fkey"
        ),
        sa.PrimaryKeyConstraint("version_id", name="annotation_versions_pkey"),
        sa.UniqueConstraint(
            "task_key",
            "annotation_id",
            "number",
            name="annotation_versions_one_task_key_annotation_id_number",
        ),
    )
