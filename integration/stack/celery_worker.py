"""A Celery application with one task, as PostHog would have it: the worker of test_celery.py.

Run as `celery --app stack.celery_worker --broker redis://… worker`; a task leaves a marker in the broker's
Redis.
"""

from __future__ import annotations

import json
from typing import Any

import redis
from celery import Celery
from celery.app.task import Task

TASK = "posthog.tasks.feature_flags.update_team_flags_cache"
MARKERS = "test:rebuilt"

app = Celery("posthog", set_as_current=False)
app.conf.task_ignore_result = True
app.conf.worker_hijack_root_logger = False
app.conf.broker_connection_retry_on_startup = True


@app.task(name=TASK, bind=True)
def rebuild(task: Task, *args: Any, **kwargs: Any) -> None:
    marker = {"id": task.request.id, "args": args, "kwargs": kwargs, "retries": task.request.retries}
    redis.Redis.from_url(app.conf.broker_url).rpush(MARKERS, json.dumps(marker))
