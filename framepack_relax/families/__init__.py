"""Models: what planning and sampling may ask of one, where weights come from, and a folder for each family."""
