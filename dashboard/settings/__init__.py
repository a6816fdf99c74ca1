"""Settings: who has access, what calls cost, who is notified, and what was changed."""
