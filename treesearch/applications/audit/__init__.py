"""Audits of a saved layer's predictions on features from files."""

from treesearch.applications.audit.run import AuditRun, audit_features, coverage_table, load_task

__all__ = ["AuditRun", "audit_features", "coverage_table", "load_task"]
