"""The one Celery application and the worker processes that run it."""
