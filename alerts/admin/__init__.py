"""Admin pages of alerts."""
