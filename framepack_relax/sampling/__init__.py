"""One section: noise -> latents. diffusers schedulers do the solving."""
