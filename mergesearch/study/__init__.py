"""What a study is: the schema of its file, its checks, and what follows from it and the models' headers."""
