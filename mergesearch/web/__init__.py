"""`mergesearch serve`: REST and web pages over a study store. Reads it; people's wishes are rows and processes."""
