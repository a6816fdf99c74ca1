"""Ask before spending: reservations, and everything that may refuse one."""
