"""Whether providers' bills, the ledger, statements and Stripe say the same, and what differs."""
