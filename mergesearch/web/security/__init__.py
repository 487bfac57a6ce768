"""Who may do what: the token, sessions, limits, folders, headers."""
