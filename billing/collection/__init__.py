"""Collecting with Stripe: what is due is in rows, and each step may be repeated."""
