"""The report of an evaluation: one page for people, the same figures for programs, and pictures."""

from pfstore.evaluation.report.writing import Report, check, write_report

__all__ = ["Report", "check", "write_report"]
