"""The tables. Times are seconds since 1970 by the database's clock; ids are made in `domain.ids`."""

from db.tables.base import Table
from db.tables.files import File, JobFile, ResultFile
from db.tables.jobs import Checkpoint, Event, Job, JobLabel, JobStart, Metric, Model
from db.tables.tenants import ApiKey, Audit, Quota, Tenant, TenantLoad
from db.tables.upkeep import Leader
from db.tables.uploads import Upload, UploadPart
from db.tables.webhooks import WebhookAttempt, WebhookDelivery, WebhookEndpoint

__all__ = [
    "ApiKey",
    "Audit",
    "Checkpoint",
    "Event",
    "File",
    "Job",
    "JobFile",
    "JobLabel",
    "JobStart",
    "Leader",
    "Metric",
    "Model",
    "Quota",
    "ResultFile",
    "Table",
    "Tenant",
    "TenantLoad",
    "Upload",
    "UploadPart",
    "WebhookAttempt",
    "WebhookDelivery",
    "WebhookEndpoint",
]
