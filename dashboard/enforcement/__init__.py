"""Pages of enforcement: what waits for a person, what is stopped, what was decided and why."""
