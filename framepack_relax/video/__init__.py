"""Latents -> frames -> mp4: decoding and blending, the writer, contact sheets, curves, a measure of motion."""
