"""Saved views of the explore page, and reports of them that are sent by the clock."""
