"""The web pages, one file per page; each has a `router`, a template and, where it is alive, a script."""
