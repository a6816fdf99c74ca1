"""Formats of dates and times by language, for the admin."""
