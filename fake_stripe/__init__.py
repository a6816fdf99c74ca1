"""A fake Stripe over real HTTP on loopback, for the demo and for tests. No money moves here."""
