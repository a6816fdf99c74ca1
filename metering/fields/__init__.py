"""Fields that bodies, addresses and forms share: how a match, a value or money is given."""
