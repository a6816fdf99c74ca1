"""Saved views and scheduled reports."""
