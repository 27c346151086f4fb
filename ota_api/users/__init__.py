"""Users: people with a name, a role and a password. `zenthos user` manages them."""
