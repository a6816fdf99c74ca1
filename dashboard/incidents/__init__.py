"""Pages of incidents: what needs somebody, one incident, channels, and what did not arrive."""
