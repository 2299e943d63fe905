"""Who calls, and what they may: signatures, accounts, identities and policies."""
