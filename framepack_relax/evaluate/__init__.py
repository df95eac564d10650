"""Room: what a film shows, measured."""
