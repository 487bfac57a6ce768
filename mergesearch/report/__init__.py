"""What a study's log looks like to a person: tables, pictures, a web page in one file, and the terminal."""
