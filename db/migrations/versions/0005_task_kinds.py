"""Tasks of several kinds in Label Studio: a project names its kind, a task what it shows.

The tables are made anew, since SQLite cannot rename a column that others refer to.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

TEXT = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")
WORD = sa.String(16)
MOMENT = sa.DateTime(timezone=True)

PICTURES = "form-4b430e9380a27c88f9eb"
"""form of the project that holds the files"""
PROJECT = "project_key, server, campaign_id, form_id, number, project_id, polled_until"
TASK = "task_key, project_key, task_id, refused"
VERSION = (
    "version_id, task_key, annotation_id, number, fate, reason, expert, lead_time_s, raw,"
    " created_at"
)


def upgrade() -> None:
    _set_aside()
    _create_projects(
        sa.Column("kind", WORD, nullable=False), sa.Column("owner", TEXT, nullable=True)
    )
    _create_tasks("subject_id", sa.Column("image_id", TEXT, nullable=False))
    op.create_index("studio_tasks_by_image_id", "studio_tasks", ["image_id"], unique=False)
    _create_versions("record_id")
    op.create_index(
        "annotation_versions_by_record_id", "annotation_versions", ["record_id"], unique=False
    )
    op.execute(
        f"INSERT INTO studio_projects ({PROJECT}, kind) SELECT {PROJECT}, CASE form_id"
        f" WHEN '{PICTURES}' THEN 'pictures' ELSE 'review' END FROM old_projects"
    )
    op.execute(
        f"INSERT INTO studio_tasks ({TASK}, subject_id, image_id) SELECT {_of('t', TASK)},"
        " t.draft_id, d.image_id FROM old_tasks t JOIN drafts d ON d.draft_id = t.draft_id"
    )
    op.execute(
        f"INSERT INTO annotation_versions ({VERSION}, record_id)"
        f" SELECT {VERSION}, correction_id FROM old_versions"
    )
    _let_go()


def downgrade() -> None:
    _set_aside()
    _create_projects()
    _create_tasks("draft_id", of=("drafts", "draft_id"))
    _create_versions("correction_id", of=("corrections", "correction_id"))
    kept = "SELECT project_key FROM old_projects WHERE kind IN ('review', 'pictures')"
    op.execute(
        f"INSERT INTO studio_projects ({PROJECT})"
        f" SELECT {PROJECT} FROM old_projects WHERE project_key IN ({kept})"
    )
    op.execute(
        f"INSERT INTO studio_tasks ({TASK}, draft_id)"
        f" SELECT {TASK}, subject_id FROM old_tasks WHERE project_key IN ({kept})"
    )
    op.execute(
        f"INSERT INTO annotation_versions ({VERSION}, correction_id) SELECT {VERSION}, record_id"
        " FROM old_versions WHERE task_key IN (SELECT task_key FROM studio_tasks)"
    )
    _let_go()


def _of(table: str, columns: str) -> str:
    return ", ".join(f"{table}.{column}" for column in columns.split(", "))


def _set_aside() -> None:
    for table in ("projects", "tasks"):
        op.execute(f"CREATE TABLE old_{table} AS SELECT * FROM studio_{table}")
    op.execute("CREATE TABLE old_versions AS SELECT * FROM annotation_versions")
    for table in ("annotation_versions", "studio_tasks", "studio_projects"):
        op.drop_table(table)


def _let_go() -> None:
    for table in ("old_versions", "old_tasks", "old_projects"):
        op.drop_table(table)


def _create_projects(*columns: sa.Column[str]) -> None:
    op.create_table(
        "studio_projects",
        sa.Column("project_key", TEXT, nullable=False),
        sa.Column("server", TEXT, nullable=False),
        sa.Column("campaign_id", TEXT, nullable=False),
        sa.Column("form_id", TEXT, nullable=False),
        *columns,
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


def _create_tasks(
    subject: str, *columns: sa.Column[str], of: tuple[str, str] = ("images", "image_id")
) -> None:
    """`of` is the table and column that the task's only reference besides its project is to."""
    table, column = of
    op.create_table(
        "studio_tasks",
        sa.Column("task_key", TEXT, nullable=False),
        sa.Column("project_key", TEXT, nullable=False),
        sa.Column(subject, TEXT, nullable=False),
        *columns,
        sa.Column("task_id", sa.Integer(), nullable=True),
        sa.Column("refused", TEXT, nullable=True),
        sa.ForeignKeyConstraint(
            [column], [f"{table}.{column}"], name=f"studio_tasks_{column}_fkey"
        ),
        sa.ForeignKeyConstraint(
            ["project_key"], ["studio_projects.project_key"], name="studio_tasks_project_key_fkey"
        ),
        sa.PrimaryKeyConstraint("task_key", name="studio_tasks_pkey"),
        sa.UniqueConstraint("project_key", subject, name=f"studio_tasks_one_project_key_{subject}"),
    )
    op.create_index(f"studio_tasks_by_{subject}", "studio_tasks", [subject], unique=False)


def _create_versions(record: str, *, of: tuple[str, str] | None = None) -> None:
    references = (
        [
            sa.ForeignKeyConstraint(
                [record], [".".join(of)], name=f"annotation_versions_{record}_fkey"
            )
        ]
        if of
        else []
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
        sa.Column(record, TEXT, nullable=True),
        sa.Column("lead_time_s", sa.Double(), nullable=True),
        sa.Column("raw", TEXT, nullable=False),
        sa.Column("created_at", MOMENT, nullable=False),
        *references,
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
