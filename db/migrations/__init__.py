"""Alembic's folder: how the tables came to be, one revision after the other.

Revisions are numbered, in their ids and in their file names. A new one, from what the models have
and the configured database lacks: `alembic revision --autogenerate --rev-id 0002 -m "why"`.
"""
