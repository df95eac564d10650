"""Storyboard -> RenderPlan: sections on the time grid of a model, seeds, what each sees, a row per step. No torch."""
