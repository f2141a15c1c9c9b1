"""`pfstore source inspect`: what a database that nobody documented holds."""

from pfstore.sources.inspection.describing import described
from pfstore.sources.inspection.inspecting import Finding, Inspection, inspect
from pfstore.sources.inspection.mapping import propose, to_toml
from pfstore.sources.inspection.reporting import report

__all__ = ["Finding", "Inspection", "described", "inspect", "propose", "report", "to_toml"]
