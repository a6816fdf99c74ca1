"""Pages of incidents: the list, one incident, channels, and deliveries."""
