"""Room: many storyboards on many GPUs: films, units of work, executors, what a batch leaves behind."""
