"""How the packaged model and its judges are trained and measured; README.md says how to run it."""
