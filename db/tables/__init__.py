"""The tables. Times are seconds since 1970 by the database's clock; ids are made in `domain.ids`."""

from db.tables.base import Table
from db.tables.files import File, ResultFile
from db.tables.jobs import Checkpoint, Event, Job, JobLabel, Metric, Model
from db.tables.tenants import ApiKey, Audit, Quota, Tenant, TenantLoad
from db.tables.upkeep import Leader
from db.tables.uploads import Upload, UploadPart

__all__ = [
    "ApiKey",
    "Audit",
    "Checkpoint",
    "Event",
    "File",
    "Job",
    "JobLabel",
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
]
