"""Storyboard -> RenderPlan: sections on the 36-frame grid, seeds, history slots, sigmas and scales. No torch."""
