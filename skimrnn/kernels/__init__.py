"""One sequence of each recurrent cell: the reference, and the fast paths that are held to it."""
