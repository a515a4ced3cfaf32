"""The hands: Celery processes that claim a job, keep its lease, run it in a child and tell the outcome."""
